"""One figure of a network beside its reference: is the difference more than chance?"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite
from typing import Literal

Figures = Mapping[str, float]
Outcome = Literal["lower", "alike", "higher"]

MEMBERSHIP = "mia/pop_margin/auc"
CLASS = "acc/retain_test_per_class/"
DEPTH, EVERY = "probe/depth", "probe/kall"
RELEARNED = "relearn/*/area"
"""Keys of figures that are judged, or their beginning or pattern."""

SHOTS_OF_BLOCKS = "depth/shots"
"""Images per class that the probes of `DEPTH` were fitted on."""


@dataclass(frozen=True)
class Check:
    """One figure beside its reference.

    Attributes:
        key: Of the figure, without phase.
        value: Of the network, in the figure's unit (shares in [0, 1]).
        reference: Mean of the retrained networks, or what stands for it.
        low: Lower end of the 95 % interval of value − reference over other images.
        high: Upper end.
        tolerance: What another training may differ by.
    """

    key: str
    value: float
    reference: float
    low: float
    high: float
    tolerance: float

    @property
    def outcome(self) -> Outcome:
        """Whether the interval of the difference lies wholly beyond the tolerance."""
        if self.low > self.tolerance:
            return "higher"
        return "lower" if self.high < -self.tolerance else "alike"

    @property
    def interval(self) -> float:
        """Half of the interval's width."""
        return (self.high - self.low) / 2

    def widened(self, factor: float) -> "Check":
        """Return the check with an interval that reaches as many times as far."""
        gap = self.value - self.reference
        low, high = (gap + factor * (end - gap) for end in (self.low, self.high))
        return replace(self, low=low, high=high)


def has(figures: Figures, key: str) -> bool:
    """Tell whether a figure is there and defined."""
    return isfinite(figures.get(key, float("nan")))
