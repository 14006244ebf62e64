"""How fast a class comes back when the network is trained on a few fresh images of it.

A network that has only hidden the class learns it again in fewer steps than one that never saw it.
The target is the retrained model's own curve under the same protocol.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from orthounlearn.metrics.scores import Floats, Ints

_SHARE = 0.95  # τ: of the original's forget accuracy that counts as relearned
_LOSS = 0.05  # of retained accuracy that relearning may cost
_DAMAGE = 0.10  # below the original's retained accuracy: what has less cannot stand in for it


@dataclass(frozen=True)
class Curve:
    """Accuracies on the way of relearning.

    Attributes:
        steps_S: Optimiser steps taken, from 0, ascending.
        right_SN: Which test images of the forgotten classes got their class, 0 or 1; nan once the
            training has diverged.
        retain_S: Accuracy on test images of the other classes, in [0, 1], likewise.
    """

    steps_S: Ints
    right_SN: Floats
    retain_S: Floats

    @property
    def forget_S(self) -> Floats:  # noqa: N802 - S is its dimension
        """Accuracy on the test images of the forgotten classes, in [0, 1]."""
        return np.asarray(self.right_SN.mean(1))


@dataclass(frozen=True)
class Accuracies:
    """What the original scores on the same test images, both in [0, 1].

    Attributes:
        forget: On the forgotten classes.
        retain: On the other classes.
    """

    forget: float
    retain: float


def relearn_steps(
    curve: Curve, original: Accuracies, *, share: float = _SHARE, loss: float = _LOSS
) -> int | None:
    """Return the first step at which the class is back and the other classes are still there.

    That is where forget accuracy ≥ share · the original's *and* retained accuracy is kept. Without
    the second condition any network gets there in a few steps, by giving every image to the
    forgotten class. Retained accuracy is kept where it is at least

        max(min(start, original) − loss, original − 0.1).

    The lower of both, since a network without the class loses no image to it, and gives up that
    advantage as the class returns. Near the original's, since a damaged network has nothing to
    lose, and would pass by giving most images to the class.

    Args:
        curve: Of one network.
        original: Accuracies of the network that knew the class.
        share: τ in (0, 1].
        loss: Largest loss of retained accuracy, in [0, 1].

    Returns:
        A step of the curve; None if there is none (censored: the class may come back later).
    """
    back_S = (curve.forget_S >= share * original.forget) & _keeps(curve, original, loss)
    return int(curve.steps_S[back_S.argmax()]) if back_S.any() else None


def relearn_area(curve: Curve, original: Accuracies, *, loss: float = _LOSS) -> Floats:
    """Return the share of the curve at which each forgotten image got its class, in [0, 1], (N,).

    Their mean is the area, the mean forget accuracy over the curve; finite for every network. A
    point where retained accuracy is not kept, as in `relearn_steps`, counts as 0.
    """
    kept_S = _keeps(curve, original, loss)
    return np.asarray(np.where(kept_S[:, None], curve.right_SN, 0.0).mean(0))


def ain(ours: int | None, retrained: int | None) -> float | None:
    """Return steps_u / steps_r: 1 as after retraining, ≪ 1 what was forgotten is still there.

    Source: the anamnesis index of Chundawat et al., "Zero-Shot Machine Unlearning",
    arXiv 2201.05629, with steps for epochs and the joint condition of `relearn_steps`.

    Args:
        ours: Steps of the unlearned network, from `relearn_steps`.
        retrained: Those of the retrained one.

    Returns:
        None where either is censored, or the retrained network needed no step: such a ratio would
        be a statement about the number of steps tried. `area_ratio` compares these.
    """
    if ours is None or not retrained:
        return None
    return ours / retrained


def area_ratio(ours: float, retrained: float) -> float:
    """Return area_u / area_r: 1 as after retraining, ≫ 1 the class is still there.

    nan where the retrained network's area is 0.
    """
    return ours / retrained if retrained else float("nan")


def _keeps(curve: Curve, original: Accuracies, loss: float) -> NDArray[np.bool_]:
    """Return where retained accuracy is high enough (S,); nan is not."""
    lowest = max(min(curve.retain_S[0], original.retain) - loss, original.retain - _DAMAGE)
    # Accuracies are counts over a number: a loss of exactly `loss` must not fail by rounding.
    return np.asarray(curve.retain_S >= lowest - 1e-9)
