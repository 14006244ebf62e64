"""Class transport against closed forms and an independent discriminant."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge

from orthounlearn.masking.transport import (
    LinearMap,
    Moments,
    beliefs_without,
    class_moments,
    transported,
)

PLANE = Moments(
    means_KC=torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0]]),
    precision_CC=torch.eye(2),
    deviation_C=torch.ones(2),
)
TO_FIRST = torch.tensor([[1.0, 0.0, 0.0]])


def move(x: list[float], *, beliefs: torch.Tensor = TO_FIRST) -> list[float]:
    return transported(torch.tensor([x]), PLANE, label=1, beliefs_NK=beliefs)[0].tolist()


def test_mean_of_the_class_lands_on_the_destination():
    assert move([4.0, 0.0]) == [0.0, 0.0]


def test_what_the_discriminant_does_not_see_stays():
    assert move([2.0, 3.0]) == [0.0, 3.0]


def test_far_side_of_the_destination_stays():
    assert move([-1.0, 2.0]) == [-1.0, 2.0]


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
    moved = transported(ours, moments, label=1, beliefs_NK=beliefs)
    direction = torch.tensor(fisher.coef_[0])
    direction = direction / (direction @ (moments.means_KC[1] - moments.means_KC[0]))
    before = (ours - moments.means_KC[0]) @ direction
    after = (moved - moments.means_KC[0]) @ direction
    np.testing.assert_allclose(after, before.clamp(max=0), atol=5e-3)  # theirs has no ridge
    assert before.mean() > 0.9


@given(seed=st.integers(0, 1000))
def test_another_basis_of_the_features_changes_nothing(seed: int):
    draws = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(4, 4, generator=draws, dtype=torch.double))[0] * 3
    features = torch.randn(60, 4, generator=draws, dtype=torch.double)
    labels = torch.arange(60) % 3
    features += 2 * torch.nn.functional.one_hot(labels, 4)
    beliefs = torch.rand(20, 3, generator=draws, dtype=torch.double)

    def move(values: torch.Tensor) -> torch.Tensor:
        moments = class_moments(values, labels, 3)
        return transported(values[labels == 0], moments, label=0, beliefs_NK=beliefs)

    torch.testing.assert_close(move(features) @ basis, move(features @ basis))


def test_beliefs_leave_the_gone_classes_out():
    logits = torch.tensor([[5.0, 0.0, math.log(3.0), 9.0]])
    expected = torch.tensor([[0.0, 0.25, 0.75, 0.0]])
    torch.testing.assert_close(beliefs_without(logits, [0, 3]), expected)
    sharp = torch.tensor([[0.0, 0.1, 0.9, 0.0]])
    torch.testing.assert_close(beliefs_without(logits, [0, 3], temperature=0.5), sharp)


def features_of_two_networks(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draws = np.random.default_rng(seed)
    theirs = draws.normal(size=(300, 6)) @ draws.normal(size=(6, 6)) + 3
    ours = theirs @ draws.normal(size=(6, 4)) + draws.normal(size=4) + draws.normal(size=(300, 4))
    return torch.tensor(theirs), torch.tensor(ours)


def test_translation_is_the_ridge_regression_of_scikit_learn():
    theirs, ours = features_of_two_networks()
    penalty = 1e-2 * theirs.var(0, unbiased=False).mean().item() * len(theirs)
    expected = Ridge(alpha=penalty).fit(theirs, ours).predict(theirs[:20])
    np.testing.assert_allclose(LinearMap.fit(theirs, ours)(theirs[:20]), expected)


def test_translation_maps_the_mean_to_the_mean():
    theirs, ours = features_of_two_networks()
    moved = LinearMap.fit(theirs, ours)(theirs.mean(0, keepdim=True))
    torch.testing.assert_close(moved[0], ours.mean(0))


def test_translation_keeps_the_precision_of_what_it_is_compared_with():
    theirs, ours = features_of_two_networks()
    assert LinearMap.fit(theirs, ours.float())(theirs.float()).dtype == torch.float32


def test_translation_of_constant_features_is_the_mean():
    """A block that is dead tells nothing."""
    _, ours = features_of_two_networks()
    moved = LinearMap.fit(torch.zeros(300, 2), ours)(torch.zeros(5, 2, dtype=torch.double))
    torch.testing.assert_close(moved, ours.mean(0).expand(5, -1))


def test_translation_adds_no_class_that_was_not_there():
    """No classifier of what comes out finds a class that what comes in does not show."""
    draws = np.random.default_rng(0)
    labels = np.arange(2000) % 3  # class 2 is never compared
    shown = draws.normal(size=(2000, 5)) + 3 * (labels == 1)[:, None]  # class 2 looks like 0
    known = np.c_[shown @ draws.normal(size=(5, 5)), 5 * (labels == 2) + draws.normal(size=2000)]
    theirs, ours = torch.tensor(shown), torch.tensor(known)
    moved = LinearMap.fit(theirs[labels < 2], ours[labels < 2])(theirs)

    def found(features: torch.Tensor) -> float:
        pair = labels != 1
        probe = LogisticRegression().fit(features[pair], labels[pair])
        return float(probe.score(features[pair], labels[pair]))

    assert found(ours) > 0.95
    assert found(moved) < 0.55
