"""Class statistics: how strongly each channel answers to each class, in one pass over the data."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from orthounlearn.masking.tracing import Site

Pooling = Literal["max", "mean"]


@dataclass(frozen=True)
class ClassStatistics:
    """Sums over the images of each class.

    Attributes:
        sums: Site name -> float64 (K, C): Σ_{x∈c} a_j(x), with a_j(x) the pooled ReLU activation.
        counts_K: float64 (K,) images per class.
        pooling: "max" (published) or "mean" over the pixels.
    """

    sums: dict[str, Tensor]
    counts_K: Tensor
    pooling: Pooling

    def means(self, site: str) -> Tensor:
        """Return the mean activation (K, C) of a site."""
        return self.sums[site] / self.counts_K[:, None]


def class_statistics(
    net: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    sites: Sequence[Site],
    num_classes: int,
    pooling: Pooling = "max",
    autocast: Callable[[], Any] = nullcontext,
) -> ClassStatistics:
    """Measure all classes at all sites in one pass. Memory does not depend on the number of images.

    a_j(x) = max over pixels of ReLU(channel j), measured after the BatchNorm; the mean is the
    other option. Source: the published activation statistic (arXiv 2506.19891v2 as
    re-implemented second-hand), except that it is taken after the BatchNorm, since that is what
    the next layer sees, and kept for every class, so that any request is answered without data.

    Args:
        net: The original model. Left in the mode it was in, without hooks.
        batches: Float images (B, C, H, W) and labels (B,), on the network's device.
        sites: Where to measure.
        num_classes: K.
        pooling: Over the pixels.
        autocast: Makes the context of the forward pass, for mixed precision.
    """
    device = next(net.parameters()).device
    # MPS has no float64; there the sums of a pass stay well within float32's 24 bits.
    dtype = torch.float32 if device.type == "mps" else torch.float64
    sums = {
        s.name: torch.zeros(num_classes, s.num_channels, dtype=dtype, device=device) for s in sites
    }
    counts = torch.zeros(num_classes, dtype=dtype, device=device)
    pooled: dict[str, Tensor] = {}
    with _probing(net, sites, pooling, pooled), torch.inference_mode():
        for images, labels in batches:
            with autocast():
                net(images)
            one_hot_KB = nn.functional.one_hot(labels, num_classes).to(dtype).T
            counts += one_hot_KB.sum(1)
            for name, activations_BC in pooled.items():
                sums[name].addmm_(one_hot_KB, activations_BC.to(dtype))
    return ClassStatistics({n: s.cpu() for n, s in sums.items()}, counts.cpu(), pooling)


@contextmanager
def _probing(
    net: nn.Module, sites: Sequence[Site], pooling: Pooling, pooled: dict[str, Tensor]
) -> Any:  # noqa: ANN401 - a context manager
    modules = dict(net.named_modules())
    modes = {module: module.training for module in net.modules()}

    def hook(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def measure(_: nn.Module, __: Any, output: Tensor) -> None:  # noqa: ANN401
            pooled[name] = pool(output, pooling)

        return measure

    handles = [modules[s.probe].register_forward_hook(hook(s.name)) for s in sites]
    try:
        net.eval()
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes.items():
            module.training = mode


def pool(output: Tensor, pooling: Pooling) -> Tensor:
    """Return ReLU activations (B, C) pooled over the pixels of (B, C, H, W).

    The ReLU comes after the maximum, on a few numbers: max ReLU(x) = ReLU(max x).
    """
    if pooling == "mean":
        return output.clamp_min(0).mean((2, 3))
    # Rows (B, H·W, C) as they lie in channels-last memory: the reduction then runs over whole
    # vectors of channels.
    return output.permute(0, 2, 3, 1).flatten(1, 2).amax(1).clamp_min(0)
