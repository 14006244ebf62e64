"""How alike two networks represent the same images, layer by layer."""

from collections.abc import Mapping
from math import nan, sqrt

import numpy as np
from numpy.typing import NDArray

from orthounlearn.metrics.scores import Floats

Layers = Mapping[str, NDArray[np.floating]]
"""Layer -> features (N, C) of N images."""

IMAGES = 1000
"""Of each set, at most; the estimator has no bias, so that more would only steady it."""

_FEWEST = 4  # images, below which the estimator is not defined


def linear_cka(one_NC: NDArray[np.floating], other_ND: NDArray[np.floating]) -> float:
    """Return linear centred kernel alignment; nan for fewer than 4 images or constant features.

    CKA = HSIC(X, Y) / √(HSIC(X, X) · HSIC(Y, Y)), at most 1: 1 for features that differ by a
    rotation and a scale, which a following layer can take back; about 0, and below it by chance,
    for features that have nothing in common. HSIC is the unbiased estimator: the usual one calls
    unrelated features alike as soon as there are many channels for the number of images.

    Sources: Kornblith et al., arXiv 1905.00414 (CKA); Song et al., JMLR 13 (2012), equation 4
    (HSIC); here without the N × N kernels, in O(N·C·D).

    Args:
        one_NC: Features (N, C).
        other_ND: Features (N, D) of the same images in the same order; D may differ from C.

    >>> x = np.array([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0], [0.0, 3.0]])
    >>> round(linear_cka(x, 3 * x @ np.array([[0.0, 1.0], [-1.0, 0.0]])), 6)
    1.0
    """
    return _alignment(_centred(one_NC), _centred(other_ND))


def layer_similarity(one: Layers, other: Layers) -> dict[str, float]:
    """Return layer -> CKA, over the first `IMAGES` images that spread evenly over all.

    Args:
        one: Of one network.
        other: Of another, on the same images.
    """
    return {
        layer: linear_cka(_spread(features_NC), _spread(other[layer]))
        for layer, features_NC in one.items()
        if layer in other
    }


def _spread(features_NC: NDArray[np.floating]) -> NDArray[np.floating]:
    step = max(1, -(-len(features_NC) // IMAGES))
    return features_NC[::step]


def _alignment(one: Floats, other: Floats) -> float:
    if len(one) < _FEWEST:
        return nan
    own = [_hsic(features, features) for features in (one, other)]
    return min(_hsic(one, other) / sqrt(own[0] * own[1]), 1.0) if min(own) > 0 else nan


def _hsic(one_NC: Floats, other_ND: Floats) -> float:
    """Return the unbiased HSIC of centred features.

    With K = XXᵀ and L = YYᵀ, both without their diagonals k and l: centred columns make the row
    sums of K equal to −k, so that no kernel has to be written out.
    """
    count = len(one_NC)
    k_N, l_N = (np.einsum("nc,nc->n", x, x) for x in (one_NC, other_ND))
    trace = np.square(one_NC.T @ other_ND).sum() - k_N @ l_N
    sums = k_N.sum() * l_N.sum() / ((count - 1) * (count - 2))
    return float((trace + sums - 2 / (count - 2) * (k_N @ l_N)) / (count * (count - 3)))


def _centred(features_NC: NDArray[np.floating]) -> Floats:
    """Return centred columns of largest entry 1: fourth powers of a blown-up network overflow."""
    wide_NC = features_NC.astype(np.float64)
    wide_NC -= wide_NC.mean(0)
    largest = np.abs(wide_NC).max(initial=0)
    return wide_NC / largest if largest > 0 else wide_NC
