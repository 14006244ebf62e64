"""Utility and distances against torchmetrics, scipy and hand-computed values."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon
from torch.nn import functional as F
from torchmetrics.functional.classification import multiclass_calibration_error

from orthounlearn.metrics import accuracy, divergence
from orthounlearn.metrics.sample import Calibration, Part, Routing

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(200, 5)) * 3
LABELS = RNG.integers(0, 5, 200)
NONE, NO_LABELS = np.empty((0, 5)), np.empty(0, np.int64)


def test_micro_accuracy_of_a_single_class_is_its_recall():
    """Macro averages over absent classes are the field's favourite mistake."""
    labels = np.full(200, 2)
    assert accuracy.micro_accuracy(LOGITS, labels) == (LOGITS.argmax(1) == 2).mean()


def test_histogram_counts_predictions():
    found = accuracy.prediction_histogram(LOGITS)
    assert found.sum() == pytest.approx(1)
    assert found[3] == (LOGITS.argmax(1) == 3).mean()


def test_calibration_error_is_torchmetrics():
    expected = multiclass_calibration_error(
        torch.from_numpy(LOGITS).softmax(1), torch.from_numpy(LABELS), num_classes=5, n_bins=15
    ).item()
    gaps_N, bins_N = accuracy.calibration(LOGITS, LABELS)
    found = Calibration(Part.whole("retain_test", gaps_N), bins_N).values[""]
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    "figure",
    [
        accuracy.micro_accuracy,
        lambda z, y: Calibration(
            Part.whole("retain_test", accuracy.calibration(z, y)[0]), accuracy.calibration(z, y)[1]
        ).values[""],
    ],
)
def test_empty_splits_are_undefined(figure):
    assert np.isnan(figure(NONE, NO_LABELS))


def test_kl_by_hand():
    p = np.log([[0.5, 0.5], [0.9, 0.1]])
    q = np.log([[0.25, 0.75], [0.5, 0.5]])
    assert divergence.kl(p, q).mean() == pytest.approx(0.25595, abs=1e-5)
    assert divergence.kl(q, p).mean() != pytest.approx(0.25595, abs=1e-2)
    assert divergence.kl(p, p) == pytest.approx(0)


def test_kl_is_summed_over_classes():
    other = RNG.normal(size=LOGITS.shape)
    expected = F.kl_div(
        torch.from_numpy(other).log_softmax(1),
        torch.from_numpy(LOGITS).log_softmax(1),
        log_target=True,
        reduction="none",
    ).sum(1)
    np.testing.assert_allclose(divergence.kl(LOGITS, other), expected)


def test_js_is_scipys_squared_distance_in_bits():
    other = RNG.normal(size=LOGITS.shape)
    p, q = (np.exp(z) / np.exp(z).sum(1, keepdims=True) for z in (LOGITS, other))
    expected = jensenshannon(p, q, axis=1, base=2) ** 2
    np.testing.assert_allclose(divergence.js(LOGITS, other), expected)
    np.testing.assert_allclose(divergence.js(other, LOGITS), divergence.js(LOGITS, other))


def test_routing_at_its_ends_and_on_draws():
    """Draws count images: a draw of the first alone sends everything to its class."""

    def part(*routes: float) -> Part:
        return Part.whole("forget_test", np.array(routes))

    assert Routing(part(0, 0), (part(1, 1),), classes=2).values == {"": 1.0}
    assert Routing(part(0, 1), (part(1, 0),), classes=3).values == {"": 0.0}
    halves = Routing(part(0, 0), (part(1, 1), part(0, 0)), classes=2)
    assert halves.values == {"": 0.5}
    assert np.isnan(Routing(part(), (part(),), classes=2).values[""])
    drawn = Routing(part(0, 1), (part(0, 0),), classes=2).resampled(
        {"forget_test": np.array([[2.0, 0.0], [0.0, 2.0]])}
    )
    np.testing.assert_allclose(drawn[""], [0, 1])
