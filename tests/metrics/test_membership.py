"""Membership attacks on networks whose leak is known."""

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from orthounlearn.metrics import compat, membership, scores
from orthounlearn.metrics.roc import auc
from orthounlearn.metrics.sample import values


def attacks(*arguments: np.ndarray, **options: Any) -> dict[str, float]:
    return values(membership.population_attacks(*arguments, **options))


SCORES = ("conf", "margin", "entropy", "mentr", "rest", "lr")


def logits(count: int, gain: float, *, label: int = 0, classes: int = 5, seed: int = 0):
    """Random logits with `gain` more for the label, and the labels."""
    z = np.random.default_rng(seed).normal(size=(count, classes)) * 2
    z[:, label] += gain
    return z.astype(np.float32), np.full(count, label)


def test_keys_and_ranges():
    found = attacks(*logits(300, 3), *logits(200, 2, seed=1), forget=[0])
    assert found.keys() == {
        f"pop_{s}/{k}" for s in SCORES for k in ("auc", "adv", "tpr@fpr1e-2", "tpr@fpr5e-2", "bacc")
    }
    defined = [value for value in found.values() if not np.isnan(value)]
    assert all(0 <= value <= 1 for value in defined)


def test_no_leak_is_one_half():
    """Members and others of one distribution: every attack is at chance (3 standard errors)."""
    found = attacks(*logits(900, 3), *logits(900, 3, seed=1), forget=[0])
    error = np.sqrt((2 * 900 + 1) / (12 * 900 * 900))  # of AUC under the null
    for score in SCORES:
        assert abs(found[f"pop_{score}/auc"] - 0.5) < 3 * error, score


def test_a_leak_is_found_by_every_score_that_can_see_it():
    found = attacks(*logits(500, 8), *logits(500, 3, seed=1), forget=[0])
    for score in ("conf", "margin", "entropy", "mentr", "lr"):
        assert found[f"pop_{score}/auc"] > 0.8, score


def test_masked_logit_hides_the_loss_but_not_the_rest():
    """What is left of a class beside its own logit still tells members from others."""
    members, labels = logits(500, 3)
    others, other_labels = logits(500, 3, seed=1)
    members[:, 1] += 5  # the trained network puts members near class 1 too
    members[:, 0] = others[:, 0] = -1e4
    found = attacks(members, labels, others, other_labels, forget=[0])
    assert found["pop_rest/auc"] > 0.6
    assert found["pop_lr/auc"] > 0.6


def test_classes_are_attacked_apart():
    """Class 1 is easier than class 0 for members and others alike; mixed, that is no leak."""
    z = (
        [*logits(400, 1), *logits(400, 1, seed=1)],
        [*logits(400, 9, label=1, seed=2), *logits(40, 9, label=1, seed=3)],
    )
    members = np.concatenate([z[0][0], z[1][0]]), np.concatenate([z[0][1], z[1][1]])
    others = np.concatenate([z[0][2], z[1][2]]), np.concatenate([z[0][3], z[1][3]])
    apart = attacks(*members, *others, forget=[0, 1])
    assert apart["pop_conf/auc"] == pytest.approx(0.5, abs=0.06)
    from orthounlearn.metrics.scores import confidence

    assert auc(confidence(*members), confidence(*others)) > 0.6  # the mistake that is avoided


def learned_auc(members: np.ndarray, others: np.ndarray, *, seed: int = 0) -> float:
    (_, ours), (_, theirs) = membership.learned_attack(members, others, seed=seed)
    return auc(ours, theirs)


def test_learned_attack_names_the_images_that_it_judged():
    rng = np.random.default_rng(0)
    members, others = rng.normal(1, 1, (30, 2)), rng.normal(0, 1, (12, 2))
    (rows, scores_of), (other_rows, _) = membership.learned_attack(members, others)
    assert len(set(rows)) == len(set(other_rows)) == 12
    # An image with more of what tells members has the higher score.
    assert np.corrcoef(members[rows].sum(1), scores_of)[0, 1] > 0.8


def test_learned_attack_sees_members_in_the_middle():
    """Others lie on both sides of the members: one threshold finds nothing, |x| finds all."""
    rng = np.random.default_rng(0)
    members = rng.normal(0, 0.2, (300, 1))
    others = rng.choice([-2, 2], (300, 1)) + rng.normal(0, 0.2, (300, 1))
    features = [np.column_stack([side, np.abs(side)]) for side in (members, others)]
    assert learned_auc(members, others) < 0.65
    assert learned_auc(*features) == 1


