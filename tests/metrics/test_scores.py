"""Membership scores: known answers, invariances, extremes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from orthounlearn.metrics import scores

logits = arrays("float64", (6, 4), elements=st.floats(-30, 30))
LABELS = np.array([0, 1, 2, 3, 0, 1])


def of(*probabilities: float) -> np.ndarray:
    return np.log(np.array([probabilities]))


def test_modified_entropy_by_hand():
    found = scores.modified_entropy(of(0.7, 0.2, 0.1), np.array([0]))
    assert -found == pytest.approx(0.3 * 0.35667 + 0.2 * 0.22314 + 0.1 * 0.10536, abs=1e-4)


def test_modified_entropy_of_a_sure_and_right_network_is_zero():
    sure = np.array([[1000.0, 0, 0]])
    assert scores.modified_entropy(sure, np.array([0])) == pytest.approx(0)
    wrong = scores.modified_entropy(sure, np.array([1]))
    assert np.isfinite(wrong).all()
    assert wrong < -900  # −p_0 log(1 − p_0) does not saturate


def test_margin_is_the_log_odds():
    found = scores.margin(of(0.7, 0.2, 0.1), np.array([1]))
    assert found == pytest.approx(np.log(0.2 / 0.8))
    assert np.isfinite(scores.margin(np.array([[1e4, -1e4]]), np.array([1]))).all()


def test_entropy_against_scipy():
    from scipy.stats import entropy

    p = np.random.default_rng(0).dirichlet(np.ones(5), 20)
    np.testing.assert_allclose(-scores.entropy(np.log(p)), entropy(p, axis=1))


@given(logits)
def test_log_rest_is_log_of_one_minus_p(z: np.ndarray):
    p = np.exp(scores.log_softmax(z))
    usable = p < 0.99  # where 1 − p loses no digits
    np.testing.assert_allclose(scores.log_rest(z)[usable], np.log1p(-p[usable]), atol=1e-9)


@given(logits, st.floats(-50, 50))
def test_scores_ignore_a_constant_on_all_logits(z: np.ndarray, constant: float):
    for score in (scores.confidence, scores.margin, scores.entropy, scores.modified_entropy):
        np.testing.assert_allclose(score(z + constant, LABELS), score(z, LABELS), atol=1e-7)


@given(logits)
def test_more_logit_for_the_label_never_looks_less_like_a_member(z: np.ndarray):
    surer = z.copy()
    surer[np.arange(6), LABELS] += 1
    for score in (scores.confidence, scores.margin):
        assert (score(surer, LABELS) >= score(z, LABELS)).all()


def test_rest_does_not_look_at_the_forgotten_logit():
    z = np.random.default_rng(0).normal(size=(8, 5))
    masked = z.copy()
    masked[:, 2] = -1e4
    np.testing.assert_array_equal(scores.rest(z, [2]), scores.rest(masked, [2]))
    assert not np.array_equal(scores.rest(z, [1]), scores.rest(z, [2]))
    assert scores.rest(z[:, :2], [0]).tolist() == [0] * 8


def test_a_batch_is_its_rows():
    z = np.random.default_rng(0).normal(size=(6, 4))
    for score in (scores.confidence, scores.margin, scores.entropy, scores.modified_entropy):
        rows = [score(z[i : i + 1], LABELS[i : i + 1])[0] for i in range(6)]
        np.testing.assert_allclose(score(z, LABELS), rows)
