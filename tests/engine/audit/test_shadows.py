"""Shadows on real digits: halves are honest, and controls come out as they must."""

from collections.abc import Callable

import numpy as np
import pytest

from orthounlearn.data.splits import Splits
from orthounlearn.engine.audit import shadows
from orthounlearn.engine.audit.shadows import Family, attack, attack_figures, shadow_audit
from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.request import open_request
from orthounlearn.engine.store import ensure_trained, stored_model
from orthounlearn.engine.train import train
from orthounlearn.errors import UsageError
from orthounlearn.metrics import roc
from orthounlearn.metrics.sample import values
from orthounlearn.metrics.shadow import balanced_membership
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


def test_the_job_train_makes_the_networks_that_the_audit_reads(job, open_shared):
    audited = job("mask_logit", "recipe.epochs=1")
    for option, what in (
        (("shadow=1",), {"shadow": 1, "seed": 1}),
        (("shadow=2", "without=3"), {"shadow": 2, "seed": 2, "without": FORGET}),
        (("without=[3]", "seed=5"), {"without": FORGET, "seed": 5}),
    ):
        made = train(open_shared("recipe.epochs=1", *option, job="train"))
        assert made == stored_model(audited, **what)
        assert made.is_trained


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
    figures = shadow_audit(experiment, experiment.splits(FORGET)).figures
    assert set(figures) == {"original", "unlearned"}
    same = {key: figures["unlearned"][key] for key in figures["original"]}
    np.testing.assert_equal(same, figures["original"])
    assert 0 <= figures["original"]["lira/auc"] <= 1


def test_each_attack_has_its_curve(job):
    """The area under it is the mean AUC, less what the steps of ties and of the grid hide."""
    experiment = job("original")
    found = shadow_audit(experiment, experiment.splits(FORGET))
    assert set(found.curves) == set(found.figures)
    for name in ("lira", "lira/rest", "rmia", "lira/retained"):
        curve_T = found.curves["original"][name]
        known_T = np.isfinite(curve_T)
        area = np.trapezoid(curve_T[known_T], roc.CURVE_FPR[known_T])
        key = f"{name}/auc" if "/" not in name else f"{name}_auc"
        assert -0.1 < area - found.figures["original"][key] < 0.01, name


def test_a_masked_logit_hides_nothing_from_the_attack(job):
    """The mask shifts every margin of the class alike, so each likelihood ratio stays."""
    experiment = job("mask_logit")
    figures = shadow_audit(experiment, experiment.splits(FORGET)).figures
    for key in ("lira/auc", "lira/worst5"):
        assert figures["unlearned"][key] == pytest.approx(figures["original"][key], abs=0.02)


def test_retrained_shadows_give_the_negative_control(job):
    experiment = job("retrain", "metrics.reference=train")
    figures = shadow_audit(experiment, experiment.splits(FORGET)).figures
    # The method is retraining itself: the same networks.
    same = {key: figures["unlearned"][key] for key in figures["retrained"]}
    np.testing.assert_equal(same, figures["retrained"])
    # Nobody saw the class: no attack tells the halves apart, beyond chance on 130 images.
    assert abs(figures["retrained"]["lira/auc"] - 0.5) < 0.1
    kept = job("original", "metrics.reference=train")
    known = shadow_audit(kept, kept.splits(FORGET)).figures["unlearned"]
    # A few shadows fit two Gaussians roughly, so chance alone moves the figure by nearly one nat.
    assert abs(figures["unlearned"]["ulira/efficacy_llr"]) < 0.5 * known["ulira/efficacy_llr"]
    assert figures["unlearned"]["ulira/efficacy_auc"] == 0.5  # the same scores on both sides
    assert (
        figures["unlearned"]["lira/auc_gap_low"] == figures["unlearned"]["rmia/auc_gap_high"] == 0
    )
    for attack_on in ("lira/", "lira/rest_", "rmia/", "lira/retained_"):
        gap = known[f"{attack_on}auc"] - figures["retrained"][f"{attack_on}auc"]
        low, high = (known[f"{attack_on}auc_gap_{end}"] for end in ("low", "high"))
        assert low < gap < high
    assert known["ulira/efficacy_auc"] > 0.9
    assert figures["unlearned"]["ulira/rest_efficacy_auc"] == 0.5


