"""Utility: accuracies, losses, calibration, and where images go."""

import numpy as np
from numpy.typing import NDArray

from orthounlearn.metrics.scores import Floats, Ints, confidence, log_softmax


def micro_accuracy(logits_NK: NDArray[np.floating], labels_N: Ints) -> float:
    """Return the share of images whose argmax is the label; nan without images."""
    if not len(labels_N):
        return float("nan")
    return float(np.mean(logits_NK.argmax(1) == labels_N))


def per_class_accuracy(logits_NK: NDArray[np.floating], labels_N: Ints) -> Floats:
    """Return the accuracy of each class (K,); nan for a class without images."""
    num_classes = logits_NK.shape[1]
    right = np.bincount(labels_N[logits_NK.argmax(1) == labels_N], minlength=num_classes)
    count = np.bincount(labels_N, minlength=num_classes)
    shares: Floats = np.full(num_classes, np.nan)
    return np.divide(right, count, out=shares, where=count > 0)


def prediction_histogram(logits_NK: NDArray[np.floating]) -> Floats:
    """Return the share of images that go to each class (K,); nan without images."""
    if not len(logits_NK):
        return np.full(logits_NK.shape[1], np.nan)
    return np.bincount(logits_NK.argmax(1), minlength=logits_NK.shape[1]) / len(logits_NK)


def negative_log_likelihood(logits_NK: NDArray[np.floating], labels_N: Ints) -> float:
    """Return the mean of −log p_y in nats; nan without images."""
    if not len(labels_N):
        return float("nan")
    return float(-confidence(logits_NK, labels_N).mean())


def expected_calibration_error(
    logits_NK: NDArray[np.floating], labels_N: Ints, *, bins: int = 15
) -> float:
    """Return Σ_b (n_b / N) |accuracy_b − confidence_b| over equal bins of the top probability.

    Source: Guo et al., arXiv 1706.04599, equation 3. In [0, 1]; nan without images.
    """
    if not len(labels_N):
        return float("nan")
    top = np.exp(log_softmax(logits_NK).max(1))
    right = logits_NK.argmax(1) == labels_N
    index = np.minimum((top * bins).astype(int), bins - 1)
    gap = np.bincount(index, weights=right - top, minlength=bins)
    return float(np.abs(gap).sum() / len(labels_N))
