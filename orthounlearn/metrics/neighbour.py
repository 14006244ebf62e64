"""The neighbour-class attack: do forgotten images stand out among those of the class they go to?

A retrained network mistakes forgotten images for one class above all, its nearest. How sure it is
of that class, compared with real images of it, has a value of its own: the target.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from orthounlearn.metrics.roc import auc
from orthounlearn.metrics.scores import Floats


def nearest_class(logits_NK: NDArray[np.floating], label: int) -> int:
    """Return the class other than `label` with the largest mean probability.

    Args:
        logits_NK: Of a retrained network on images of the forgotten class.
        label: The forgotten class.
    """
    means_K = np.exp(log_softmax(logits_NK.astype(np.float64), axis=1)).mean(0)
    means_K[label] = -1.0
    return int(means_K.argmax())


def neighbour_auc(
    forgotten_NK: NDArray[np.floating],
    neighbours_MK: NDArray[np.floating],
    *,
    label: int,
    neighbour: int,
) -> float:
    """Return P(forgotten images score higher than the neighbour's own), in [0, 1].

    The score is log p_nn − log Σ_{j ≠ c, nn} p_j, for which the logit of the forgotten class c
    plays no part.

    Args:
        forgotten_NK: Logits on unseen images of the forgotten class.
        neighbours_MK: Logits on unseen images of the neighbour.
        label: The forgotten class c.
        neighbour: nn, from `nearest_class`.
    """

    def score(logits_NK: NDArray[np.floating]) -> Floats:
        wide = logits_NK.astype(np.float64)
        others = np.delete(wide, [label, neighbour], axis=1)
        return np.asarray(wide[:, neighbour] - logsumexp(others, axis=1))

    return auc(score(forgotten_NK), score(neighbours_MK))
