"""The audit of one network: positive and negative controls, what changes nothing, the catalog."""

from dataclasses import replace

import numpy as np
import pytest

from orthounlearn.metrics.catalog import figure
from orthounlearn.metrics.sample import values
from orthounlearn.metrics.suite import Outputs, audit, samples
from tests.metrics.toy_outputs import NAMES, RETRAINED, full, outputs


def test_every_figure_is_in_the_catalog():
    values = full(outputs(leak=3), RETRAINED, outputs(leak=3))
    for key in values:
        assert figure(key).formula
    with pytest.raises(KeyError):
        figure("acc/unheard_of")


def test_positive_and_negative_controls():
    leaking = audit(outputs(leak=4), forget=[0], class_names=NAMES)
    clean = audit(outputs(leak=0), forget=[0], class_names=NAMES)
    assert leaking["mia/pop_margin/auc"] > 0.8
    assert clean["mia/pop_margin/auc"] == pytest.approx(0.5, abs=0.07)


def test_a_network_without_features_is_audited_without_probes():
    values = audit(replace(outputs(), features={}), forget=[0], class_names=NAMES)
    assert not any(key.startswith(("probe/", "proto/", "depth/")) for key in values)


def test_further_probes_of_every_block():
    few = audit(RETRAINED, forget=[0], class_names=NAMES)
    names = ["k10", "k50", "kall"]
    more = values(samples(RETRAINED, forget=[0], class_names=NAMES, block_probes=names))
    assert few == pytest.approx({key: more[key] for key in few}, nan_ok=True)
    added = {f"depth_{name}/{block}" for name in names for block in "12"}
    assert more.keys() - few.keys() == added
    assert [more[f"depth_k50/{block}"] for block in "12"] == [more[f"depth/{b}"] for b in "12"]
    assert more["probe/depth"] == pytest.approx((more["depth/1"] + more["depth/2"]) / 2)


def test_gap_of_a_pattern_is_a_gap():
    assert figure("probe/k50_gap").heading == "Δ Probe recall"
    assert figure("loss/forget_test_gap").target == "low"
    assert figure("probe/k50_index").heading == "Probe index"
    assert figure("avg_gap").heading == "Avg. gap"
    assert figure("avg_gap_gap").heading == "Δ Avg. gap"
    assert figure("probe/k50_gap_low").target == "info"


def test_the_name_of_a_class_is_no_interval():
    assert figure("acc/retain_test_per_class/very_low").heading == "Retain test, very_low"
    assert figure("depth/index_low").heading == "Depth index, from"
    assert figure("avg_gap_low").heading == "Avg. gap, from"


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
