"""Control of soft pruning: as many channels, as strongly attenuated, drawn at random."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from orthounlearn.masking.statistics import ClassStatistics
from orthounlearn.masking.tracing import Site
from orthounlearn.methods.base import Context
from orthounlearn.methods.soft_prune import SoftPrune


class RandomMask(SoftPrune):
    """The factors of `SoftPrune` with the same options, shuffled among the channels of each site.

    So each site loses the same number of channels at the same strengths, and only the choice of
    the channels differs. What soft pruning gains over this is owed to its score.

    Source: the random-mask control of the federated re-implementation of arXiv 2506.19891v2,
    sijoon-sung/aircomp_OTA_unlearning@2684895.

    Deviations: none. The options are those of `SoftPrune` and keep their values there; a search of
    its own would make it another method. The draw depends on the seed and on the request.
    """

    def prepare(self, net: nn.Module, context: Context) -> None:
        """Note the seed and prepare soft pruning."""
        self._seed = context.seed
        super().prepare(net, context)

    def factors(
        self, statistics: ClassStatistics, sites: Sequence[Site], forget: tuple[int, ...]
    ) -> list[Tensor]:
        """Return the factor (C,) of every site, in random order."""
        generator = generator_of(self._seed, forget)
        return [
            factor_C[torch.randperm(len(factor_C), generator=generator)]
            for factor_C in super().factors(statistics, sites, forget)
        ]


def generator_of(seed: int, forget: tuple[int, ...]) -> torch.Generator:
    """Return a random stream for each seed and request."""
    mixed = seed
    for label in forget:
        mixed = mixed * 1_000_003 + label + 1
    return torch.Generator().manual_seed(mixed % 2**63)
