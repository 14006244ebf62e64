"""Curves whose steps and areas are known by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthounlearn.metrics.relearn import (
    Accuracies,
    Curve,
    ain,
    area_ratio,
    relearn_area,
    relearn_steps,
)

ORIGINAL = Accuracies(forget=0.8, retain=0.9)


def curve(forget: list[float], retain: list[float] | float = 0.9) -> Curve:
    """A curve of so many accuracies: of one image, which is right to that extent."""
    forget_S = np.array(forget, dtype=float)
    return Curve(
        np.arange(len(forget)) * 5,
        forget_S[:, None],
        np.broadcast_to(retain, forget_S.shape).astype(float),
    )


accuracies = st.floats(0, 1)
curves = st.lists(st.tuples(accuracies, accuracies), min_size=1, max_size=9).map(
    lambda points: curve(*map(list, zip(*points, strict=True)))
)


def test_first_step_at_the_share_of_the_original():
    assert relearn_steps(curve([0, 0.5, 0.75, 0.76, 0.2, 1]), ORIGINAL) == 15
    assert relearn_steps(curve([0, 0.5, 0.75, 0.76, 0.2, 1]), ORIGINAL, share=0.6) == 5


def test_original_has_nothing_to_relearn():
    assert relearn_steps(curve([0.8, 0]), ORIGINAL) == 0


def test_never_is_censored():
    assert relearn_steps(curve([0, 0.5, 0.7]), ORIGINAL) is None


def test_both_conditions_at_the_same_step():
    """Forget accuracy is there at 5 and 15, retained accuracy at 0, 10 and 20."""
    never = curve([0, 1, 0.5, 1, 0.5], [0.9, 0.84, 0.9, 0.84, 0.9])
    assert relearn_steps(never, ORIGINAL) is None
    later = curve([0, 1, 0.5, 1, 0.8], [0.9, 0.84, 0.9, 0.84, 0.85])
    assert relearn_steps(later, ORIGINAL) == 20
    assert relearn_steps(later, ORIGINAL, loss=0.04) is None
    assert relearn_steps(later, ORIGINAL, loss=0.06) == 5


def test_loss_is_counted_from_the_start_or_the_original_whichever_is_lower():
    behind = curve([0, 1, 1], [0.86, 0.80, 0.81])
    assert relearn_steps(behind, ORIGINAL) == 10
    # What a network without the class has in advance of the original may go.
    ahead = curve([0, 1, 1], [0.95, 0.84, 0.85])
    assert relearn_steps(ahead, ORIGINAL) == 10


@pytest.mark.parametrize("start", [0.0, 0.1, 0.3])
def test_an_untrained_network_cannot_pass_by_having_nothing_to_lose(start: float):
    constant = curve([1, 1, 1], [start, start + 0.1, 0.79])
    assert relearn_steps(constant, ORIGINAL) is None
    assert relearn_area(constant, ORIGINAL) == 0
    assert relearn_steps(curve([1, 1], [start, 0.80]), ORIGINAL) == 5


def test_area_is_the_mean_with_zeros_where_retained_accuracy_is_lost():
    assert relearn_area(curve([0, 0.2, 0.4, 1]), ORIGINAL) == pytest.approx(0.4)
    lost = curve([0, 0.2, 0.4, 1], [0.9, 0.9, 0.84, 0.85])
    assert relearn_area(lost, ORIGINAL) == pytest.approx(0.3)
    assert relearn_area(lost, ORIGINAL, loss=0.06) == pytest.approx(0.4)
    assert relearn_area(curve([1, 1], [0, 0]), ORIGINAL) == 0


def test_area_is_the_mean_over_images_of_how_long_each_was_right():
    right_SN = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]], dtype=float)
    found = Curve(np.arange(4) * 5, right_SN, np.array([0.9, 0.9, 0.84, 0.9]))
    assert found.forget_S == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert relearn_area(found, ORIGINAL).tolist() == [0.5, 0.25, 0.25]


def test_what_has_diverged_counts_as_nothing():
    diverged = curve([0, 0.4, np.nan, np.nan], [0.9, 0.9, np.nan, np.nan])
    assert relearn_steps(diverged, ORIGINAL) is None
    assert relearn_area(diverged, ORIGINAL) == pytest.approx(0.1)


@given(curves, st.floats(0.01, 0.99), st.floats(0, 0.5))
def test_bounds_and_orders(found: Curve, share: float, loss: float):
    area = relearn_area(found, ORIGINAL, loss=loss)
    assert 0 <= area <= relearn_area(found, ORIGINAL, loss=loss + 0.1) <= 1
    step = relearn_steps(found, ORIGINAL, share=share, loss=loss)
    # A lower bar is never passed later.
    for easier in (
        relearn_steps(found, ORIGINAL, share=share / 2, loss=loss),
        relearn_steps(found, ORIGINAL, share=share, loss=loss + 0.1),
    ):
        assert step is None or (easier is not None and easier <= step)


@given(curves)
def test_step_is_that_of_a_loop(found: Curve):
    lowest = max(min(found.retain_S[0], 0.9) - 0.05, 0.8) - 1e-9
    expected = None
    for step, forget, retain in zip(found.steps_S, found.forget_S, found.retain_S, strict=True):
        if forget >= 0.95 * 0.8 and retain >= lowest:
            expected = step
            break
    assert relearn_steps(found, ORIGINAL) == expected


@given(st.integers(1, 1000))
def test_ain_of_the_retrained_network_itself_is_one(steps: int):
    assert ain(steps, steps) == 1


def test_ain_is_a_ratio_of_finite_steps_only():
    assert ain(15, 60) == 0.25
    assert ain(0, 60) == 0
    assert ain(90, 60) == 1.5
    assert ain(None, 60) is None
    assert ain(15, None) is None
    assert ain(None, None) is None
    assert ain(15, 0) is None


def test_area_ratio():
    assert area_ratio(0.6, 0.2) == pytest.approx(3)
    assert area_ratio(0.2, 0.2) == 1
    assert area_ratio(0, 0.2) == 0
    assert np.isnan(area_ratio(0.3, 0))
