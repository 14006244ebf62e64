"""The neighbour-class attack: do forgotten images stand out among those of the class they go to?

A retrained network mistakes forgotten images for one class above all, its nearest. How sure it is
of that class, compared with real images of it, has a value of its own: the target.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, logsumexp

from orthounlearn.metrics.scores import Floats, Ints


def nearest_class(logits: Sequence[NDArray[np.floating]], forget: Sequence[int] | Ints) -> int:
    """Return the retained class with the largest mean probability.

    Args:
        logits: Of each retrained network on images of one forgotten class, (N, K).
        forget: All forgotten classes.
    """
    each = [np.exp(log_softmax(one.astype(np.float64), axis=1)).mean(0) for one in logits]
    means_K = np.mean(each, axis=0)
    means_K[np.asarray(forget)] = -1.0
    return int(means_K.argmax())


def neighbour_score(
    logits_NK: NDArray[np.floating], *, forget: Sequence[int] | Ints, neighbour: int
) -> Floats:
    """Return log p_nn − log Σ p_j over the other retained classes j ≠ nn.

    Forgotten classes play no part.

    Args:
        logits_NK: Of the attacked network.
        forget: The forgotten classes.
        neighbour: nn, from `nearest_class`.
    """
    wide = logits_NK.astype(np.float64)
    others = np.delete(wide, [*forget, neighbour], axis=1)
    return np.asarray(wide[:, neighbour] - logsumexp(others, axis=1))
