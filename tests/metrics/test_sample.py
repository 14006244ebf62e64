"""Figures image by image: the same values as the plain ones, and intervals that hold them."""

from zlib import crc32

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from orthounlearn.metrics import roc
from orthounlearn.metrics.sample import (
    Calibration,
    Mean,
    Part,
    Ranking,
    Sample,
    gap_intervals,
    values,
)

RATES = {"tpr@fpr5e-2": 0.05}


def shares(values_N: np.ndarray, split: str = "forget_test") -> Mean:
    return Mean((Part.whole(split, np.asarray(values_N, dtype=float)),))


def ranking(members: np.ndarray, others: np.ndarray) -> Ranking:
    pair = Part.whole("forget_train", members), Part.whole("forget_test", others)
    return Ranking((pair,), advantage=True, rates=RATES)


def everything(sample: Sample) -> dict[str, np.ndarray]:
    return {part.split: np.ones((1, part.total)) for part in sample.parts}


def some_samples() -> list[Sample]:
    rng = np.random.default_rng(0)
    rows = rng.permutation(30)[:20]
    pooled = (
        Part.whole("forget_test", rng.normal(size=30)),
        Part.whole("retain_test", rng.normal(size=50)),
    )
    gaps = Part.whole("retain_test", rng.normal(size=50))
    return [
        shares(rng.integers(0, 2, 30)),
        Mean((Part("forget_test", rng.normal(size=20), rows, 30),)),
        Mean(pooled, (0.375, 0.625)),
        Calibration(gaps, rng.integers(0, 15, 50)),
        ranking(rng.normal(size=300).round(1), rng.normal(size=200).round(1)),
    ]  # fmt: skip


@pytest.mark.parametrize("sample", some_samples(), ids=lambda s: type(s).__name__)
def test_each_image_once_is_the_figure_itself(sample: Sample):
    found = sample.resampled(everything(sample))
    assert found.keys() == sample.values.keys()
    for end, value in sample.values.items():
        assert found[end].tolist() == [pytest.approx(value)]


@pytest.mark.parametrize("sample", some_samples(), ids=lambda s: type(s).__name__)
def test_weights_belong_to_images_not_to_places(sample: Sample):
    """The same images in another order, drawn as often, are the same figure."""
    rng = np.random.default_rng(1)
    weights = {part.split: rng.integers(0, 4, (3, part.total)) * 1.0 for part in sample.parts}
    order = {split: rng.permutation(drawn.shape[1]) for split, drawn in weights.items()}

    def turned(part: Part) -> Part:
        """Image i of the split is now at place[i]."""
        place = np.argsort(order[part.split])
        rows = np.arange(part.total) if part.rows_N is None else part.rows_N
        return Part(part.split, part.values_N, place[rows], part.total)

    if isinstance(sample, Mean):
        other: Sample = Mean(tuple(map(turned, sample.parts)), sample.shares)
    elif isinstance(sample, Calibration):
        other = Calibration(turned(sample.gaps), sample.bins_N)
    else:
        assert isinstance(sample, Ranking)
        pairs = tuple((turned(one), turned(other)) for one, other in sample.pairs)
        other = Ranking(pairs, advantage=True, rates=RATES)
    moved = {split: drawn[:, order[split]] for split, drawn in weights.items()}
    before, after = sample.resampled(weights), other.resampled(moved)
    for end in before:
        np.testing.assert_allclose(after[end], before[end])


def test_a_mean_over_parts_weighs_them_by_their_shares():
    parts = Part.whole("forget_test", np.array([1.0, 0])), Part.whole("retain_test", np.ones(3))
    sample = Mean(parts, (0.4, 0.6))
    assert sample.values == {"": pytest.approx(0.8)}


def test_a_ranking_is_averaged_over_its_pairs():
    high, low = np.array([2.0, 3.0]), np.array([0.0, 1.0])
    one, other = ranking(high, low).pairs[0], ranking(low, high).pairs[0]
    found = Ranking((one, other), advantage=True).values
    assert found == {"auc": 0.5, "adv": 1.0}
    assert np.isnan(Ranking(()).values["auc"])


def test_interval_of_the_auc_is_that_of_scikit_learns_on_each_draw():
    rng = np.random.default_rng(3)
    sides = rng.normal(size=(4, 12)).round(1)  # with ties
    ours, theirs = ranking(*sides[:2]), ranking(*sides[2:])
    found = gap_intervals({"a/": ours}, [{"a/": theirs}], rounds=200, seed=0)
    splits = [part.split.encode() for part in ours.pairs[0]]
    streams = [np.random.default_rng([0, crc32(split)]) for split in splits]
    slow = []
    for _ in range(2):  # 100 draws at a time
        m, o = (stream.integers(12, size=(100, 12)) for stream in streams)
        slow += [
            roc_auc_score([1] * 12 + [0] * 12, np.r_[sides[0][i], sides[1][j]])
            - roc_auc_score([1] * 12 + [0] * 12, np.r_[sides[2][i], sides[3][j]])
            for i, j in zip(m, o, strict=True)
        ]
    ends = [found["a/auc_gap_low"], found["a/auc_gap_high"]]
    np.testing.assert_allclose(ends, np.quantile(slow, [0.025, 0.975]), atol=1e-9)


