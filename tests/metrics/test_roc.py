"""ROC figures against scikit-learn, scipy and known answers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import mannwhitneyu
from sklearn.metrics import roc_auc_score, roc_curve

from orthounlearn.metrics import roc

samples = arrays("float64", st.integers(1, 30), elements=st.integers(-5, 5).map(float))


@given(samples, samples)
def test_auc_is_the_mann_whitney_statistic(members: np.ndarray, others: np.ndarray):
    u = mannwhitneyu(members, others).statistic
    assert roc.auc(members, others) == pytest.approx(u / (len(members) * len(others)))


@given(samples, samples)
def test_turning_the_score_around_mirrors_auc_and_keeps_advantage(m: np.ndarray, o: np.ndarray):
    area = roc.auc(m, o)
    assert roc.auc(-m, -o) == pytest.approx(1 - area)
    assert roc.advantage(area) == pytest.approx(roc.advantage(1 - area))


def test_auc_at_the_ends():
    high, low = np.array([2.0, 3.0]), np.array([0.0, 1.0])
    assert (roc.auc(high, low), roc.auc(low, high), roc.auc(high, high)) == (1, 0, 0.5)
    assert np.isnan(roc.auc(high, np.empty(0)))


@given(samples, samples)
def test_figures_are_those_of_scikit_learn(members: np.ndarray, others: np.ndarray):
    truth = np.repeat([1, 0], [len(members), len(others)])
    scores = np.concatenate([members, others])
    assert roc.auc(members, others) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)
    # Every threshold: with `drop_intermediate` the one that matters may be left out.
    fpr, tpr, _ = roc_curve(truth, scores, drop_intermediate=False)
    for alpha in (0, 0.1, 0.5, 1):
        expected = tpr[fpr <= alpha].max()
        assert roc.tpr_at_fpr(members, others, alpha) == pytest.approx(expected, abs=1e-12)


@given(samples, samples, st.sampled_from([1, -1]))
def test_the_best_threshold_is_the_best_of_all(m: np.ndarray, o: np.ndarray, sign: int):
    """Balanced accuracy by brute force over all cuts, in both directions."""
    members, others = sign * m, sign * o
    threshold, direction = roc._best_threshold(members, others)
    cuts = [-np.inf, np.inf, *np.unique(np.concatenate([members, others]))]

    def gain(cut: float, way: int) -> float:
        return float(np.mean(way * members >= way * cut) - np.mean(way * others >= way * cut))

    best = max(gain(cut, way) for cut in cuts for way in (1, -1))
    assert gain(threshold, direction) == pytest.approx(best, abs=1e-12)


def test_auc_of_shifted_normals():
    rng = np.random.default_rng(0)
    members, others = rng.normal(1, 1, 4000), rng.normal(0, 1, 4000)
    # P(X > Y) = Φ(1/√2) = 0.7602
    assert roc.auc(members, others) == pytest.approx(0.7602, abs=0.02)


def test_huge_scores_are_not_squashed():
    """Log-likelihood ratios near 50 all become 1.0 in a float32 sigmoid."""
    rng = np.random.default_rng(0)
    members, others = rng.normal(54, 8, 500), rng.normal(50, 8, 500)
    truth = np.repeat([1, 0], 500)
    expected = roc_auc_score(truth, np.concatenate([members, others]))
    assert roc.auc(members, others) == expected


def test_tpr_counts_every_threshold():
    others = np.arange(100.0)
    assert roc.tpr_at_fpr(np.full(7, 99.5), others, 0.0) == 1
    assert roc.tpr_at_fpr(np.full(7, 98.5), others, 0.0) == 0
    assert roc.tpr_at_fpr(np.full(7, 98.5), others, 0.01) == 1


@given(samples, samples)
def test_tpr_rises_with_fpr(members: np.ndarray, others: np.ndarray):
    values = [roc.tpr_at_fpr(members, others, alpha) for alpha in (0, 0.01, 0.1, 0.5, 1)]
    assert values == sorted(values)
    assert values[-1] == 1


@given(samples, samples)
def test_a_curve_is_the_attack_at_each_rate_that_the_others_resolve(
    members: np.ndarray, others: np.ndarray
):
    found = roc.curve(members, others)
    for rate, value in zip(roc.CURVE_FPR, found, strict=True):
        if rate * len(others) < 1:
            assert np.isnan(value)
        else:
            assert value == roc.tpr_at_fpr(members, others, rate)


def test_a_curve_without_images_on_a_side_is_undefined():
    some, none = np.arange(200.0), np.empty(0)
    for sides in ((some, none), (none, some), (none, none)):
        assert np.isnan(roc.curve(*sides)).all()
    assert roc.CURVE_FPR[0] == 0.001
    assert roc.CURVE_FPR[-1] == 1


def test_false_positive_rates_that_cannot_be_resolved_are_undefined():
    members, others = np.random.default_rng(0).normal(size=(2, 999))
    assert np.isnan(roc.resolved_tpr(members, others, 0.01))  # 9.99 images
    assert not np.isnan(roc.resolved_tpr(members, np.append(others, 0.0), 0.01))


def balanced_accuracy(members: np.ndarray, others: np.ndarray, *, seed: int = 0) -> float:
    hits = roc.balanced_hits(members, others, seed=seed)
    return float(np.mean([right.mean() if len(right) else np.nan for _, right in hits]))


def test_halves_are_the_whole_and_disjoint():
    members, others = np.arange(7.0), np.arange(4.0)
    rows = [chosen.tolist() for chosen, _ in roc.balanced_hits(members, others)]
    assert sorted(rows[0] + rows[1]) == list(range(7))
    assert sorted(rows[2] + rows[3]) == list(range(4))


@given(samples, samples, st.integers(0, 99))
def test_weights_are_images_that_are_there_several_times(m: np.ndarray, o: np.ndarray, seed: int):
    rng = np.random.default_rng(seed)
    times = rng.integers(0, 3, len(m)), rng.integers(0, 3, len(o))
    times[0][0] = times[1][0] = 1  # none empty
    draw = m, o, *(t[None, :].astype(float) for t in times)
    rates = roc.weighted_rates(*draw)
    repeated = np.repeat(m, times[0]), np.repeat(o, times[1])
    assert roc.weighted_auc(*draw)[0] == pytest.approx(roc.auc(*repeated))
    for alpha in (0, 0.3, 1):
        reached = np.where(rates[1] <= alpha, rates[0], 0).max()
        assert reached == pytest.approx(roc.tpr_at_fpr(*repeated, alpha))


def test_balanced_accuracy_of_separated_and_equal_sides():
    rng = np.random.default_rng(0)
    low, high = rng.normal(0, 1, 200), rng.normal(20, 1, 200)
    assert balanced_accuracy(high, low) > 0.98
    assert balanced_accuracy(low, high) > 0.98  # the attacker turns the score around
    same = [balanced_accuracy(*rng.normal(size=(2, 100)), seed=s) for s in range(60)]
    # A threshold chosen on the judged images would be optimistic by several points.
    assert np.mean(same) == pytest.approx(0.5, abs=0.02)
    assert np.isnan(balanced_accuracy(low[:1], high))


def test_a_draw_without_a_side_has_no_area():
    drawn = np.array([[1.0, 1.0], [0.0, 0.0]])
    areas = roc.weighted_auc(np.array([1.0, 2.0]), np.array([0.0, 0.5]), drawn, np.ones((2, 2)))
    assert areas[0] == 1
    assert np.isnan(areas[1])
