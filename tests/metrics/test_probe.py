"""Probes on features whose content is known."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from orthounlearn.metrics.probe import (
    Features,
    Probed,
    linear_probe,
    most_shots,
    probe_index,
    prototype_recall,
)


def features(
    count: int, *, classes: tuple[int, ...] = (0, 1, 2), shift: float = 4.0, seed: int = 0
) -> Features:
    """Unit Gaussians around `shift` times a unit vector of their class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.array(classes), count)
    values = rng.normal(size=(len(labels), 8))
    values[np.arange(len(labels)), labels] += shift
    return Features(values.astype(np.float16), labels)


def probe(shift: float, *, shots: int | None = 50, seed: int = 0) -> Probed:
    fit, forgotten, retained = (
        features(200, shift=shift),
        features(300, classes=(0,), shift=shift, seed=1),
        features(300, classes=(1, 2), shift=shift, seed=2),
    )
    return linear_probe(fit, forgotten, retained, shots=shots, seed=seed)


def test_separated_classes_are_found_and_mixed_ones_are_chance():
    assert (probe(8).recall, probe(8).auc) == (1, 1)
    found = probe(0)
    assert found.auc == pytest.approx(0.5, abs=3 * np.sqrt(901 / (12 * 300 * 600)))
    assert found.recall == pytest.approx(1 / 3, abs=0.15)


def test_more_separation_is_more_recall():
    recalls = [probe(shift).recall for shift in (0.5, 1.5, 3)]
    assert recalls == sorted(recalls)
    assert recalls[2] - recalls[0] > 0.3


def test_recall_is_that_of_a_logistic_regression_on_all_images():
    """With as many shots as there are images nothing is left to draw."""
    fit, forgotten = features(30, shift=1.5), features(400, classes=(0,), shift=1.5, seed=1)
    retained = features(400, classes=(1, 2), shift=1.5, seed=2)
    values = fit.values_NC.astype(float)
    mean, std = values.mean(0), values.std(0)
    plain = LogisticRegression(C=0.1, max_iter=1000).fit((values - mean) / std, fit.labels_N)
    expected = np.mean(plain.predict((forgotten.values_NC - mean) / std) == 0)
    found = linear_probe(fit, forgotten, retained, shots=30)
    assert found.recall == pytest.approx(expected, abs=0.005)
    assert linear_probe(fit, forgotten, shots=None).recall == found.recall


def test_all_images_are_used_and_a_class_with_more_of_them_has_no_more_weight():
    """The forgotten class has ten times as many; unweighted, the probe would call all images so."""
    fit, few = features(400, shift=0.0), features(40, shift=0.0, seed=3)
    kept = fit.labels_N == 0
    fit = Features(
        np.concatenate([fit.values_NC[kept], few.values_NC[few.labels_N > 0]]),
        np.concatenate([fit.labels_N[kept], few.labels_N[few.labels_N > 0]]),
    )
    forgotten = features(300, classes=(0,), shift=0.0, seed=1)
    assert linear_probe(fit, forgotten, shots=None).recall == pytest.approx(1 / 3, abs=0.15)


def test_several_forgotten_classes_count_together():
    fit = features(60, classes=(0, 1, 2, 3), shift=6)
    forgotten = features(100, classes=(0, 3), shift=6, seed=1)
    retained = features(100, classes=(1, 2), shift=6, seed=2)
    found = linear_probe(fit, forgotten, retained, shots=50)
    assert min(found.recall, found.auc) > 0.98


def test_scale_of_the_features_plays_no_part():
    fit, forgotten = features(60, shift=2), features(100, classes=(0,), shift=2, seed=1)
    retained = features(100, classes=(1, 2), shift=2, seed=2)
    scaled = [
        Features(f.values_NC * np.float16(4) + 1, f.labels_N) for f in (fit, forgotten, retained)
    ]
    one = linear_probe(fit, forgotten, retained, shots=10)
    other = linear_probe(scaled[0], scaled[1], scaled[2], shots=10)
    assert other.recall == pytest.approx(one.recall, abs=0.01)


def test_a_channel_that_first_speaks_on_the_audited_images_is_no_error():
    """Silent on the images of the fit but for rounding, it scales beyond half precision."""
    fit, forgotten = features(200, shift=8), features(50, classes=(0,), shift=8, seed=1)
    silent = np.full((len(fit.labels_N), 1), 0, np.float16)
    silent[0] = 1e-7
    loud = np.full((50, 1), 40, np.float16)
    found = linear_probe(
        Features(np.hstack([fit.values_NC, silent]), fit.labels_N),
        Features(np.hstack([forgotten.values_NC, loud]), forgotten.labels_N),
        shots=None,
    )
    assert found.found_N.shape == (50,)


def test_too_few_images_are_undefined():
    fit = Features(np.zeros((12, 2)), np.repeat([0, 1], [9, 3]))
    part = Features(np.zeros((2, 2)), np.zeros(2, int))
    found = linear_probe(fit, part, part, shots=4)
    assert np.isnan([found.recall, found.auc]).all()
    assert np.isnan(prototype_recall(fit, part, shots=4)).all()


def test_a_forgotten_class_without_images_to_fit_on_is_undefined():
    """Nothing is fitted that could name it, which is not the same as that nothing is found."""
    fit = Features(np.repeat(np.eye(2), 20, axis=0), np.repeat([1, 2], 20))
    asked = Features(np.eye(2), np.array([0, 1]))
    for shots in (10, None):
        assert np.isnan(linear_probe(fit, asked, asked, shots=shots).recall)
    assert np.isnan(prototype_recall(fit, asked, shots=10)).all()


def test_prototypes_by_hand():
    fit = Features(np.array([[1.0, 0], [0, 1], [2, 0], [0, 3]]), np.array([0, 1, 0, 1]))
    asked = Features(np.array([[5.0, 1], [1, 5], [1, 0.5], [3, 0]]), np.zeros(4, int))
    assert prototype_recall(fit, asked, shots=2).tolist() == [1, 0, 1, 1]


def test_index_is_the_share_that_is_left():
    assert probe_index(0.9, original=0.9, retrained=0.5) == 1
    assert probe_index(0.5, original=0.9, retrained=0.5) == 0
    assert probe_index(0.3, original=0.9, retrained=0.5) == pytest.approx(-0.5)
    assert np.isnan(probe_index(0.7, original=0.7, retrained=0.69))
    assert np.isnan(probe_index(0.7, original=float("nan"), retrained=0.2))


def test_without_retained_images_there_is_no_area():
    fit, forgotten = features(60, shift=2), features(100, classes=(0,), shift=2, seed=1)
    alone = linear_probe(fit, forgotten, shots=50)
    both = linear_probe(fit, forgotten, features(100, classes=(1, 2), seed=2), shots=50)
    assert alone.recall == both.recall
    assert np.isnan(alone.auc)


def test_the_most_shots_that_every_class_has():
    assert most_shots(features(50)) == 50
    assert most_shots(features(49)) == 10
    assert most_shots(features(3)) == 10
