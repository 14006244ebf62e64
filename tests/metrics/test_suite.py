"""The audit as a whole: positive and negative controls, composites, the catalog."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from orthounlearn.metrics.catalog import figure
from orthounlearn.metrics.sample import Mean, Part, gap_intervals, values
from orthounlearn.metrics.suite import (
    AUDITED,
    CLASSIFIER,
    Outputs,
    against_both,
    against_original,
    audit,
    composite_intervals,
    composites,
    distance_samples,
    floors,
    gaps,
    neighbour_samples,
    probed_layers,
    samples,
)

NAMES = ("a", "b", "c", "d")


def outputs(
    *,
    gain: float = 6.0,
    leak: float = 0.0,
    masked: bool = False,
    known: float = 6.0,
    seed: int = 0,
) -> Outputs:
    """A network that knows all classes; class 0 is the forgotten one.

    Its features separate the classes by `gain`, the forgotten one by `known`.
    """
    rng = np.random.default_rng(seed)
    logits, labels, features = {}, {}, {}
    for split in AUDITED:
        count = 300
        truth = np.zeros(count, int) if split.startswith("forget") else rng.integers(1, 4, count)
        z = rng.normal(size=(count, 4)) * 2
        z[np.arange(count), truth] += gain + (leak if split == "forget_train" else 0)
        if masked:
            z[:, 0] = -1e4
        logits[split], labels[split] = z.astype(np.float32), truth
        features[split] = {}
        for layer in probed_layers(split, ("1", "2", CLASSIFIER)):
            h = rng.normal(size=(count, 4)) * 2
            h[np.arange(count), truth] += np.where(truth == 0, known, gain)
            features[split][layer] = h.astype(np.float16)
    return Outputs(logits, labels, features)


def full(ours: Outputs, retrained: Outputs, original: Outputs) -> dict[str, float]:
    networks = ours, retrained, original
    found = [audit(one, forget=[0], class_names=NAMES) for one in networks]
    for figures, attack in zip(found, neighbour_samples(networks, [retrained]), strict=True):
        figures |= values(attack)
    figures, theirs, before = found
    figures |= against_original(figures, before)
    figures |= against_both(figures, before, theirs)
    figures |= values(distance_samples(ours, [retrained])) | composites(figures, theirs)
    return figures | gaps(figures, theirs)


RETRAINED = outputs(masked=True, known=0.0, seed=1)


def test_every_figure_is_in_the_catalog():
    values = full(outputs(leak=3), RETRAINED, outputs(leak=3))
    for key in values:
        assert figure(key).formula
    with pytest.raises(KeyError):
        figure("acc/unheard_of")


def test_the_retrained_network_against_itself_has_no_gap():
    retrained = outputs(masked=True)
    values = full(retrained, retrained, outputs(leak=3))
    gaps = {k: v for k, v in values.items() if k.endswith("_gap") or k.startswith(("kl/", "js/"))}
    assert all(value == 0 for value in gaps.values() if not np.isnan(value))
    assert (values["tow"], values["avg_gap"], values["routing_js"]) == (1, 0, 0)


def test_positive_and_negative_controls():
    leaking = audit(outputs(leak=4), forget=[0], class_names=NAMES)
    clean = audit(outputs(leak=0), forget=[0], class_names=NAMES)
    assert leaking["mia/pop_margin/auc"] > 0.8
    assert clean["mia/pop_margin/auc"] == pytest.approx(0.5, abs=0.07)


def test_a_masked_logit_passes_the_outputs_and_fails_the_probe():
    """The reason why there are probes: the mask changes no feature."""
    original, mask = outputs(leak=3), outputs(leak=3, masked=True)
    values = full(mask, RETRAINED, original)
    assert values["acc/forget_test"] == 0
    assert values["acc/forget_test_gap"] == 0
    assert values["probe/k50"] == audit(original, forget=[0], class_names=NAMES)["probe/k50"]
    assert values["probe/k50_index"] == 1
    assert values["probe/k50_gap"] > 0.1
    itself = full(RETRAINED, RETRAINED, original)
    assert (itself["probe/k50_index"], itself["probe/k10_index"]) == (0, 0)


def test_a_network_without_features_is_audited_without_probes():
    values = audit(replace(outputs(), features={}), forget=[0], class_names=NAMES)
    assert not any(key.startswith(("probe/", "proto/", "depth/")) for key in values)


def test_depth_profile_and_its_index():
    original = outputs(leak=3)
    values = full(outputs(known=3.0, masked=True, seed=2), RETRAINED, original)
    before = audit(original, forget=[0], class_names=NAMES)
    after = audit(RETRAINED, forget=[0], class_names=NAMES)
    assert 0 < values["depth/index"] < 1
    blocks = ("depth/1", "depth/2")
    assert values["depth/index"] == pytest.approx(
        sum(values[b] - after[b] for b in blocks) / sum(before[b] - after[b] for b in blocks)
    )
    assert full(outputs(leak=3, masked=True), RETRAINED, original)["depth/index"] == 1


def test_further_probes_of_every_block():
    few = audit(RETRAINED, forget=[0], class_names=NAMES)
    names = ["k10", "k50", "kall"]
    more = values(samples(RETRAINED, forget=[0], class_names=NAMES, block_probes=names))
    assert few == pytest.approx({key: more[key] for key in few}, nan_ok=True)
    added = {f"depth_{name}/{block}" for name in names for block in "12"}
    assert more.keys() - few.keys() == added
    assert [more[f"depth_k50/{block}"] for block in "12"] == [more[f"depth/{b}"] for b in "12"]
    assert more["probe/depth"] == pytest.approx((more["depth/1"] + more["depth/2"]) / 2)


def test_distances_are_means_over_the_retrained_networks():
    others = [outputs(known=0.0, gain=gain, seed=seed) for seed, gain in ((1, 1.0), (2, 3.0))]
    each = [values(distance_samples(outputs(), [one])) for one in others]
    both = values(distance_samples(outputs(), others))
    assert both.keys() == {"kl/forget", "kl/retain", "js/forget", "js/retain", "routing_js"}
    for key in both:
        assert each[0][key] != each[1][key]
        assert both[key] == pytest.approx((each[0][key] + each[1][key]) / 2)


def test_kl_is_from_the_retrained_network_to_the_other():
    ours, retrained = outputs(), outputs(known=0.0, gain=1.0, seed=1)
    p, q = (
        np.exp(z := one.logits["forget_test"].astype(float)) / np.exp(z).sum(1, keepdims=True)
        for one in (retrained, ours)
    )
    expected = (p * np.log(p / q)).sum(1).mean()
    assert values(distance_samples(ours, [retrained]))["kl/forget"] == pytest.approx(expected)


def test_distances_beyond_those_among_the_retrained_have_an_interval():
    """Its ends hold the gap; 0 lies within for one more retrained network, not for another kind."""
    retrained = [outputs(masked=True, gain=3.0, seed=seed) for seed in (1, 2, 3)]
    among = [distance_samples(a, [b for b in retrained if b is not a]) for a in retrained]

    def found(one: Outputs) -> dict[str, tuple[float, float]]:
        ours = distance_samples(one, retrained)
        ends = gap_intervals(ours, among)
        floor = {key: np.mean([values(each)[key] for each in among]) for key in values(ours)}
        for key, value in values(ours).items():
            assert ends[f"{key}_gap_low"] < value - floor[key] < ends[f"{key}_gap_high"]
        return {key: (ends[f"{key}_gap_low"], ends[f"{key}_gap_high"]) for key in floor}

    alike = found(outputs(masked=True, gain=3.0, seed=4))
    assert all(low < 0 < high for low, high in alike.values())
    other = found(outputs(known=9.0, seed=4))
    assert all(low > 0 for low, _ in other.values())


def test_floors_are_mean_differences_of_retrained_pairs():
    networks = [outputs(masked=True, seed=seed) for seed in (1, 2, 3)]
    figures = [audit(one, forget=[0], class_names=NAMES) for one in networks]
    recalls = [one["probe/k50"] for one in figures]
    expected = np.mean([abs(a - b) for a, b in combinations(recalls, 2)])
    assert expected > 0
    assert floors(figures)["probe/k50"] == pytest.approx(expected)
    assert floors(figures[:1]) == {}


def test_neighbour_attack_has_no_gap_to_itself_and_none_without_two_classes_that_stay():
    figures = full(RETRAINED, RETRAINED, outputs(leak=3))
    assert figures["mia/neighbour/auc_gap"] == 0
    assert full(outputs(leak=3), RETRAINED, outputs())["mia/neighbour/auc"] < 0.5
    all_but_one = np.arange(300) % (RETRAINED.logits["forget_test"].shape[1] - 1)
    few = replace(RETRAINED, labels=dict(RETRAINED.labels) | {"forget_test": all_but_one})
    assert neighbour_samples([few, RETRAINED], [few]) == [{}, {}]


def test_gap_of_a_pattern_is_a_gap():
    assert figure("probe/k50_gap").heading == "Δ Probe recall"
    assert figure("loss/forget_test_gap").target == "low"
    assert figure("probe/k50_index").heading == "Probe index"
    assert figure("avg_gap").heading == "Avg. gap"
    assert figure("avg_gap_gap").heading == "Δ Avg. gap"
    assert figure("probe/k50_gap_low").target == "info"


def test_what_is_made_of_several_figures_has_an_interval_of_its_own():
    known, ours, retrained = (
        samples(one, forget=[0], class_names=NAMES)
        for one in (outputs(), outputs(masked=True, known=0.4), RETRAINED)
    )
    u, o, r = (values(one) for one in (ours, known, retrained))
    points = against_both(u, o, r) | composites(u, r)
    found = composite_intervals(ours, known, [retrained])
    assert set(found) == {f"{key}_{end}" for key in points for end in ("low", "high")}
    for key, value in points.items():
        assert found[f"{key}_low"] < value < found[f"{key}_high"], key
    assert set(composite_intervals(ours, None, [retrained])) == {
        f"{key}_{end}" for key in ("tow", "avg_gap") for end in ("low", "high")
    }


def test_a_network_is_wholly_itself_on_every_draw():
    """Ends of the scale: the retrained network has index 0 and ToW 1, the original index 1."""
    known, retrained = (
        samples(one, forget=[0], class_names=NAMES) for one in (outputs(), RETRAINED)
    )
    as_retrained = composite_intervals(retrained, known, [retrained])
    as_known = composite_intervals(known, known, [retrained])
    for end in ("low", "high"):
        assert as_retrained[f"probe/k50_index_{end}"] == as_retrained[f"avg_gap_{end}"] == 0
        assert as_retrained[f"tow_{end}"] == as_known[f"probe/k50_index_{end}"] == 1


def test_an_interval_is_that_of_the_draws_by_hand():
    """The bootstrap of an index, drawn anew with the plain formula."""
    rng = np.random.default_rng(0)
    recalls = {name: (rng.random(150) < p).astype(float) for name, p in
               {"u": 0.5, "o": 0.9, "r": 0.3}.items()}  # fmt: skip
    each = {name: {"probe/k50": Mean((Part.whole("forget_test", found_N),))}
            for name, found_N in recalls.items()}  # fmt: skip
    found = composite_intervals(each["u"], each["o"], [each["r"]])
    drawn = rng.integers(150, size=(4000, 150))
    u, o, r = (recalls[name][drawn].mean(1) for name in "uor")
    ends = np.quantile((u - r) / (o - r), [0.025, 0.975])
    assert [found["probe/k50_index_low"], found["probe/k50_index_high"]] == pytest.approx(
        ends, abs=0.02
    )


def test_the_name_of_a_class_is_no_interval():
    assert figure("acc/retain_test_per_class/very_low").heading == "Retain test, very_low"
    assert figure("depth/index_low").heading == "Depth index, from"
    assert figure("avg_gap_low").heading == "Avg. gap, from"


def test_composites_by_hand():
    ours, retrained = outputs(), outputs(masked=True)
    values = full(ours, retrained, ours)
    deltas = [values[f"acc/{s}_gap"] for s in ("forget_train", "retain_train", "retain_test")]
    assert values["tow"] == pytest.approx(np.prod([1 - abs(d) for d in deltas]))
    four = [*deltas, values["compat/salun_confidence_gap"]]
    assert values["avg_gap"] == pytest.approx(np.mean(np.abs(four)))
    assert values["retain_ratio"] == 1
    assert values["acc/nearest_class_drop"] == 0


def test_worst_class_drop_is_of_one_class():
    original, ours = outputs(), outputs()
    hit = ours.labels["retain_test"] == 2
    ours.logits["retain_test"][hit] = 0
    ours.logits["retain_test"][hit, 3] = 9
    values = full(ours, outputs(masked=True), original)
    before = audit(original, forget=[0], class_names=NAMES)["acc/retain_test_per_class/c"]
    assert values["acc/nearest_class_drop"] == before


def test_order_changes_nothing():
    ours = outputs(leak=2)
    order = np.random.default_rng(1).permutation(300)
    turned = Outputs(
        {name: z[order] for name, z in ours.logits.items()},
        {name: y[order] for name, y in ours.labels.items()},
        {
            split: {at: h[order] for at, h in found.items()}
            for split, found in ours.features.items()
        },
    )
    one, other = (audit(o, forget=[0], class_names=NAMES) for o in (ours, turned))
    drawn = (
        "bacc",
        "/lr",
        "pop_lr",
        "compat",
        "probe/",
        "proto/",
        "depth/",
    )  # halves, folds, shots
    for key, value in one.items():
        if not any(part in key for part in drawn) and not np.isnan(value):
            assert other[key] == pytest.approx(value, abs=1e-9), key


def test_logits_in_double_precision_change_nothing():
    """Of a network so sure that float32 holds no 1 − p: the figures are those of the logits."""
    sure = outputs(gain=40.0, leak=10)
    rng = np.random.default_rng(1)

    def in_precision(kind: type[np.floating]) -> Outputs:
        finer = {name: z.astype(np.float64) + 1e-7 * noise[name] for name, z in sure.logits.items()}
        return replace(sure, logits={name: z.astype(kind) for name, z in finer.items()})

    noise = {name: rng.normal(size=z.shape) for name, z in sure.logits.items()}
    single, double = in_precision(np.float32), in_precision(np.float64)
    for name, z in single.logits.items():
        assert (z != double.logits[name]).mean() > 0.9  # they are not the same numbers
    one, other = (audit(o, forget=[0], class_names=NAMES) for o in (single, double))
    for key, value in one.items():
        # Fitted by the SVC and by regressions: these stop at a tolerance of their own.
        abs_ = 0.02 if key.startswith(("compat/", "mia/pop_lr")) else 1e-4
        assert other[key] == pytest.approx(value, abs=abs_, rel=1e-5, nan_ok=True), key


def test_the_same_seed_gives_the_same_audit():
    one, other = (audit(outputs(leak=2), forget=[0], class_names=NAMES, seed=4) for _ in range(2))
    assert {k: v for k, v in one.items() if v == v} == {k: v for k, v in other.items() if v == v}
