"""Influence unlearning with the damped Fisher matrix (WoodFisher)."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad
from torch.nn import functional as F

from orthounlearn.errors import UsageError
from orthounlearn.methods.base import Batch, Context, UnlearningMethod
from orthounlearn.methods.gradients import check_sizes, sampled_batches
from orthounlearn.methods.layers import evaluating

_TOLERANCE = 1e-5  # of the residual, relative to the right-hand side


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
        gradients. The same vector is found here by conjugate gradients, which keeps none. The
        released recursion carries a single vector instead of all of them, so that it does not
        arrive at the inverse.
        The N images are a random share of each class; theirs are the first of the data set.

    Args:
        alpha: Length of the step; 0 changes nothing.
        damping: κ; positive.
        samples: N; None takes all of D_r.
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
    """The matrix G (N, P) of the images' cross-entropy gradients, by its products alone.

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
        """Return x (P,) with (GᵀG/N + damping·I) x = `right`, by conjugate gradients."""
        count = sum(len(labels) for _, labels in batches)
        x = torch.zeros_like(right)
        residual, direction = right.clone(), right.clone()
        squared = residual.dot(residual)
        enough = _TOLERANCE**2 * squared
        for _ in range(count + 1):  # the matrix has at most N + 1 distinct eigenvalues
            if squared <= enough:
                break
            image = self._gram(batches, direction) / count + damping * direction
            step = squared / direction.dot(image)
            x += step * direction
            residual -= step * image
            previous, squared = squared, residual.dot(residual)
            direction = residual + squared / previous * direction
        return x

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """Return a vector (P,) as tensors shaped like the parameters, by their names."""
        parts = torch.split(vector, [value.numel() for value in self._weights.values()])
        return {
            name: part.view(value.shape)
            for (name, value), part in zip(self._weights.items(), parts, strict=True)
        }

    def _gram(self, batches: Sequence[Batch], vector: Tensor) -> Tensor:
        """Return GᵀG·vector."""
        product = torch.zeros_like(vector)
        for batch in batches:
            # Σ_i w_i g_i·vector is linear in w, with the slopes g_i·vector as its gradient.
            slopes_B = grad(lambda w_B, batch=batch: self._weighted_sum(batch, w_B).dot(vector))
            zeros_B = torch.zeros_like(batch[1], dtype=vector.dtype)
            product += self._weighted_sum(batch, slopes_B(zeros_B))
        return product

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


def _flat(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors.values()])
