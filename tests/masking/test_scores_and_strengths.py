"""From statistics to factors: hand-computed, and what must always hold."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from orthounlearn.errors import UsageError
from orthounlearn.masking.scores import SCORES, activation_difference, normalised_difference, tf_idf
from orthounlearn.masking.strengths import rank_strengths

SUMS = torch.tensor([[10.0, 0.0, 4.0], [2.0, 6.0, 4.0], [4.0, 6.0, 4.0]], dtype=torch.float64)
COUNTS = torch.tensor([2.0, 1.0, 3.0], dtype=torch.float64)

activations = arrays("float64", (5, 6), elements=st.floats(0, 100, width=32)).map(torch.from_numpy)
requests = st.sets(st.integers(0, 4), min_size=1, max_size=4).map(sorted)


def test_activation_difference_weights_images_not_classes():
    # D_f: class 0, 2 images; D_r: classes 1 and 2, 4 images.
    expected = [10 / 2 - 6 / 4, 0 - 12 / 4, 4 / 2 - 8 / 4]
    assert activation_difference(SUMS, COUNTS, [0]).tolist() == expected


def test_normalised_difference_is_relative():
    expected = [(5 - 1.5) / (5 + 1.5), -1, 0]
    assert normalised_difference(SUMS, COUNTS, [0]).tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("name", SCORES)
def test_a_class_without_images_plays_no_part(name: str):
    """An earlier request has deleted them."""
    sums = torch.rand(4, 6, dtype=torch.float64)
    counts = torch.tensor([3.0, 0.0, 5.0, 2.0], dtype=torch.float64)
    sums[1] = 0
    left = SCORES[name](sums[counts > 0], counts[counts > 0], [1])
    torch.testing.assert_close(SCORES[name](sums, counts, [2]), left)
    assert left.isfinite().all()


def test_tf_idf_by_hand():
    # Means: [[5, 0, 2], [2, 6, 4], [4/3, 2, 4/3]]; channel means 2.78, 2.67, 2.44.
    # Classes at or above it: 1, 1, 1; so IDF = log(4 / 2) for all, TF = 5/7, 0, 2/7.
    expected = [5 / 7 * math.log(2), 0, 2 / 7 * math.log(2)]
    assert tf_idf(SUMS, COUNTS, [0]).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
@given(sums=activations, forget=requests)
def test_scores_are_finite_and_follow_a_permutation_of_channels(score, sums, forget):
    counts = torch.tensor([3.0, 1.0, 2.0, 5.0, 4.0], dtype=torch.float64)
    found = score(sums, counts, forget)
    assert found.isfinite().all()
    order = torch.tensor([3, 1, 0, 5, 4, 2])
    torch.testing.assert_close(score(sums[:, order], counts, forget), found[order])


@pytest.mark.parametrize("score", [activation_difference, normalised_difference])
@given(sums=activations, label=st.integers(0, 4))
def test_a_channel_of_one_class_scores_highest_for_it(score, sums, label):
    sums = sums.clone() + 0.1
    sums[:, 0] = 0
    sums[label, 0] = 1000.0
    counts = torch.ones(5, dtype=torch.float64)
    assert score(sums, counts, [label]).argmax() == 0


@given(
    scores=arrays("float32", st.integers(1, 40), elements=st.floats(-9, 9, width=32)),
    rate=st.floats(0.01, 1),
    floor=st.floats(0, 1),
)
def test_strengths_invariants(scores, rate: float, floor: float):
    score = torch.from_numpy(scores)
    strengths = rank_strengths(score, rate=rate, floor=floor)
    count = math.ceil(rate * len(score) - 1e-9)
    assert ((strengths >= 0) & (strengths <= 1)).all()
    assert (strengths > 0).sum() <= count
    chosen = torch.argsort(score, descending=True, stable=True)[:count]
    others = torch.ones(len(score), dtype=torch.bool)
    others[chosen] = False
    assert (strengths[others] == 0).all()
    assert (strengths[chosen] >= floor - 1e-6).all()
    assert (strengths[chosen].diff() <= 1e-6).all()  # a higher score never gets less


def test_published_strengths_by_hand():
    """k = 4 of 16: ranks 1..4 have strengths 3/4, 1/2, max(1/2, 1/4), max(1/2, 0)."""
    strengths = rank_strengths(torch.arange(16.0), rate=0.25, floor=0.5)
    assert strengths[-4:].tolist() == [0.5, 0.5, 0.5, 0.75]
    assert strengths[:-4].sum() == 0


def test_floor_one_is_hard_pruning():
    assert rank_strengths(torch.arange(10.0), rate=0.3, floor=1.0).tolist() == [0.0] * 7 + [1.0] * 3


def test_ties_go_to_the_lower_index():
    assert rank_strengths(torch.zeros(4), rate=0.5, floor=1.0).tolist() == [1, 1, 0, 0]


def test_rounding_does_not_add_a_channel():
    assert (rank_strengths(torch.arange(30.0), rate=0.1, floor=1.0) > 0).sum() == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 0}, "rate"),
        ({"rate": 1.1}, "rate"),
        ({"floor": -0.1}, "floor"),
        ({"floor": 2}, "floor"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str):
    with pytest.raises(UsageError, match=message):
        rank_strengths(torch.zeros(4), **{"rate": 0.5, "floor": 0.5, **options})
