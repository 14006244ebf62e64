"""Influence unlearning with the damped Fisher matrix (WoodFisher)."""

from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, combinations_with_replacement

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from orthounlearn.errors import DivergedError, UsageError
from orthounlearn.methods.base import Batch, Context, UnlearningMethod
from orthounlearn.methods.gradients import AT_ONCE, check_sizes, sampled_batches
from orthounlearn.methods.layers import evaluating

_HELD = 2**31  # bytes of the images' gradients at a time


class Influence(UnlearningMethod):
    r"""θ ← θ₀ + α·(F + κI)⁻¹ (|D_f|/|D|)(ḡ_f − ḡ_r), F = (1/N) Σ_i ∇CE_i ∇CE_iᵀ over N of D_r.

    ḡ are mean gradients of the cross-entropy in eval mode. To first order, α = 1 takes the images
    of D_f out of the training loss and gives their weight to D_r.

    Source: the IU baseline (wfisher) of Jia et al., "Model Sparsity Can Simplify Machine
    Unlearning", arXiv 2304.04934; OPTML-Group/Unlearn-Sparse@80ba55d (N 1000, κ 1 implied, α
    tuned; 0.2 is a placeholder of their parser), after Singh and Alistarh, "WoodFisher", arXiv
    2004.14340.

    Deviations:
        WoodFisher reaches the inverse by N rank-one updates, each of which needs all earlier
        gradients. The same vector comes here from one N × N system of their inner products
        (Woodbury). The released recursion carries a single vector instead of all of them, so that
        it does not arrive at the inverse.
        The N images are a random share of each class; theirs are the first of the data set.

    Args:
        alpha: Length of the step; 0 changes nothing.
        damping: κ; positive.
        samples: N, time and memory grow with its square; None takes all of D_r.
        batch_size: Images per pass. Memory and speed, not the result.
    """

    uses = frozenset({"forget_train", "retain_train"})

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        damping: float = 1.0,
        samples: int | None = 1000,
        batch_size: int = 256,
    ) -> None:
        if alpha < 0 or damping <= 0:
            raise UsageError(
                "Expected method.alpha of at least 0 and method.damping to be positive, "
                f"but got {alpha} and {damping}."
            )
        check_sizes(samples=samples, batch_size=batch_size)
        self.alpha = alpha
        self.damping = damping
        self.samples = samples
        self.batch_size = batch_size

    @torch.no_grad()
    def unlearn(self, net: nn.Module, context: Context) -> nn.Module:
        """Take the step."""
        images = ImageGradients(net)
        sample = sampled_batches(
            context, "retain_train", samples=self.samples, batch_size=self.batch_size
        )
        with evaluating(net):
            forget, of_forget = images.total(
                context.batches("forget_train", batch_size=self.batch_size)
            )
            retain, of_retain = images.total(
                context.batches("retain_train", batch_size=self.batch_size)
            )
            share = of_forget / (of_forget + of_retain)
            difference = share * (forget / of_forget - retain / of_retain)
            direction = images.solve(list(sample), difference, damping=self.damping)
        for name, values in images.split(direction).items():
            net.get_parameter(name).add_(values, alpha=self.alpha)
        return net


