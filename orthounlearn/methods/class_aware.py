"""Class-aware importance: remove the channels that the class needs and few others do."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from orthounlearn.errors import UsageError
from orthounlearn.masking.attenuation import Attenuation
from orthounlearn.masking.channels import ChannelEdit, record_edits
from orthounlearn.masking.strengths import rank_strengths
from orthounlearn.masking.tracing import Site, select_sites, trace_sites
from orthounlearn.methods.base import Context, UnlearningMethod
from orthounlearn.methods.gradients import draw
from orthounlearn.methods.layers import evaluating

_BATCH = 64  # images per pass: memory and speed, not the result


class ClassAware(UnlearningMethod):
    r"""Remove the channels of highest s_j = mean_{c∈F} N_cj · (1 − mean_{c∉F} N_cj).

    N_cj = max over pixels p of the share of images of class c with |a_jp · ∂CE/∂a_jp| > τ, in
    [0, 1], is how much class c needs channel j: at the pixel where it is needed most, by how many
    of its images. s_j is 1 for a channel that every forgotten image and no other image needs, and
    0 for one that no forgotten or every other image needs; such a one is never removed.

    Source: the importance of Jiang et al., "Class-Aware Pruning for Efficient Neural Networks",
    arXiv 2312.05875; HWAI-TUDa/Class-Aware-Pruning (10 images per class; τ 1e-50, which is 0 in
    float32).

    Deviations:
        The paper prunes to compress: it sums N over all classes (before the maximum over pixels),
        removes the channels that few classes need, and trains again. Scoring a channel for the
        forgotten classes, the removal of a fixed share, and no training are ours.
        a is taken where the next layer reads it, after BatchNorm. At τ = 0 that is the same set of
        images as at the output of the convolution.
        CE is that of one image. The released code averages over a batch, which scales τ.

    Args:
        sites: Which channels; see `masking.tracing.select_sites`.
        images_per_class: To measure N with.
        threshold: τ, at least 0.
        rate: Share of the channels of each site, in (0, 1].
    """

    prepare_uses = frozenset({"forget_train", "retain_train"})
    training_free = True

    def __init__(
        self,
        *,
        sites: str | Sequence[str] = "last",
        images_per_class: int = 10,
        threshold: float = 0.0,
        rate: float = 0.3,
    ) -> None:
        if images_per_class < 1 or threshold < 0:
            raise UsageError(
                "Expected method.images_per_class of at least 1 and method.threshold of at least "
                f"0, but got {images_per_class} and {threshold}."
            )
        rank_strengths(torch.zeros(1), rate=rate, floor=1)  # refuses what is out of range
        self.sites = sites
        self.images_per_class = images_per_class
        self.threshold = threshold
        self.rate = rate

    def prepare(self, net: nn.Module, context: Context) -> None:
        """Measure how much each class needs each channel."""
        chosen = select_sites(trace_sites(net, context.example), self.sites)
        self._attenuation = Attenuation(net, chosen)
        self._names = [site.name for site in chosen]
        self._needs, self._counts_K = self._measure(net, context, chosen)

    def unlearn(self, net: nn.Module, context: Context) -> nn.Module:
        """Rank and remove. Without data."""
        factors = [1 - strength_C for strength_C in self._strengths(context.forget)]
        self._attenuation.apply(self._attenuation.shape(factors))
        return net

    def _scores(self, forget: tuple[int, ...]) -> list[Tensor]:
        return [class_aware_score(needs_KC, forget) for needs_KC in self._needs]

    def _strengths(self, forget: tuple[int, ...]) -> list[Tensor]:
        return [
            rank_strengths(score_C, rate=self.rate, floor=1) * (score_C > 0)
            for score_C in self._scores(forget)
        ]

    def channels(self, forget: tuple[int, ...]) -> dict[str, ChannelEdit]:
        """Return scores and strengths of every site."""
        return record_edits(
            self._names,
            self._counts_K,
            forget,
            scores=self._scores,
            strengths=self._strengths,
        )

    def _measure(
        self, net: nn.Module, context: Context, sites: Sequence[Site]
    ) -> tuple[list[Tensor], Tensor]:
        """Return N (K, C) of every site, and the number of images (K,) that it is measured on."""
        quotas_K = torch.full((context.num_classes,), self.images_per_class)
        batches = draw(
            context,
            ("forget_train", "retain_train"),
            quotas_K=quotas_K.to(context.example.device),
            batch_size=_BATCH,
        )
        sums: list[Any] = [0] * len(sites)  # of each site (K, C, pixels)
        counts_K = torch.zeros(context.num_classes, device=context.example.device)
        with evaluating(net), _outputs(net, [site.probe for site in sites]) as outputs:
            for images, labels in batches:
                # Asking for the images' gradient keeps the graph where weights are frozen.
                logits = net(images.requires_grad_())
                loss = F.cross_entropy(logits, labels, reduction="sum")
                activations = [outputs[site.probe] for site in sites]
                gradients = torch.autograd.grad(loss, activations)
                one_hot_KB = F.one_hot(labels, context.num_classes).T.to(logits.dtype)
                counts_K += one_hot_KB.sum(1)
                for index, (a, gradient) in enumerate(zip(activations, gradients, strict=True)):
                    needed = (a.detach() * gradient).abs() > self.threshold
                    needed_KX = one_hot_KB @ needed.to(logits.dtype).flatten(1)
                    sums[index] += needed_KX.view(len(needed_KX), needed.shape[1], -1)
        return [(total / counts_K[:, None, None]).amax(2).cpu() for total in sums], counts_K.cpu()


def class_aware_score(needs_KC: Tensor, forget: Sequence[int]) -> Tensor:
    """Return s (C,) from N (K, C).

    >>> class_aware_score(torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.5, 1.0, 1.0]]), [0])
    tensor([0.7500, 0.0000, 0.0000])
    """
    forgotten_K = torch.zeros(len(needs_KC), dtype=torch.bool)
    forgotten_K[list(forget)] = True
    # A class that an earlier request has left without images has no N: 0/0.
    return needs_KC[forgotten_K].mean(0) * (1 - needs_KC[~forgotten_K].nanmean(0))


@contextmanager
def _outputs(net: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Yield a mapping that holds the latest output of each named module."""
    outputs: dict[str, Tensor] = {}

    def record(name: str) -> Any:  # noqa: ANN401 - a hook
        return lambda _, __, output: outputs.__setitem__(name, output)

    handles = [net.get_submodule(name).register_forward_hook(record(name)) for name in names]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()
