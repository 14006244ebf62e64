"""Orthogonal soft pruning: attenuate the channels that answer to the class."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from orthounlearn.errors import UsageError
from orthounlearn.masking.attenuation import Attenuation, NormHandling
from orthounlearn.masking.channels import ChannelEdit, record_edits
from orthounlearn.masking.scores import SCORES
from orthounlearn.masking.statistics import ClassStatistics, Pooling
from orthounlearn.masking.strengths import rank_strengths
from orthounlearn.masking.tracing import Site, select_sites, trace_sites
from orthounlearn.methods.base import Context, UnlearningMethod


class SoftPrune(UnlearningMethod):
    """Scale the channels with the largest activation difference by min(1 − floor, r/k).

    Source: Gong, Yang, Tang, "Orthogonal Soft Pruning for Efficient Class Unlearning",
    arXiv 2506.19891 (v2 "FedOrtho"), as re-implemented from its formulas second-hand. Deviations
    by default: only the channels that the classifier reads are touched, since the literal
    "25 % of every layer" (`method=soft_prune_literal`) costs a small ResNet most of its retained
    accuracy; a residual sum is attenuated in all its terms; BatchNorm is scaled so that the
    activation is attenuated exactly.

    Preparation measures the statistics of all classes and ranks the channels for each; the request
    reads no data and multiplies a few weights.

    Args:
        sites: Which channels; see `masking.tracing.select_sites`.
        pooling: Of an activation over the pixels, "max" or "mean".
        score: A name in `masking.scores.SCORES`.
        rate: Share of the channels of each site, in (0, 1].
        floor: Smallest strength of a chosen channel, in [0, 1]; 1 prunes hard.
        norm_handling: "clean" or "literal"; see `masking.attenuation.Attenuation`.
        inverse: File to save what restores the original weights; None makes it irreversible.
    """

    prepare_uses = frozenset({"forget_train", "retain_train"})
    training_free = True

    def __init__(
        self,
        *,
        sites: str | Sequence[str] = "last",
        pooling: Pooling = "max",
        score: Literal["activation_difference", "normalised_difference", "tf_idf"] = (
            "activation_difference"
        ),
        rate: float = 0.25,
        floor: float = 0.5,
        norm_handling: NormHandling = "clean",
        inverse: str | None = None,
    ) -> None:
        if score not in SCORES:
            raise UsageError(
                f"Expected method.score out of {', '.join(SCORES)}, but got {score!r}."
            )
        rank_strengths(torch.zeros(1), rate=rate, floor=floor)  # refuses what is out of range
        self.sites = sites
        self.pooling = pooling
        self.score = SCORES[score]
        self.rate = rate
        self.floor = floor
        self.norm_handling = norm_handling
        self.inverse = inverse

    def prepare(self, net: nn.Module, context: Context) -> None:
        """Trace the network, measure all classes, and rank the channels for each class."""
        chosen = select_sites(trace_sites(net, context.example), self.sites)
        statistics = context.statistics(net, sites=chosen, pooling=self.pooling)
        self._attenuation = Attenuation(net, chosen, norm_handling=self.norm_handling)
        self._chosen = chosen
        self._statistics = statistics
        self._single: dict[tuple[int, ...], list[Tensor]] = {
            (label,): self._attenuation.shape(self.factors(statistics, chosen, (label,)))
            for label in range(context.num_classes)
        }

    def unlearn(self, net: nn.Module, context: Context) -> nn.Module:
        """Multiply the weights. Without data, without a forward pass."""
        shaped = self._single.get(context.forget)
        if shaped is None:
            factors = self.factors(self._statistics, self._chosen, context.forget)
            shaped = self._attenuation.shape(factors)
        if self.inverse is None:
            self._attenuation.apply(shaped)
        else:
            self._attenuation.inverse(shaped).save(Path(self.inverse))
        return net

    def factors(
        self, statistics: ClassStatistics, sites: Sequence[Site], forget: tuple[int, ...]
    ) -> list[Tensor]:
        """Return the factor 1 − strength (C,) of every site."""
        return [
            1 - rank_strengths(score_C, rate=self.rate, floor=self.floor)
            for score_C in self._scores(statistics, sites, forget)
        ]

    def _scores(
        self, statistics: ClassStatistics, sites: Sequence[Site], forget: tuple[int, ...]
    ) -> list[Tensor]:
        return [
            self.score(statistics.sums[site.name], statistics.counts_K, forget) for site in sites
        ]

    def channels(self, forget: tuple[int, ...]) -> dict[str, ChannelEdit]:
        """Return scores and strengths of every site."""
        statistics, chosen = self._statistics, self._chosen
        return record_edits(
            [site.name for site in chosen],
            statistics.counts_K,
            forget,
            scores=lambda classes: self._scores(statistics, chosen, classes),
            strengths=lambda classes: [1 - f for f in self.factors(statistics, chosen, classes)],
        )