class ImageGradients:
    """The matrix G (N, P) of the images' cross-entropy gradients, a few of its columns at a time.

    Args:
        net: To be in eval mode while this is used. It is not changed.
    """

    def __init__(self, net: nn.Module) -> None:
        self._net = net
        self._weights = {name: p.detach() for name, p in net.named_parameters()}

    def total(self, batches: Iterable[Batch]) -> tuple[Tensor, int]:
        """Return Σ_i g_i (P,) and the number of images."""
        total, count = torch.zeros_like(_flat(self._weights)), 0
        for batch in batches:
            total += self._weighted_sum(batch, torch.ones_like(batch[1], dtype=total.dtype))
            count += len(batch[1])
        return total, count

    def solve(self, batches: Sequence[Batch], right: Tensor, *, damping: float) -> Tensor:
        """Return x (P,) with (GᵀG/N + κI) x = `right`, by x = (b − Gᵀ(NκI + GGᵀ)⁻¹Gb) / κ.

        One backward pass of each image where G fits `_HELD`; conjugate gradients keep nothing, but
        need a double one in each of their iterations.
        """
        sizes = [len(labels) for _, labels in batches]
        rows = [slice(end - size, end) for size, end in zip(sizes, accumulate(sizes), strict=True)]
        count = sum(sizes)
        # On the CPU: not every accelerator has float64, and N is small.
        system = count * damping * torch.eye(count, dtype=torch.float64)
        projected = torch.zeros(count, 1, dtype=torch.float64)
        width = max(_HELD // (count * right.element_size()), 1)
        for start in range(0, len(right), width):
            columns = range(start, min(start + width, len(right)))
            blocks = [self._gradients(batch, columns) for batch in batches]
            for own, block_BC in zip(rows, blocks, strict=True):
                projected[own] += (block_BC @ right[start : columns.stop, None]).cpu()
            for i, j in combinations_with_replacement(range(len(blocks)), 2):
                system[rows[j], rows[i]] += (blocks[j] @ blocks[i].T).cpu()
        weights_N1 = _solved(system, projected, least=count * damping)
        weights_N = weights_N1[:, 0].to(right)
        x = right.clone()
        parts = torch.split(weights_N, sizes)
        for batch, part_B in zip(batches, parts, strict=True):
            x -= self._weighted_sum(batch, part_B)
        return x / damping

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """Return a vector (P,) as tensors shaped like the parameters, by their names."""
        parts = torch.split(vector, [value.numel() for value in self._weights.values()])
        return {
            name: part.view(value.shape)
            for (name, value), part in zip(self._weights.items(), parts, strict=True)
        }

    def _gradients(self, batch: Batch, columns: range) -> Tensor:
        """Return the rows of G of one batch, (B, C): a pass through no more than it has to."""
        chosen: dict[str, Tensor] = {}
        start = first = 0
        for name, value in self._weights.items():
            if start < columns.stop and start + value.numel() > columns.start:
                first = first if chosen else start
                chosen[name] = value
            start += value.numel()

        def loss(values: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
            logits = functional_call(self._net, self._weights | values, (image[None],))
            return F.cross_entropy(logits, label[None])

        rows = vmap(grad(loss), in_dims=(None, 0, 0), chunk_size=AT_ONCE)(chosen, *batch)
        flat_BC = torch.cat([part.flatten(1) for part in rows.values()], dim=1)
        return flat_BC[:, columns.start - first : columns.stop - first]

    def _weighted_sum(self, batch: Batch, weights_B: Tensor) -> Tensor:
        """Return Σ_i w_i g_i (P,) over one batch."""
        losses = self._losses(batch)
        return _flat(grad(lambda values: losses(values).dot(weights_B))(self._weights))

    def _losses(self, batch: Batch) -> Callable[[dict[str, Tensor]], Tensor]:
        """Return the losses (B,) of one batch as a function of the parameters."""
        images, labels = batch

        def losses(values: dict[str, Tensor]) -> Tensor:
            logits = functional_call(self._net, values, (images,))
            return F.cross_entropy(logits, labels, reduction="none")

        return losses


def _solved(system: Tensor, right: Tensor, *, least: float) -> Tensor:
    """Return x of system · x = right, for a symmetric matrix with eigenvalues ≥ `least`.

    Its part on and below the diagonal is read.

    The products of a network's gradients are single precision: where an earlier request has left
    huge ones, rounding outweighs the damping, and eigenvalues that are too small for it are noise.

    Raises:
        DivergedError: There is nan or infinity in the system.
    """
    factor, failed = torch.linalg.cholesky_ex(system)
    if not failed:
        return torch.cholesky_solve(right, factor)
    if not torch.isfinite(system).all():
        raise DivergedError(
            "Expected gradients of finite size, but some of this network's images have none: it "
            "was ruined before, and influence has no step to take from there."
        )
    values, vectors = torch.linalg.eigh(system)
    solved: Tensor = vectors @ ((vectors.T @ right) / values.clamp(min=least)[:, None])
    return solved


def _flat(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors.values()])
