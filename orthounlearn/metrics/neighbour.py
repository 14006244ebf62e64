"""The neighbour-class attack: do forgotten images stand out among those of the class they go to?

A retrained network mistakes forgotten images for one class above all, its nearest. How sure it is
of that class, compared with real images of it, has a value of its own: the target.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from orthounlearn.metrics.scores import Floats


def nearest_class(logits: Sequence[NDArray[np.floating]], label: int) -> int:
    """Return the class other than `label` with the largest mean probability.

    Args:
        logits: Of each retrained network on images of the forgotten class, (N, K).
        label: The forgotten class.
    """
    each = [np.exp(log_softmax(one.astype(np.float64), axis=1)).mean(0) for one in logits]
    means_K = np.mean(each, axis=0)
    means_K[label] = -1.0
    return int(means_K.argmax())


def neighbour_score(logits_NK: NDArray[np.floating], *, label: int, neighbour: int) -> Floats:
    """Return log p_nn − log Σ_{j ≠ c, nn} p_j, for which the forgotten class c plays no part.

    Args:
        logits_NK: Of the attacked network.
        label: The forgotten class c.
        neighbour: nn, from `nearest_class`.
    """
    wide = logits_NK.astype(np.float64)
    others = np.delete(wide, [label, neighbour], axis=1)
    return np.asarray(wide[:, neighbour] - logsumexp(others, axis=1))
