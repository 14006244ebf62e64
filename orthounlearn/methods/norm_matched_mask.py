"""Control of soft pruning: as much weight removed, from channels drawn at random."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from orthounlearn.masking.attenuation import Attenuation
from orthounlearn.masking.statistics import ClassStatistics
from orthounlearn.masking.tracing import Site, select_sites, trace_sites
from orthounlearn.methods.base import Context
from orthounlearn.methods.random_mask import generator_of
from orthounlearn.methods.soft_prune import SoftPrune


class NormMatchedMask(SoftPrune):
    r"""Channels in random order lose what `SoftPrune`'s lose: Σ_j strength_j·‖w_j‖ is equal.

    ‖w_j‖ is the norm of all weights of channel j that the attenuation scales: (γ_j, β_j) of the
    BatchNorm, whose norm is the root mean square of the channel's output, or row j of the kernel
    and its bias where that is scaled; over all layers of a stream. In each site the channels are
    taken in random order. Each gets the largest strength that soft pruning gives there (1 when it
    prunes hard), the last one gets what is left of the sum, so that it is met exactly.

    Source: ours. It tells the choice of the channels apart from the amount of weight removed, as
    `RandomMask` does from their number.

    Deviations: none. The options are those of `SoftPrune` and keep their values there; a search of
    its own would make it another method. The draw depends on the seed and on the request.
    """

    def prepare(self, net: nn.Module, context: Context) -> None:
        """Measure the norms and prepare soft pruning."""
        chosen = select_sites(trace_sites(net, context.example), self.sites)
        self._norms = {
            site.name: channel_norms(
                net, Attenuation(net, [site], norm_handling=self.norm_handling)
            )
            for site in chosen
        }
        self._seed = context.seed
        super().prepare(net, context)

    def factors(
        self, statistics: ClassStatistics, sites: Sequence[Site], forget: tuple[int, ...]
    ) -> list[Tensor]:
        """Return the factor (C,) of every site."""
        generator = generator_of(self._seed, forget)
        found = []
        for site, factor_C in zip(sites, super().factors(statistics, sites, forget), strict=True):
            norm_C = self._norms[site.name].to(factor_C)
            order = torch.randperm(len(norm_C), generator=generator)
            found.append(1 - matched_strengths(1 - factor_C, norm_C, order))
        return found


def channel_norms(net: nn.Module, attenuation: Attenuation) -> Tensor:
    """Return the norm (C,) of what an attenuation of one site scales in each channel."""
    scaled = [net.get_parameter(name).detach() for name in attenuation.names]
    weights_CX = torch.cat([tensor.reshape(len(tensor), -1) for tensor in scaled], 1)
    norm_C: Tensor = torch.linalg.vector_norm(weights_CX, dim=1)
    return norm_C.cpu()


def matched_strengths(strength_C: Tensor, norm_C: Tensor, order: Tensor) -> Tensor:
    """Return strengths that remove the same Σ strength·norm from the channels as they are ordered.

    >>> strength_C, norm_C = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([3.0, 2.0, 2.0])
    >>> matched_strengths(strength_C, norm_C, torch.tensor([1, 2, 0]))
    tensor([0.0000, 1.0000, 0.5000])
    """
    norms = norm_C[order]
    most = strength_C.max()
    already = norms.cumsum(0) * most - norms * most
    left = (strength_C.dot(norm_C) - already).clamp_min(0)
    matched_C = torch.zeros_like(strength_C)
    matched_C[order] = torch.where(norms > 0, left / norms, 0).clamp(max=most)
    return matched_C
