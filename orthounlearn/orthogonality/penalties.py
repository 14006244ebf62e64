"""The orthogonal-kernel losses: λ · schedule · Σ over layers, one class per published penalty."""

from abc import abstractmethod
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from orthounlearn.errors import UsageError
from orthounlearn.orthogonality import functional
from orthounlearn.orthogonality.layers import select_convolutions


class Penalty(nn.Module):
    """A loss term made of the kernels alone.

    Args:
        weight: λ, at least 0.
        layers: Which convolutions; see `layers.select_convolutions`.
        schedule: Pairs (share of training done, factor on λ); a factor holds from its share on.
            The published schedule of Bansal et al. for 200 epochs is [[0, 1], [0.1, 1e-3],
            [0.25, 1e-4], [0.35, 1e-6], [0.6, 0]].
        every: The term counts in each `every`-th step of the optimiser, times `every`. Kernels move
            little from step to step, and Gram matrices cost more than a tenth of a step on a CPU
            (lazy regularisation, Karras et al., arXiv 1912.04958, section 3.1). 1 is the plain sum.

    Raises:
        UsageError: The weight is negative, `every` less than 1, or the schedule does not start at 0
            and rise.
    """

    def __init__(
        self,
        *,
        weight: float,
        layers: str | Sequence[str] = "spatial",
        schedule: Sequence[Sequence[float]] = ((0.0, 1.0),),
        every: int = 1,
    ) -> None:
        super().__init__()
        starts = [pair[0] for pair in schedule]
        if weight < 0:
            raise UsageError(
                f"Expected regularizer.penalty.weight of at least 0, but got {weight}."
            )
        if every < 1:
            raise UsageError(
                f"Expected regularizer.penalty.every of at least 1 step, but got {every}."
            )
        if not starts or starts[0] != 0 or starts != sorted(set(starts)):
            raise UsageError(
                "Expected regularizer.penalty.schedule to be pairs [share, factor] with shares "
                f"that start at 0 and rise, but got {[list(pair) for pair in schedule]}."
            )
        self.weight = weight
        self.layers = layers
        self.every = every
        self.schedule = [tuple(pair) for pair in schedule]
        self._chosen: WeakKeyDictionary[nn.Module, dict[str, nn.Conv2d]] = WeakKeyDictionary()

    def convolutions(self, net: nn.Module) -> dict[str, nn.Conv2d]:
        """Return the penalised convolutions by name; searched once per network."""
        if net not in self._chosen:
            self._chosen[net] = select_convolutions(net, self.layers)
        return self._chosen[net]

    def kernels(self, net: nn.Module) -> dict[str, Tensor]:
        """Return the penalised weights (O, I, k, k) by layer name."""
        return {name: conv.weight for name, conv in self.convolutions(net).items()}

    def scale(self, progress: float) -> float:
        """Return λ times the schedule's factor at a share of training in [0, 1].

        >>> SoftOrthogonality(weight=2.0, schedule=[[0, 1], [0.5, 0.1]]).scale(0.5)
        0.2
        """
        factor = [factor for start, factor in self.schedule if start <= progress][-1]
        return self.weight * factor

    def forward(self, net: nn.Module, progress: float = 0.0, step: int = 0) -> Tensor:
        """Return the weighted sum over the layers, a float32 scalar even under autocast.

        Args:
            net: The network.
            progress: Share of training done, in [0, 1].
            step: Of the optimiser, counted from 0.
        """
        scale = self.scale(progress) * self.every if step % self.every == 0 else 0.0
        first = next(iter(self.convolutions(net).values())).weight
        if scale == 0:
            return first.new_zeros(())
        # A Gram matrix in bf16 has errors of 1e-2, as large as what is penalised.
        with torch.autocast(first.device.type, enabled=False):
            return scale * self.total(list(self.convolutions(net).values()))

    def total(self, convolutions: Sequence[nn.Conv2d]) -> Tensor:
        """Return the unweighted sum over the layers."""
        return torch.stack([self.of(conv) for conv in convolutions]).sum()

    @abstractmethod
    def of(self, conv: nn.Conv2d) -> Tensor:
        """Return the unweighted penalty of one layer."""


class SoftOrthogonality(Penalty):
    """SO: Σ ‖G − I‖_F² on the smaller side."""

    def of(self, conv: nn.Conv2d) -> Tensor:
        """Return `functional.gram_error`."""
        return functional.gram_error(conv.weight)


class DoubleSoftOrthogonality(Penalty):
    """DSO: Σ ‖WᵀW − I‖_F² + ‖WWᵀ − I‖_F²."""

    def of(self, conv: nn.Conv2d) -> Tensor:
        """Return `functional.double_gram_error`."""
        return functional.double_gram_error(conv.weight)


class MutualCoherence(Penalty):
    """MC: Σ ‖G − I‖_∞."""

    def of(self, conv: nn.Conv2d) -> Tensor:
        """Return `functional.mutual_coherence`."""
        return functional.mutual_coherence(conv.weight)


class SpectralRestrictedIsometry(Penalty):
    """SRIP: Σ of the squared spectral norm of G − I, by one power step."""

    def of(self, conv: nn.Conv2d) -> Tensor:
        """Return `functional.spectral_restricted_isometry`."""
        return functional.spectral_restricted_isometry(conv.weight)


class ConvolutionOrthogonality(Penalty):
    """OCNN: Σ ‖Conv(K, K) − I_r0‖_F², the rows of the convolution's own matrix."""

    def of(self, conv: nn.Conv2d) -> Tensor:
        """Return `functional.self_convolution_error` at the layer's stride."""
        return functional.self_convolution_error(conv.weight, stride=int(conv.stride[0]))