def test_references_are_drawn_once_and_alike_whatever_else_is_read(
    monkeypatch: pytest.MonkeyPatch,
):
    rng = np.random.default_rng(0)
    reference, ours, other = (
        Mean((Part.whole(split, rng.normal(size=20)),))
        for split in ("forget_test", "forget_test", "retain_test")
    )
    alone = gap_intervals({"a": ours}, [{"a": reference}])
    drawn = []
    resampled = Mean.resampled
    monkeypatch.setattr(Mean, "resampled", lambda self, w: drawn.append(self) or resampled(self, w))
    fresh = Mean(ours.parts)
    both = gap_intervals({"b": other, "a": fresh}, [{"b": other, "a": reference}])
    assert {id(one) for one in drawn} == {id(other), id(fresh)}
    assert {key: both[key] for key in alone} == alone
    assert both["b_gap_low"] == both["b_gap_high"] == 0


def test_interval_of_a_share_is_that_of_the_normal_approximation():
    """Paired: only images on which the networks differ widen it."""
    rng = np.random.default_rng(0)
    right = rng.integers(0, 2, 400)
    other = right.copy()
    other[:40] = 1 - other[:40]
    gap = shares(right), shares(other)
    found = gap_intervals({"acc": gap[0]}, [{"acc": gap[1]}])
    difference = right - other
    half = 1.96 * difference.std() / 20
    assert found["acc_gap_low"] == pytest.approx(difference.mean() - half, abs=0.15 * half)
    assert found["acc_gap_high"] == pytest.approx(difference.mean() + half, abs=0.15 * half)
    apart = 1.96 * np.sqrt((right.var() + other.var()) / 400)
    assert found["acc_gap_high"] - found["acc_gap_low"] < 2 * apart / 2


def test_the_difference_is_to_the_mean_of_several_networks():
    ours, theirs = shares([1, 1, 1, 1]), [shares([1, 1, 0, 0]), shares([0, 0, 1, 1])]
    found = gap_intervals({"acc": ours}, [{"acc": one} for one in theirs])
    assert found == {"acc_gap_low": 0.5, "acc_gap_high": 0.5}  # every image: 1 against a half


def test_a_network_against_itself_has_no_difference():
    named = {str(number): sample for number, sample in enumerate(some_samples()[-1:])}
    assert set(gap_intervals(named, [named], rounds=50).values()) == {0.0}


def test_undefined_figures_have_undefined_intervals_and_missing_ones_none():
    ours = {"a": shares([1, 0]), "b": shares([np.nan, np.nan]), "c": shares([1, 0]),
            "d/": ranking(np.arange(9.0), np.arange(9.0))}  # fmt: skip
    theirs = {"a": shares([np.nan, 0]), "b": shares([1, 0]), "d/": ours["d/"]}
    found = gap_intervals(ours, [theirs], rounds=20)
    undefined = {key for key, value in found.items() if np.isnan(value)}
    assert undefined == {f"{key}_gap_{end}" for key in ("a", "b", "d/tpr@fpr5e-2")
                         for end in ("low", "high")}  # fmt: skip
    assert found.keys() - undefined == {f"d/{key}_gap_{end}" for key in ("auc", "adv")
                                        for end in ("low", "high")}  # fmt: skip


def test_values_are_under_the_joined_keys():
    rng = np.random.default_rng(0)
    members, others = rng.normal(1, 1, 300), rng.normal(0, 1, 300)
    found = values({"acc": shares([1, 0, 0, 0]), "mia/": ranking(members, others)})
    assert found["acc"] == 0.25
    assert found["mia/auc"] == roc.auc(members, others)
    assert found["mia/tpr@fpr5e-2"] == roc.tpr_at_fpr(members, others, 0.05)


def test_the_curve_of_a_ranking_is_the_mean_of_its_pairs():
    rng = np.random.default_rng(0)
    sides = rng.normal(size=(4, 300))
    both = Ranking((*ranking(*sides[:2]).pairs, *ranking(*sides[2:]).pairs))
    each = [roc.curve(*sides[:2]), roc.curve(*sides[2:])]
    np.testing.assert_allclose(both.curve, np.mean(each, axis=0), equal_nan=True)
    assert np.isnan(Ranking(()).curve).all()


@pytest.mark.slow
def test_intervals_cover_the_null():
    """Two networks that differ by chance alone: 0 is in the interval 19 times out of 20."""
    rng = np.random.default_rng(0)
    covered = {"acc": 0, "a/auc": 0}
    for _ in range(400):
        draw = rng.normal(size=(4, 100))
        ours, theirs = (
            {"a/": ranking(m, o), "acc": shares(o > 0)} for m, o in (draw[:2], draw[2:])
        )
        found = gap_intervals(ours, [theirs], rounds=400)
        for key in covered:
            covered[key] += found[f"{key}_gap_low"] <= 0 <= found[f"{key}_gap_high"]
    for count in covered.values():
        assert 0.91 <= count / 400 <= 0.98
