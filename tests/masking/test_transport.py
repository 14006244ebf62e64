"""Class transport against closed forms and an independent discriminant."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from orthounlearn.masking.transport import Moments, beliefs_without, class_moments, transported

PLANE = Moments(
    means_KC=torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]]),
    precision_CC=torch.eye(2),
    deviation_C=torch.ones(2),
)
TO_FIRST = torch.tensor([[1.0, 0.0, 0.0]])


def move(
    x: list[float], *, overshoot: float = 1.0, beliefs: torch.Tensor = TO_FIRST
) -> list[float]:
    features = torch.tensor([x])
    moved = transported(features, PLANE, label=1, beliefs_NK=beliefs, overshoot=overshoot)
    return moved[0].tolist()


def test_mean_of_the_class_lands_on_the_destination():
    assert move([4.0, 0.0]) == [0.0, 0.0]


def test_what_the_discriminant_does_not_see_stays():
    assert move([2.0, 3.0]) == [0.0, 3.0]


def test_far_side_of_the_destination_stays():
    assert move([-1.0, 2.0]) == [-1.0, 2.0]


def test_overshoot_goes_on_as_far_again():
    assert move([4.0, 1.0], overshoot=1.5) == [-2.0, 1.0]


def test_destination_is_the_mean_that_the_beliefs_name():
    between = torch.tensor([[0.5, 0.0, 0.5]])
    assert move([4.0, 0.0], beliefs=between) == [0.0, 2.0]


def test_nothing_moves_where_class_and_destination_agree():
    itself = torch.tensor([[0.0, 1.0, 0.0]])
    assert move([3.0, 1.0], beliefs=itself) == [3.0, 1.0]


@pytest.fixture(scope="module")
def clouds() -> tuple[torch.Tensor, torch.Tensor]:
    draws = np.random.default_rng(0)
    shape = draws.normal(size=(5, 5))
    means = draws.normal(size=(3, 5)) * 2
    labels = np.repeat(np.arange(3), 400)
    return (
        torch.tensor(draws.normal(size=(1200, 5)) @ shape + means[labels]),
        torch.tensor(labels),
    )


def test_moments_are_those_of_numpy(clouds):
    features, labels = clouds
    found = class_moments(features, labels, 4)
    values = features.numpy()
    means = np.stack([values[labels == k].mean(0) for k in range(3)])
    covariance = np.cov((values - means[labels]).T, bias=True)
    np.testing.assert_allclose(found.means_KC[:3], means)
    np.testing.assert_allclose(found.means_KC[3], 0)  # no image, no mean
    ridge = 1e-3 * covariance.diagonal().mean() * np.eye(5)
    np.testing.assert_allclose(found.precision_CC, np.linalg.inv(covariance + ridge))
    np.testing.assert_allclose(found.deviation_C, (covariance + ridge).diagonal() ** 0.5)


def test_fishers_discriminant_reads_zero_afterwards(clouds):
    """Against scikit-learn's direction: what lay on the class's side lies on the boundary."""
    features, labels = clouds
    moments = class_moments(features, labels, 3)
    beliefs = torch.zeros(400, 3, dtype=features.dtype)
    beliefs[:, 0] = 1
    pair = labels < 2
    fisher = LinearDiscriminantAnalysis(solver="lsqr").fit(features[pair], labels[pair])
    # Only these two classes, so that both pool the same covariance.
    moments = class_moments(features[pair], labels[pair], 3)
    ours = features[labels == 1]
    moved = transported(ours, moments, label=1, beliefs_NK=beliefs, overshoot=1.0)
    direction = torch.tensor(fisher.coef_[0])
    direction = direction / (direction @ (moments.means_KC[1] - moments.means_KC[0]))
    before = (ours - moments.means_KC[0]) @ direction
    after = (moved - moments.means_KC[0]) @ direction
    np.testing.assert_allclose(after, before.clamp(max=0), atol=5e-3)  # theirs has no ridge
    assert before.mean() > 0.9


@given(seed=st.integers(0, 1000), overshoot=st.floats(0.5, 2))
def test_another_basis_of_the_features_changes_nothing(seed: int, overshoot: float):
    draws = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(4, 4, generator=draws, dtype=torch.double))[0] * 3
    features = torch.randn(60, 4, generator=draws, dtype=torch.double)
    labels = torch.arange(60) % 3
    features += 2 * torch.nn.functional.one_hot(labels, 4)
    beliefs = torch.rand(20, 3, generator=draws, dtype=torch.double)

    def move(values: torch.Tensor) -> torch.Tensor:
        moments = class_moments(values, labels, 3)
        return transported(
            values[labels == 0], moments, label=0, beliefs_NK=beliefs, overshoot=overshoot
        )

    torch.testing.assert_close(move(features) @ basis, move(features @ basis))


def test_beliefs_leave_the_gone_classes_out():
    logits = torch.tensor([[5.0, 0.0, math.log(3.0), 9.0]])
    expected = torch.tensor([[0.0, 0.25, 0.75, 0.0]])
    torch.testing.assert_close(beliefs_without(logits, [0, 3]), expected)
    sharp = torch.tensor([[0.0, 0.1, 0.9, 0.0]])
    torch.testing.assert_close(beliefs_without(logits, [0, 3], temperature=0.5), sharp)
