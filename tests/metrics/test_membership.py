"""Membership attacks on networks whose leak is known."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.svm import SVC

from orthounlearn.metrics import compat, membership, scores
from orthounlearn.metrics.roc import auc

SCORES = ("conf", "margin", "entropy", "mentr", "rest", "lr")


def logits(count: int, gain: float, *, label: int = 0, classes: int = 5, seed: int = 0):
    """Random logits with `gain` more for the label, and the labels."""
    z = np.random.default_rng(seed).normal(size=(count, classes)) * 2
    z[:, label] += gain
    return z.astype(np.float32), np.full(count, label)


def test_keys_and_ranges():
    found = membership.population_attacks(*logits(300, 3), *logits(200, 2, seed=1), forget=[0])
    assert found.keys() == {
        f"pop_{s}/{k}" for s in SCORES for k in ("auc", "adv", "tpr@fpr1e-2", "tpr@fpr5e-2", "bacc")
    }
    defined = [value for value in found.values() if not np.isnan(value)]
    assert all(0 <= value <= 1 for value in defined)


def test_no_leak_is_one_half():
    """Members and others of one distribution: every attack is at chance (3 standard errors)."""
    found = membership.population_attacks(*logits(900, 3), *logits(900, 3, seed=1), forget=[0])
    error = np.sqrt((2 * 900 + 1) / (12 * 900 * 900))  # of AUC under the null
    for score in SCORES:
        assert abs(found[f"pop_{score}/auc"] - 0.5) < 3 * error, score


def test_a_leak_is_found_by_every_score_that_can_see_it():
    found = membership.population_attacks(*logits(500, 8), *logits(500, 3, seed=1), forget=[0])
    for score in ("conf", "margin", "entropy", "mentr", "lr"):
        assert found[f"pop_{score}/auc"] > 0.8, score


def test_masked_logit_hides_the_loss_but_not_the_rest():
    """What is left of a class beside its own logit still tells members from others."""
    members, labels = logits(500, 3)
    others, other_labels = logits(500, 3, seed=1)
    members[:, 1] += 5  # the trained network puts members near class 1 too
    members[:, 0] = others[:, 0] = -1e4
    found = membership.population_attacks(members, labels, others, other_labels, forget=[0])
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
    apart = membership.population_attacks(*members, *others, forget=[0, 1])
    assert apart["pop_conf/auc"] == pytest.approx(0.5, abs=0.06)
    from orthounlearn.metrics.scores import confidence

    assert auc(confidence(*members), confidence(*others)) > 0.6  # the mistake that is avoided


def test_learned_attack_sees_members_in_the_middle():
    """Others lie on both sides of the members: one threshold finds nothing, |x| finds all."""
    rng = np.random.default_rng(0)
    members = rng.normal(0, 0.2, (300, 1))
    others = rng.choice([-2, 2], (300, 1)) + rng.normal(0, 0.2, (300, 1))
    features = [np.column_stack([side, np.abs(side)]) for side in (members, others)]
    plain = membership.learned_attack(members, others)
    both = membership.learned_attack(*features)
    assert auc(*plain) < 0.65
    assert auc(*both) == 1


def test_learned_attack_never_judges_what_it_was_fitted_on():
    """60 features, 40 images: an attacker that sees its images separates pure noise."""
    rng = np.random.default_rng(0)
    areas = [
        auc(*membership.learned_attack(*rng.normal(size=(2, 20, 60)), seed=s)) for s in range(20)
    ]
    assert np.mean(areas) == pytest.approx(0.5, abs=0.08)


def test_too_few_images_are_undefined():
    found = membership.population_attacks(*logits(3, 3), *logits(3, 3, seed=1), forget=[0])
    assert np.isnan(found["pop_lr/auc"])
    assert np.isnan(found["pop_conf/tpr@fpr1e-2"])


def test_bootstrap_interval_holds_the_difference():
    rng = np.random.default_rng(0)
    members, others = rng.normal(1, 1, 300), rng.normal(0, 1, 300)
    low, high = membership.paired_bootstrap((members, others), (rng.normal(0, 1, 300), others))
    assert 0 < low < auc(members, others) - 0.5 < high
    assert membership.paired_bootstrap((members, others), (members, others)) == (0, 0)


def test_bootstrap_is_the_auc_of_each_resample():
    rng = np.random.default_rng(3)
    sides = rng.normal(size=(4, 12)).round(1)  # with ties
    found = membership.paired_bootstrap((sides[0], sides[1]), (sides[2], sides[3]), rounds=200)
    draw = np.random.default_rng(0)
    weights = (
        draw.multinomial(12, np.full(12, 1 / 12), 200),
        draw.multinomial(12, np.full(12, 1 / 12), 200),
    )
    slow = [
        roc_auc_score([1] * 12 + [0] * 12, np.r_[sides[0], sides[1]], sample_weight=np.r_[m, o])
        - roc_auc_score([1] * 12 + [0] * 12, np.r_[sides[2], sides[3]], sample_weight=np.r_[m, o])
        for m, o in zip(*weights, strict=True)
    ]
    np.testing.assert_allclose(found, np.quantile(slow, [0.025, 0.975]), atol=1e-9)


@pytest.mark.slow
def test_bootstrap_interval_covers_the_null():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        draw = rng.normal(size=(4, 100))
        low, high = membership.paired_bootstrap((draw[0], draw[1]), (draw[2], draw[3]), rounds=400)
        covered += low <= 0 <= high
    assert 0.91 <= covered / 400 <= 0.98


@pytest.mark.parametrize(("gain", "efficacy", "golatkar"), [(12, 0, 1), (-12, 1, 0)])
def test_figures_of_other_codebases_point_as_they_do(gain: float, efficacy: float, golatkar: float):
    """D_f like members: SalUn 0, Golatkar 1; D_f unlike members: the other way round."""
    members, others = logits(400, 12), logits(400, 2, seed=1)
    asked = logits(200, gain, seed=2)
    if gain < 0:  # no class stands out
        asked = (asked[0] * 0, asked[1])
    found = compat.salun_efficacy(members, others, asked)
    assert found["salun_confidence"] == pytest.approx(efficacy, abs=0.1)
    assert compat.golatkar_mia(members, others, asked) == pytest.approx(golatkar, abs=0.1)


def test_figures_of_other_codebases_need_images():
    empty = np.empty((0, 5), np.float32), np.empty(0, np.int64)
    assert np.isnan(compat.golatkar_mia(logits(9, 1), logits(9, 1), empty))


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
        ("correctness", scores.correctness),
    ):
        sides = np.concatenate([feature(*members), feature(*others)])[:, None]
        plain = SVC(C=3, gamma="auto").fit(sides, np.repeat([1, 0], 400))
        called = plain.predict(feature(*asked)[:, None]).mean()
        assert found[f"salun_{name}"] == pytest.approx(1 - called, abs=0.005)
