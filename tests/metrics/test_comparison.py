"""A network beside its references: controls, composites by hand, intervals."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from orthounlearn.metrics import findings as module
from orthounlearn.metrics.comparison import (
    against_both,
    composite_intervals,
    composites,
    distance_samples,
    floors,
    neighbour_samples,
)
from orthounlearn.metrics.findings import compare
from orthounlearn.metrics.sample import Mean, Part, Sample, gap_intervals, values
from orthounlearn.metrics.suite import Outputs, audit, samples
from tests.metrics.toy_outputs import NAMES, RETRAINED, findings, full, outputs


def test_the_retrained_network_against_itself_has_no_gap():
    retrained = outputs(masked=True)
    values = full(retrained, retrained, outputs(leak=3))
    gaps = {k: v for k, v in values.items() if k.endswith("_gap") or k.startswith(("kl/", "js/"))}
    assert all(value == 0 for value in gaps.values() if not np.isnan(value))
    assert (values["tow"], values["avg_gap"], values["routing_js"]) == (1, 0, 0)


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


def test_references_meet_each_other_once(monkeypatch: pytest.MonkeyPatch):
    """A table's references are the same for each method, and so is what lies between them."""
    original, *retrained = (findings(outputs(masked=seed > 0, seed=seed)) for seed in range(3))
    asked: list[Outputs] = []
    plain = module.distance_samples

    def watched(one: Outputs, others: Sequence[Outputs]) -> dict[str, Sample]:
        asked.append(one)
        return plain(one, others)

    monkeypatch.setattr(module, "distance_samples", watched)
    methods = [findings(outputs(leak=leak, seed=5)) for leak in (0, 2)]
    beside = [compare(ours, original, retrained) for ours in methods]
    references = [original.outputs, *(one.outputs for one in retrained)]
    assert asked == [methods[0].outputs, *references, methods[1].outputs]
    assert beside[0] == pytest.approx(beside[1], nan_ok=True, abs=0)
    alone = compare(
        findings(outputs(seed=5)), original, retrained[:1]
    )  # beside others it is another distance
    assert alone["original/js/forget"] != beside[0]["original/js/forget"]
