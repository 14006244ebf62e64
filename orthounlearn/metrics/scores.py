"""Scores of membership, one per image. All are "higher = more like a member", in float64."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax as _log_softmax
from scipy.special import logsumexp

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def log_softmax(logits_NK: NDArray[np.floating]) -> Floats:
    """Return log p (N, K) in float64."""
    return np.asarray(_log_softmax(logits_NK.astype(np.float64), axis=1))


def log_rest(logits_NK: NDArray[np.floating]) -> Floats:
    """Return log(1 − p_j) (N, K), from logits: exact where p_j is next to 0 or 1."""
    logits = logits_NK.astype(np.float64)
    total = logsumexp(logits, axis=1)
    out = np.empty_like(logits)
    for j in range(logits.shape[1]):
        out[:, j] = logsumexp(np.delete(logits, j, axis=1), axis=1) - total
    return out


def correctness(logits_NK: NDArray[np.floating], labels_N: Ints) -> Floats:
    """Return 1 where the argmax is the label, else 0."""
    right: Floats = (logits_NK.argmax(1) == labels_N).astype(np.float64)
    return right


def confidence(logits_NK: NDArray[np.floating], labels_N: Ints) -> Floats:
    """Return log p_y; minus the cross-entropy loss."""
    return log_softmax(logits_NK)[np.arange(len(labels_N)), labels_N]


def margin(logits_NK: NDArray[np.floating], labels_N: Ints) -> Floats:
    """Return φ = z_y − logsumexp_{j≠y} z_j = log(p_y / (1 − p_y)) (LiRA, arXiv 2112.03570).

    >>> margin(np.log([[0.75, 0.25]]), np.array([0])).round(4).tolist()  # log 3
    [1.0986]
    """
    logits = logits_NK.astype(np.float64)
    rows = np.arange(len(labels_N))
    others = logits.copy()
    others[rows, labels_N] = -np.inf
    return np.asarray(logits[rows, labels_N] - logsumexp(others, axis=1))


def entropy(logits_NK: NDArray[np.floating], labels_N: Ints | None = None) -> Floats:  # noqa: ARG001
    """Return Σ_j p_j log p_j = −H, in [−log K, 0]. Needs no labels."""
    log_p = log_softmax(logits_NK)
    return np.asarray((np.exp(log_p) * log_p).sum(1))


def modified_entropy(logits_NK: NDArray[np.floating], labels_N: Ints) -> Floats:
    """Return −Mentr = (1 − p_y) log p_y + Σ_{j≠y} p_j log(1 − p_j), at most 0.

    Source: Song and Mittal, arXiv 2003.10595, equation 8. Logs come from the logits, so it does
    not saturate where p_y is 0 in floating point.
    """
    log_p, log_1p = log_softmax(logits_NK), log_rest(logits_NK)
    rows = np.arange(len(labels_N))
    terms = np.exp(log_p) * log_1p
    terms[rows, labels_N] = np.exp(log_1p[rows, labels_N]) * log_p[rows, labels_N]
    return np.asarray(terms.sum(1))


def rest(logits_NK: NDArray[np.floating], forget: Sequence[int]) -> Floats:
    """Return the margin of the strongest class when the forgotten ones are left out.

    Survives a mask on the forgotten logits, since it does not look at them. With two classes of
    which one is forgotten nothing is left to compare, and all scores are 0.
    """
    kept = np.delete(logits_NK.astype(np.float64), list(forget), axis=1)
    if kept.shape[1] < 2:
        return np.zeros(len(kept))
    return margin(kept, kept.argmax(1))
