"""Linear CKA: closed forms, invariants, and the written-out kernels as a reference."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from orthounlearn.metrics.similarity import IMAGES, layer_similarity, linear_cka


def features(count: int, channels: int, seed: int = 0) -> NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=(count, channels)) ** 3


def rotation(size: int, seed: int) -> NDArray[np.float64]:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(size, size)))[0]


def hsic(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Song et al. 2012, equation 4, with both kernels written out."""
    n = len(one)
    k, m = (x @ x.T for x in (one, other))
    np.fill_diagonal(k, 0), np.fill_diagonal(m, 0)
    ones = np.ones(n)
    within = ones @ k @ ones * (ones @ m @ ones) / ((n - 1) * (n - 2))
    return (np.trace(k @ m) + within - 2 / (n - 2) * (ones @ k @ m @ ones)) / (n * (n - 3))


@given(st.integers(4, 30), st.integers(1, 40), st.integers(1, 9), st.integers(0, 99))
def test_it_is_what_written_out_kernels_give(n: int, c: int, d: int, seed: int):
    one = features(n, c, seed) + 3
    other = one[:, :1] * np.arange(1, d + 1) + 0.3 * features(n, d, seed + 1)
    own = hsic(one, one), hsic(other, other)
    if min(own) < 1e-6:  # of few images the estimator may come out below 0: then there is no CKA
        return
    expected = min(hsic(one, other) / np.sqrt(own[0] * own[1]), 1)
    assert linear_cka(one, other) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(st.integers(0, 99), st.floats(1e-3, 1e3), st.floats(-50, 50))
def test_rotation_scale_and_shift_do_not_matter(seed: int, scale: float, shift: float):
    one, other = features(40, 6, seed), features(40, 9, seed + 1)
    other[:, :6] += one
    turned = scale * other @ rotation(9, seed) + shift
    assert linear_cka(one, turned) == pytest.approx(linear_cka(one, other), abs=1e-6)
    assert linear_cka(one, scale * one @ rotation(6, seed) + shift) == pytest.approx(1, abs=1e-6)
    assert linear_cka(one, other) == pytest.approx(linear_cka(other, one), abs=1e-12)


def test_other_linear_maps_do_matter():
    one = features(40, 2)
    assert linear_cka(one, one * [1, 20]) < 0.9


def test_unrelated_features_are_not_called_alike_however_many_channels():
    one, other = (np.random.default_rng(s).normal(size=(200, 400)) for s in (0, 1))
    assert abs(linear_cka(one, other)) < 0.03  # the biased estimator says 0.67


def test_no_value_without_a_spread_or_images():
    one = features(10, 3)
    assert np.isnan(linear_cka(one, np.ones((10, 2))))
    assert np.isnan(linear_cka(one[:3], one[:3]))


def test_features_of_a_blown_up_network_have_a_value():
    one = features(50, 3).clip(-60000, 60000)
    blown = (one / np.abs(one).max() * 60000).astype(np.float16)
    assert linear_cka(one, blown) == pytest.approx(1, abs=1e-3)


def test_layers_that_both_have_are_compared_on_the_same_images():
    count = 2 * IMAGES + 10
    one = {str(layer): features(count, 3, layer) for layer in (1, 2, 3)}
    other = {"2": one["2"] @ rotation(3, 0), "3": features(count, 3, 9), "4": one["1"]}
    found = layer_similarity(one, other)
    assert found.keys() == {"2", "3"}
    assert found["2"] == pytest.approx(1)
    assert abs(found["3"]) < 0.1