def test_efficacy_without_the_class_cannot_be_silenced_by_its_logit(job):
    """A masked logit moves the margin beyond recognition, and leaves the others as they were."""
    experiment = job("mask_logit", "metrics.reference=train")
    masked = shadow_audit(experiment, experiment.splits(FORGET)).figures["unlearned"]
    kept = job("original", "metrics.reference=train")
    known = shadow_audit(kept, kept.splits(FORGET)).figures["unlearned"]
    for key in ("ulira/rest_efficacy_llr", "ulira/rest_efficacy_auc"):
        assert masked[key] == pytest.approx(known[key], abs=1e-6)
    assert masked["ulira/efficacy_llr"] != pytest.approx(known["ulira/efficacy_llr"], abs=0.1)


def test_the_requests_of_other_seeds_are_attacked_with_the_same_answers(
    job, monkeypatch: pytest.MonkeyPatch
):
    first = job("zero_row")
    before = shadow_audit(first, first.splits(FORGET)).figures
    monkeypatch.setattr(shadows, "run_once", None)  # nothing is unlearned again
    second = job("zero_row", "seed=1")
    np.testing.assert_equal(shadow_audit(second, second.splits(FORGET)).figures, before)
    other = job("soft_prune", "method.rate=0.4")
    with pytest.raises(TypeError, match="not callable"):
        shadow_audit(other, other.splits(FORGET))


def test_a_pool_says_how_large_it_is(job):
    experiment = job("original")
    figures = shadow_audit(experiment, experiment.splits(FORGET)).figures["unlearned"]
    pool = {key: value for key, value in figures.items() if key.startswith("shadows/")}
    assert pool == {"shadows/count": 6, "shadows/fewest_in": 2, "shadows/fewest_out": 2}


@pytest.mark.parametrize("without", [(), FORGET])
def test_shadows_of_another_design_are_refused(job, without: tuple[int, ...]):
    """What a stored shadow was trained on is read from its folder, not drawn again."""
    experiment = job("retrain", "metrics.reference=train", "recipe.epochs=1")
    shadow_audit(experiment, experiment.splits(FORGET))
    stored = stored_model(experiment, without=without, seed=2, shadow=2)
    honest = Splits.load(stored.folder / "splits.npz")
    other = experiment.splits(without, shadow=3)  # the complement
    other.save(stored.folder / "splits.npz")
    with pytest.raises(UsageError, match=r"shadow 2 in .* trained on its half .* on others"):
        shadow_audit(experiment, experiment.splits(FORGET))
    honest.save(stored.folder / "splits.npz")
    shadow_audit(experiment, experiment.splits(FORGET))


@pytest.mark.parametrize("count", [7, 4, 2])
def test_too_few_shadows_are_refused(job, count: int):
    with pytest.raises(UsageError, match="even number of at least 6"):
        open_request(job("original", f"metrics.shadows={count}", "forget=3"))


def test_a_family_is_made_of_the_networks_in_order():
    def outputs(gain: float) -> Outputs:
        logits = np.array([[gain, 0.0], [0.0, gain]], np.float32)
        names = ("forget_train", "forget_probe", "retain_train")
        return Outputs(dict.fromkeys(names, logits), dict.fromkeys(names, np.array([0, 0])))

    family = Family.of([outputs(1.0), outputs(2.0)])
    np.testing.assert_allclose(family.forget_KN, [[1, -1], [2, -2]])
    assert family.labels_N.tolist() == family.population_labels_Z.tolist() == [0, 0]
    np.testing.assert_allclose(family.population_KZ, -np.log1p(np.exp([[-1, 1], [-2, 2]])))
    assert family.rest_KN.tolist() == [[0, 0], [0, 0]]  # one class is left


