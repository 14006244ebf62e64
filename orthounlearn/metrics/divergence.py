"""Distances between the outputs of two networks on the same images."""

import numpy as np
from numpy.typing import NDArray
from scipy.special import rel_entr

from orthounlearn.metrics.scores import Floats, log_softmax


def kl(reference_NK: NDArray[np.floating], other_NK: NDArray[np.floating]) -> Floats:
    """Return Σ_j p_j log(p_j / q_j) of each image in nats, p of the reference's logits, (N,).

    Summed over classes; `reduction="mean"` of common losses would also divide by K.
    """
    log_p, log_q = log_softmax(reference_NK), log_softmax(other_NK)
    return np.asarray((np.exp(log_p) * (log_p - log_q)).sum(1))


def js(a_NK: NDArray[np.floating], b_NK: NDArray[np.floating]) -> Floats:
    """Return the Jensen-Shannon divergence of each image in bits, in [0, 1], (N,)."""
    return js_of(np.exp(log_softmax(a_NK)), np.exp(log_softmax(b_NK)))


def js_of(p: Floats, q: Floats) -> Floats:
    """Return the Jensen-Shannon divergence in bits of distributions (…, K), in [0, 1], (…)."""
    middle = (p + q) / 2
    nats = (rel_entr(p, middle).sum(-1) + rel_entr(q, middle).sum(-1)) / 2
    return np.asarray(nats / np.log(2))
