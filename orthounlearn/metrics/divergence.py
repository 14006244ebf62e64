"""Distances between the outputs of two networks on the same images."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr

from orthounlearn.metrics.scores import Floats, log_softmax


def kl(reference_NK: NDArray[np.floating], other_NK: NDArray[np.floating]) -> float:
    """Return mean_x Σ_j p_j log(p_j / q_j) in nats, p of the reference's logits, q of the other's.

    Summed over classes and averaged over images; `reduction="mean"` of common losses would also
    divide by K. nan without images.
    """
    if not len(reference_NK):
        return float("nan")
    log_p, log_q = log_softmax(reference_NK), log_softmax(other_NK)
    return float((np.exp(log_p) * (log_p - log_q)).sum(1).mean())


def js(a_NK: NDArray[np.floating], b_NK: NDArray[np.floating]) -> float:
    """Return the mean Jensen-Shannon divergence in bits, in [0, 1]; nan without images."""
    if not len(a_NK):
        return float("nan")
    p, q = np.exp(log_softmax(a_NK)), np.exp(log_softmax(b_NK))
    return float(_js(p, q).mean())


def routing_js(histogram_K: Floats, other_K: Floats) -> float:
    """Return the Jensen-Shannon divergence in bits of two prediction histograms, in [0, 1]."""
    return float(_js(histogram_K, other_K))


def _js(p: Floats, q: Floats) -> Floats:
    middle = (p + q) / 2
    nats = (rel_entr(p, middle).sum(-1) + rel_entr(q, middle).sum(-1)) / 2
    return np.asarray(nats / np.log(2))
