"""Gradient-free class forgetting: project each layer's inputs off the class's own directions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.errors import UsageError
from orthounlearn.methods.base import Context, SplitName, UnlearningMethod
from orthounlearn.methods.gradients import check_sizes, sampled_batches
from orthounlearn.methods.layers import evaluating

Layer = nn.Conv2d | nn.Linear

_BATCH = 64  # images per pass: memory and speed, not the result


class SvdProjection(UnlearningMethod):
    r"""W ← W Pᵀ, P = I − (M_f − M_f M_r), M = U diag(a·s / ((a − 1)·s + 1)) Uᵀ, s = S² / Σ S².

    For every convolution and linear layer, U and S are the singular vectors and values of what it
    reads: unfolded patches as columns, of images of D_f for M_f (with a = α_f) and of D_r for M_r
    (a = α_r). All activations are those of the original network; biases stay as they are.

    Source: Kodge, Saha, Roy, "Deep Unlearning: Fast and Efficient Gradient-free Approach to Class
    Forgetting", arXiv 2312.00761; sangamesh-kodge/class_forgetting@e27aeb2 (900 images of each set
    and up to 10,000 patches per layer; CIFAR-10: α_r 100, α_f 3; CIFAR-100: 990 images, α_r 1000,
    α_f 30).

    Deviations:
        α is chosen on validation images by tuning, theirs on test images.
        Patches are drawn at random positions of the padded input, as many from each image. The
        released code crops one window of three kernel widths, at the same place in all images,
        pads that window again, and draws from its patches.
        M is computed as a·G((a − 1)·G + I)⁻¹ from the Gram matrix G = AAᵀ/‖A‖² of the patches A,
        which is the same matrix, without a singular value decomposition.

    Args:
        alpha_r: Scale of the retained directions; positive.
        alpha_f: Scale of the forgotten directions; positive.
        samples: Images of each of the two sets, the same share of each class.
        patches: The most per layer and set, but one of each image at least.
    """

    uses = frozenset({"forget_train", "retain_train"})

    def __init__(
        self,
        *,
        alpha_r: float = 100.0,
        alpha_f: float = 3.0,
        samples: int = 900,
        patches: int = 10_000,
    ) -> None:
        if alpha_r <= 0 or alpha_f <= 0:
            raise UsageError(
                "Expected method.alpha_r and method.alpha_f to be positive, "
                f"but got {alpha_r} and {alpha_f}."
            )
        if patches < 1:
            raise UsageError(f"Expected method.patches of at least 1, but got {patches}.")
        check_sizes(samples=samples, batch_size=_BATCH)
        self.alpha_r = alpha_r
        self.alpha_f = alpha_f
        self.samples = samples
        self.per_image = max(1, patches // samples)

    @torch.no_grad()
    def unlearn(self, net: nn.Module, context: Context) -> nn.Module:
        """Measure both sets and project the weights."""
        generator = torch.Generator(context.example.device).manual_seed(context.seed)
        retain = self._grams(net, context, "retain_train", generator)
        forget = self._grams(net, context, "forget_train", generator)
        for layer, gram_f in forget.items():
            m_f = importance(gram_f, self.alpha_f)
            m_r = importance(retain[layer], self.alpha_r)
            projection = torch.eye(m_f.shape[-1]).to(m_f) - (m_f - m_f @ m_r)
            weight_GOD = layer.weight.reshape(len(m_f), -1, m_f.shape[-1])
            layer.weight.copy_((weight_GOD @ projection.mT).reshape(layer.weight.shape))
        return net

    def _grams(
        self, net: nn.Module, context: Context, split: SplitName, generator: torch.Generator
    ) -> dict[Layer, Tensor]:
        """Return AAᵀ of every layer, (G, D, D) for G groups of D inputs each."""
        grams: dict[Layer, Tensor] = {}

        def measure(layer: Layer, images: Tensor) -> None:
            patches_GDN = patches_of(layer, images, per_image=self.per_image, generator=generator)
            grams[layer] = grams.get(layer, 0) + patches_GDN @ patches_GDN.mT

        with evaluating(net), _reading(net, measure):
            for images, _ in sampled_batches(
                context, split, samples=self.samples, batch_size=_BATCH
            ):
                net(images)
        return grams


@contextmanager
def _reading(net: nn.Module, measure: Callable[[Layer, Tensor], None]) -> Iterator[None]:
    """Call `measure` with every convolution and linear layer that runs, and what it reads."""

    def hook(layer: Any, inputs: tuple[Tensor, ...]) -> None:  # noqa: ANN401 - a module
        measure(layer, inputs[0])

    layers = [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    handles = [layer.register_forward_pre_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def patches_of(
    layer: Layer, inputs: Tensor, *, per_image: int, generator: torch.Generator
) -> Tensor:
    """Return what a layer multiplies its kernels with, as columns (G, D, N), at random positions.

    Args:
        layer: A convolution of G groups, or a linear layer (G = 1).
        inputs: What it reads: (B, C, H, W), or (B, …, D).
        per_image: Positions drawn in each image, without repetition.
        generator: Of the positions.
    """
    if isinstance(layer, nn.Conv2d):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        padded = F.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)
        patches_BDL = F.unfold(
            padded, layer.kernel_size, dilation=layer.dilation, stride=layer.stride
        )
        groups = layer.groups
    else:
        patches_BDL = inputs.flatten(1, -2).mT if inputs.ndim > 2 else inputs[:, :, None]
        groups = 1
    count, depth, positions = patches_BDL.shape
    if positions > per_image:
        draws_BL = torch.rand(count, positions, device=inputs.device, generator=generator)
        chosen_BN = draws_BL.topk(per_image, 1).indices
        patches_BDL = patches_BDL.gather(2, chosen_BN[:, None].expand(-1, depth, -1))
    patches_DN = patches_BDL.transpose(0, 1).flatten(1)
    return patches_DN.reshape(groups, depth // groups, -1)


def importance(gram: Tensor, alpha: float) -> Tensor:
    """Return M = U diag(a·s / ((a − 1)·s + 1)) Uᵀ (G, D, D) for G = U diag(S²) Uᵀ, s = S² / Σ S².

    A layer that reads nothing but zeros has no important direction: M = 0.
    """
    trace = gram.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None]
    shares = gram / trace.clamp_min(torch.finfo(gram.dtype).tiny)
    unit = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    found: Tensor = torch.linalg.solve((alpha - 1) * shares + unit, alpha * shares)
    return found