def test_learned_attack_never_judges_what_it_was_fitted_on():
    """60 features, 40 images: an attacker that sees its images separates pure noise."""
    rng = np.random.default_rng(0)
    areas = [learned_auc(*rng.normal(size=(2, 20, 60)), seed=s) for s in range(20)]
    assert np.mean(areas) == pytest.approx(0.5, abs=0.08)


def test_too_few_images_are_undefined():
    found = attacks(*logits(3, 3), *logits(3, 3, seed=1), forget=[0])
    assert np.isnan(found["pop_lr/auc"])
    assert np.isnan(found["pop_conf/tpr@fpr1e-2"])


@pytest.mark.parametrize(("gain", "efficacy", "golatkar"), [(12, 0, 1), (-12, 1, 0)])
def test_figures_of_other_codebases_point_as_they_do(gain: float, efficacy: float, golatkar: float):
    """D_f like members: SalUn 0, Golatkar 1; D_f unlike members: the other way round."""
    members, others = logits(400, 12), logits(400, 2, seed=1)
    asked = logits(200, gain, seed=2)
    if gain < 0:  # no class stands out
        asked = (asked[0] * 0, asked[1])
    found = compat.salun_efficacy(members, others, asked)
    assert found["salun_confidence"].mean() == pytest.approx(efficacy, abs=0.1)
    assert compat.golatkar_mia(members, others, asked).mean() == pytest.approx(golatkar, abs=0.1)


def test_the_risk_of_those_who_stay_is_the_mean_over_their_classes():
    """One class is memorised and the other is not; a third has no unseen images."""
    margins = {0: ([5.0, 6, 7], [1.0, 2]), 1: ([3.0, 3], [3.0, 3]), 2: ([9.0], [])}

    def side(which: int) -> tuple[np.ndarray, np.ndarray]:
        pairs = [(m, label) for label, sides in margins.items() for m in sides[which]]
        z = np.full((len(pairs), 3), -50.0)
        labels = np.array([label for _, label in pairs])
        z[np.arange(len(pairs)), labels] = [m - 50 for m, _ in pairs]
        return z, labels

    found = values({"retained/": membership.retained_attack(side(0), side(1))})
    assert found["retained/auc"] == pytest.approx((1.0 + 0.5) / 2)


def test_figures_of_other_codebases_need_images():
    empty = np.empty((0, 5), np.float32), np.empty(0, np.int64)
    assert not len(compat.golatkar_mia(logits(9, 1), logits(9, 1), empty))
    assert np.isnan(compat.golatkar_mia(empty, logits(9, 1), logits(9, 1))).all()


@pytest.mark.parametrize("seed", range(3))
def test_binned_attacker_is_the_one_on_single_images(seed: int):
    rng = np.random.default_rng(seed)

    def part(gain: float, count: int) -> tuple[np.ndarray, np.ndarray]:
        labels = rng.integers(0, 4, count)
        z = rng.normal(size=(count, 4)) * 2
        z[np.arange(count), labels] += gain
        return z, labels

    members, others, asked = part(5, 400), part(3, 400), part(1, 700)
    found = compat.salun_efficacy(members, others, asked, seed=seed)
    for name, feature in (
        ("confidence", lambda z, y: np.exp(scores.confidence(z, y))),
        ("entropy", lambda z, y: -scores.entropy(z, y)),
        ("m_entropy", lambda z, y: -scores.modified_entropy(z, y)),
        ("correctness", scores.correctness),
    ):
        sides = np.concatenate([feature(*members), feature(*others)])[:, None]
        plain = SVC(C=3, gamma="auto", tol=1e-5).fit(sides, np.repeat([1, 0], 400))
        apart = found[f"salun_{name}"] != 1 - plain.predict(feature(*asked)[:, None])
        assert apart.sum() <= 1, name


def test_a_boundary_within_a_bin_cuts_it():
    """Sure networks put most images into one bin; it must not go to one side as a whole."""
    rng = np.random.default_rng(0)

    def part(gains: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.column_stack([gains, np.zeros(len(gains))]), np.zeros(len(gains), np.int64)

    members, others = part(np.abs(rng.normal(3, 1, 500))), part(np.abs(rng.normal(1, 1, 500)))
    sides = np.concatenate([-scores.entropy(*members), -scores.entropy(*others)])[:, None]
    plain = LogisticRegression().fit(sides, np.repeat([1, 0], 500))
    dense = part(np.linspace(0, 5, 50_000))
    boundary = -plain.intercept_[0] / plain.coef_[0, 0]
    near = np.abs(-scores.entropy(*dense) - boundary) < 0.0005  # a bin is 0.0014 wide
    called = compat.golatkar_mia(members, others, (dense[0][near], dense[1][near]))
    assert near.sum() > 20
    assert called.mean() == pytest.approx(0.5, abs=0.15)
