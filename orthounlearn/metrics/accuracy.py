"""Utility: accuracies, losses, calibration, and where images go."""

import numpy as np
from numpy.typing import NDArray

from orthounlearn.metrics.scores import Floats, Ints, log_softmax


def micro_accuracy(logits_NK: NDArray[np.floating], labels_N: Ints) -> float:
    """Return the share of images whose argmax is the label; nan without images."""
    if not len(labels_N):
        return float("nan")
    return float(np.mean(logits_NK.argmax(1) == labels_N))


def prediction_histogram(logits_NK: NDArray[np.floating]) -> Floats:
    """Return the share of images that go to each class (K,); nan without images."""
    if not len(logits_NK):
        return np.full(logits_NK.shape[1], np.nan)
    return np.bincount(logits_NK.argmax(1), minlength=logits_NK.shape[1]) / len(logits_NK)


def calibration(
    logits_NK: NDArray[np.floating], labels_N: Ints, *, bins: int = 15
) -> tuple[Floats, Ints]:
    """Return what the expected calibration error is made of: accuracy − confidence, and its bin.

    Confidence is the top probability, accuracy 1 or 0, (N,) each; the bins are equal. The error is
    Σ_b (n_b / N) |mean accuracy_b − mean confidence_b|.

    Source: Guo et al., arXiv 1706.04599, equation 3.
    """
    top = np.exp(log_softmax(logits_NK).max(1))
    gaps_N: Floats = (logits_NK.argmax(1) == labels_N) - top
    return gaps_N, np.minimum((top * bins).astype(np.int64), bins - 1)
