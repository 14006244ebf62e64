"""Shadows on real digits: halves are honest, and controls come out as they must."""

from collections.abc import Callable

import numpy as np
import pytest

from orthounlearn.data.splits import Splits
from orthounlearn.engine.audit.shadows import Family, shadow_audit
from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.store import ensure_trained, stored_model
from orthounlearn.errors import UsageError
from orthounlearn.metrics.suite import Outputs

FORGET = (3,)
SIX = ("metrics.shadows=6",)


@pytest.fixture(scope="module")
def job(open_shared) -> Callable[..., Experiment]:
    return lambda method, *more: open_shared(f"method={method}", *SIX, *more)


def test_each_image_is_in_half_of_the_shadows(job):
    experiment = job("original")
    member_KN = experiment.shadow_members(4)
    assert member_KN.shape == (4, len(experiment.data.train.labels_N))
    assert (member_KN.sum(0) == 2).all()
    # A larger pool begins with the smaller one, so that nothing is trained again.
    np.testing.assert_array_equal(experiment.shadow_members(8)[:4], member_KN)
    np.testing.assert_array_equal(experiment.shadow_members(3), member_KN[:3])


def test_a_shadow_is_trained_on_its_half_and_nothing_else(job):
    experiment = job("original")
    stored = ensure_trained(experiment, seed=1, shadow=1)
    trained_on = Splits.load(stored.folder / "splits.npz")
    all_of_it, members = experiment.splits(), experiment.shadow_members(2)[1]
    expected = [index for index in all_of_it.retain_train if members[index]]
    assert trained_on.retain_train.tolist() == expected
    assert trained_on.retain_val.tolist() == all_of_it.retain_val.tolist()
    assert "shadow1" in stored.folder.name


def test_shadows_have_keys_of_their_own_and_leave_the_others_alone(job):
    experiment = job("original")
    keys = {stored_model(experiment, seed=0, shadow=k).key for k in (None, 0, 1)}
    assert len(keys) == 3
    assert experiment.training_key(without=(), seed=0) == stored_model(experiment, seed=0).key


def test_a_request_on_a_shadow_forgets_its_own_half_of_the_class(job):
    experiment = job("original")
    full, half = experiment.splits(FORGET), experiment.splits(FORGET, shadow=2)
    members = experiment.shadow_members(4)[2]
    assert half.forget_train.tolist() == [i for i in full.forget_train if members[i]]
    assert half.retain_train.tolist() == [i for i in full.retain_train if members[i]]
    assert half.forget_test.tolist() == full.forget_test.tolist()


def test_doing_nothing_leaves_what_the_positive_control_finds(job):
    experiment = job("original")
    figures = shadow_audit(experiment, experiment.splits(FORGET))
    assert set(figures) == {"original", "unlearned"}
    np.testing.assert_equal(figures["unlearned"], figures["original"])
    assert 0 <= figures["original"]["lira/auc"] <= 1


def test_a_masked_logit_hides_nothing_from_the_attack(job):
    """The mask shifts every margin of the class alike, so each likelihood ratio stays."""
    experiment = job("mask_logit")
    figures = shadow_audit(experiment, experiment.splits(FORGET))
    for key in ("lira/auc", "lira/worst5"):
        assert figures["unlearned"][key] == pytest.approx(figures["original"][key], abs=0.02)


def test_retrained_shadows_give_the_negative_control(job):
    experiment = job("retrain", "metrics.reference=train")
    figures = shadow_audit(experiment, experiment.splits(FORGET))
    # The method is retraining itself: the same networks.
    same = {key: figures["unlearned"][key] for key in figures["retrained"]}
    np.testing.assert_equal(same, figures["retrained"])
    # Nobody saw the class: no attack tells the halves apart, beyond chance on 130 images.
    assert abs(figures["retrained"]["lira/auc"] - 0.5) < 0.1
    kept = job("original", "metrics.reference=train")
    known = shadow_audit(kept, kept.splits(FORGET))["unlearned"]["lira/efficacy"]
    # A few shadows fit two Gaussians roughly, so chance alone moves the figure by nearly one nat.
    assert abs(figures["unlearned"]["lira/efficacy"]) < 0.5 * known


@pytest.mark.parametrize("count", [7, 4, 2])
def test_too_few_shadows_are_refused(job, count: int):
    experiment = job("original", f"metrics.shadows={count}")
    with pytest.raises(UsageError, match="even number of at least 6"):
        shadow_audit(experiment, experiment.splits(FORGET))


def test_a_family_is_made_of_the_networks_in_order():
    def outputs(gain: float) -> Outputs:
        logits = np.array([[gain, 0.0], [0.0, gain]], np.float32)
        names = ("forget_train", "forget_probe", "retain_train")
        return Outputs(dict.fromkeys(names, logits), dict.fromkeys(names, np.array([0, 0])))

    family = Family.of([outputs(1.0), outputs(2.0)])
    np.testing.assert_allclose(family.forget_KN, [[1, -1], [2, -2]])
    np.testing.assert_allclose(family.population_KZ, -np.log1p(np.exp([[-1, 1], [-2, 2]])))
