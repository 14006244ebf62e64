"""The worst-case privacy score: known ratios, chance, and what it cannot be fooled by."""

import numpy as np
import pytest
from scipy.stats import binomtest

from orthounlearn.metrics.privacy import forgotten_scores, worst_case


def normal(shift: float, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, count)


def test_a_known_ratio_of_two_values_is_found():
    """P(score = 1) is 0.8 for us and 0.2 for the retrained network: the ratio is 4."""
    draws = np.random.default_rng(0).random((2, 40_000))
    ours, theirs = (draws[0] < 0.8).astype(float), (draws[1] < 0.2).astype(float)
    found = worst_case({"s": ours}, {"s": theirs})
    assert 0.25 < found < 0.27  # a bound: never below the truth but by chance


@pytest.mark.parametrize("flip", [1.0, -1.0])
def test_it_is_the_bound_on_the_half_that_did_not_choose_the_event(flip: float):
    values = np.arange(400) // 100
    ours, theirs = flip * (values + 1e6), flip * values.astype(float)
    found = worst_case({"s": ours}, {"s": theirs})  # always told apart: 200 of 200 against 0
    low = binomtest(200, 200).proportion_ci(0.95, "exact").low
    high = binomtest(0, 200).proportion_ci(0.95, "exact").high
    assert found == pytest.approx(high / low)


def test_the_same_network_and_chance_give_one():
    same = {"s": normal(0, 500, 0)}
    assert worst_case(same, same) == 1
    chance = [worst_case({"s": normal(0, 500, s)}, {"s": normal(0, 500, -s - 1 & 0xFFFF)})
              for s in range(40)]  # fmt: skip
    assert np.mean(np.array(chance) < 1) <= 0.1


def test_the_further_apart_the_lower_and_the_worst_score_counts():
    base = normal(0, 1000, 0)
    apart = [worst_case({"s": normal(d, 1000, 1)}, {"s": base}) for d in (0.0, 0.5, 1.0, 2.0)]
    assert apart == sorted(apart, reverse=True)
    assert apart[-1] < 0.1
    both = {"harmless": base, "s": normal(2, 1000, 1)}
    assert worst_case(both, {"harmless": base, "s": base}) == apart[-1]


def test_the_direction_does_not_matter():
    one, other = normal(1, 1000, 0), normal(0, 1000, 1)
    assert worst_case({"s": one}, {"s": other}) == pytest.approx(
        worst_case({"s": other}, {"s": one}), rel=1e-12
    )


def test_few_images_give_no_value():
    assert np.isnan(worst_case({"s": normal(0, 15, 0)}, {"s": normal(0, 15, 1)}))


def test_a_mask_on_the_logit_is_told_from_a_retrained_network():
    rng = np.random.default_rng(0)
    retrained = rng.normal(size=(600, 5))
    retrained[:, 2] -= 6
    masked = retrained.copy()
    masked[:, 2] = -1e4
    labels = np.full(600, 2)
    ours, theirs = (forgotten_scores(z, labels) for z in (masked, retrained))
    assert worst_case(ours, theirs) < 0.05
    np.testing.assert_allclose(ours["rest"], theirs["rest"])