def test_a_clamped_logit_hides_from_the_margin_and_not_from_the_other_classes():
    """What the class's own logit no longer says, those of the others may still give away."""
    rng = np.random.default_rng(0)
    member_KN = balanced_membership(400, 6, 0)
    retained_KM = balanced_membership(100, 6, 1)

    def outputs(k: int) -> Outputs:
        logits = rng.normal(size=(400, 3))
        logits[:, 0] = -40  # clamped
        logits[:, 1] += 3 * member_KN[k]  # a member is also more surely no dog
        logits[:, 1:] += 30 * rng.normal(size=(400, 1))  # which the clamped one's margin drowns in
        retained = rng.normal(size=(100, 3))
        return Outputs(
            {"forget_train": logits, "forget_probe": logits[:40], "retain_train": retained},
            {"forget_train": np.zeros(400, int), "forget_probe": np.zeros(40, int),
             "retain_train": np.ones(100, int)},
        )  # fmt: skip

    networks = [outputs(k) for k in range(6)]
    family = Family.of(networks)
    others = np.stack([np.diff(one.logits["forget_train"][:, 1:])[:, 0] for one in networks])
    np.testing.assert_allclose(family.rest_KN, np.abs(others))  # margin of the stronger of two
    members = {"forget_train": member_KN, "retain_train": retained_KM}
    attacks = attack(family, members)
    found = attack_figures(attacks)
    of_images = values({name: scores.sample for name, scores in attacks.items()})
    assert of_images == pytest.approx({key: found[key] for key in of_images}, nan_ok=True)
    assert {"lira/auc", "lira/retained_tpr@fpr5e-2", "rmia/tpr@fpr1e-2"} < of_images.keys()
    assert found["lira/rest_auc"] > 0.8
    assert found["lira/auc"] < 0.65


def test_several_forgotten_classes_are_attacked_apart():
    """The figures of two classes are the means of those of each alone, whatever the other says."""
    rng = np.random.default_rng(0)
    member_KN = balanced_membership(80, 6, 0)
    labels_N, labels_Z = np.repeat([0, 1], 40), np.repeat([0, 1], 30)

    def family(of_N: np.ndarray, of_Z: np.ndarray) -> Family:
        return Family(
            labels_N[of_N], *[phi_KN[:, of_N]] * 4, labels_Z[of_Z], phi_KZ[:, of_Z]
        )  # fmt: skip

    def figures(of: Family, member_KN: np.ndarray) -> dict[str, float]:
        return attack_figures(attack(of, {"forget_train": member_KN, "retain_train": member_KN}))

    # The first class alone is remembered; the second moves by more from one network to the next.
    phi_KN = rng.normal(size=(6, 80)) + 2 * member_KN * (labels_N == 0)
    phi_KZ = rng.normal(size=(6, 60))
    shift_K = 5 * rng.normal(size=(6, 1))
    phi_KN, phi_KZ = phi_KN - 9 - shift_K * labels_N, phi_KZ - 9 - shift_K * labels_Z
    each = [
        figures(family(labels_N == c, labels_Z == c), member_KN[:, labels_N == c]) for c in (0, 1)
    ]
    both = figures(family(labels_N >= 0, labels_Z >= 0), member_KN)
    assert both["rmia/auc"] == pytest.approx(np.mean([one["rmia/auc"] for one in each]))
    assert each[0]["rmia/auc"] > 0.8
    assert each[1]["rmia/auc"] == pytest.approx(0.5, abs=0.1)


def test_a_large_pool_gives_each_image_its_own_deviation():
    """Half of the images have a wide spread; pooled, it would drown what the others give away."""
    rng = np.random.default_rng(0)
    count, images = 80, 60
    member_KN = balanced_membership(images, count, seed=0)
    spread_N = np.where(np.arange(images) < images // 2, 0.1, 10.0)
    phi_KN = member_KN * 0.3 + rng.normal(size=(count, images)) * spread_N
    family = Family(
        labels_N=np.zeros(images, int), forget_KN=phi_KN, rest_KN=phi_KN, retain_KM=phi_KN,
        confidence_KN=-np.exp(-phi_KN), population_labels_Z=np.zeros(5, int),
        population_KZ=-np.exp(-rng.normal(size=(count, 5))),
    )  # fmt: skip
    members = {"forget_train": member_KN, "retain_train": member_KN}
    large = attack_figures(attack(family, members))["lira/auc"]

    def cut(values_K: np.ndarray) -> np.ndarray:
        return values_K[:8]

    rows = {"forget_train": cut(member_KN), "retain_train": cut(member_KN)}
    fields = {
        name: cut(value) if name.endswith(("_KN", "_KM", "_KZ")) else value
        for name, value in vars(family).items()
    }
    small = attack_figures(attack(Family(**fields), rows))["lira/auc"]
    assert large > small + 0.05
