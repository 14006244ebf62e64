"""The whole audit of one request on real digits: references, attacks, verdict, certificate."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from orthounlearn.engine.audit.latency import latency
from orthounlearn.engine.audit.network import audit_network
from orthounlearn.engine.audit.predict import predict
from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.request import open_request
from orthounlearn.engine.store import stored_model
from orthounlearn.engine.timing import Timed
from orthounlearn.engine.unlearn import evaluate, unlearn
from orthounlearn.errors import UsageError
from orthounlearn.metrics import suite
from orthounlearn.metrics.catalog import CATALOG, figure
from orthounlearn.metrics.shadow import over_targets
from orthounlearn.metrics.suite import audit
from orthounlearn.metrics.verdict import TITLES
from orthounlearn.report.certificate import NO_SHADOWS

SHORT = (
    "metrics.reference=train", "metrics.relearn.steps=4", "metrics.relearn.every=2",
    "metrics.relearn.learning_rates=[0.01]", "forget=3",
)  # fmt: skip


@pytest.fixture(scope="module")
def full(open_shared) -> tuple[Experiment, dict[str, float | None]]:
    """A request with everything that there is to measure."""
    experiment = open_shared(
        "metrics=full", "metrics.shadows=6", "metrics.reference_seeds=[0,1]", "method=mask_logit",
        *SHORT,
    )  # fmt: skip
    return experiment, unlearn(open_request(experiment))


def folder_of(experiment: Experiment) -> Path:
    return open_request(experiment).folder


def test_every_figure_is_in_the_catalog_and_every_entry_is_used(full):
    _, metrics = full
    keys = {key.partition("/")[2] for key in metrics}
    used = {figure(key).pattern for key in keys}
    assert [entry.pattern for entry in CATALOG if entry.pattern not in used] == []


def test_references_of_several_seeds_give_mean_spread_and_floor(full):
    experiment, metrics = full
    references = json.loads((folder_of(experiment) / "retrained.json").read_text())
    assert [entry["seed"] for entry in references] == [0, 1]
    for seed, entry in enumerate(references):
        assert entry["key"] == stored_model(experiment, without=(3,), seed=seed).key
    both = [entry["figures"]["acc/retain_test"] for entry in references]
    assert metrics["retrained/acc/retain_test"] == pytest.approx(np.mean(both))
    assert metrics["retrained_sd/acc/retain_test"] == pytest.approx(np.std(both, ddof=1))
    floor = metrics["retrained_floor/acc/retain_test"]
    assert floor == pytest.approx(abs(both[0] - both[1]))
    gap = metrics["unlearned/acc/retain_test"] - np.mean(both)
    assert metrics["unlearned/acc/retain_test_gap"] == pytest.approx(gap)
    for key in ("js/forget", "avg_gap"):  # of each to the other
        assert references[0]["figures"][key] == pytest.approx(references[1]["figures"][key])
        assert metrics[f"retrained/{key}"] > 0
    assert metrics["retrained/tow"] < 1


def test_every_figure_over_images_has_an_interval_around_its_gap(full):
    _, metrics = full
    gaps = {k.removeprefix("unlearned/") for k in metrics if k.endswith("_gap") and "avg" not in k}
    without = {key for key in gaps if f"unlearned/{key}_low" not in metrics}
    beginnings = {key.partition("/")[0] for key in without}
    assert beginnings == {"relearn", "lira", "rmia", "privacy", "tow_gap"}
    assert all(key.endswith("/steps_gap") for key in without if key.startswith("relearn/"))
    for key in gaps - without:
        gap, low, high = (metrics[f"unlearned/{key}{end}"] for end in ("", "_low", "_high"))
        if gap is not None and low is not None:
            assert low - 0.02 <= gap <= high + 0.02, key


def test_a_retrained_network_is_compared_with_the_other_ones(full, open_shared):
    _, of_mask = full
    options = ("method=retrain", "metrics=fast", "metrics.reference=train", "forget=3")
    experiment = open_shared("metrics.reference_seeds=[0,1]", *options)
    metrics = unlearn(open_request(experiment))
    (reference,) = json.loads((folder_of(experiment) / "retrained.json").read_text())
    assert reference["seed"] == 1
    assert metrics["unlearned/js/forget"] == pytest.approx(of_mask["retrained/js/forget"])
    both = (metrics["unlearned/acc/retain_test"], metrics["retrained/acc/retain_test"])
    assert np.mean(both) == pytest.approx(of_mask["retrained/acc/retain_test"])
    # Without others it is its own reference, which is no comparison.
    alone = unlearn(open_request(open_shared(*options)))
    assert alone["unlearned/js/forget"] == 0
    assert alone["unlearned/verdict/incomplete"] == 1


def test_a_mask_does_not_stop_probes_and_shadows(full):
    """The output is that of forgetting; what features and likelihood ratios tell is all there."""
    _, metrics = full
    assert metrics["unlearned/acc/forget_test"] == 0
    for key in ("probe/k10", "proto/recall", "depth/1", "lira/auc"):
        assert metrics[f"unlearned/{key}"] == pytest.approx(metrics[f"original/{key}"], abs=0.03)


def test_a_request_is_set_against_the_time_of_retraining(full):
    experiment, metrics = full
    took = [stored_model(experiment, without=(3,), seed=seed).seconds for seed in (0, 1)]
    assert metrics["unlearned/time/retrain_s"] == pytest.approx(np.mean(took))
    request_s = metrics["unlearned/time/unlearn_s"]
    assert metrics["unlearned/time/speedup"] == pytest.approx(np.mean(took) / request_s)


def test_latency_is_that_of_a_forward_pass_beside_the_originals(full):
    experiment, metrics = full
    assert 0.1 < metrics["unlearned/latency/batch128_ratio"] < 10  # the same but for a mask
    net = experiment.new_net(0)
    longer = nn.Sequential(net.stem, *[nn.Sequential(net.blocks[0]) for _ in range(30)]).train()
    found = latency(experiment, longer, net.stem)
    assert found["latency/batch128_ratio"] > 3
    assert found["latency/batch1_ratio"] > 3
    assert longer.training
    assert latency(experiment, net, None).keys() == {"latency/batch1_s", "latency/batch128_s"}


def test_one_headline_and_it_is_the_certificates(full):
    experiment, metrics = full
    votes = {name: metrics[f"unlearned/verdict/{name}"] for name in TITLES}
    assert sorted(votes.values()) == [0.0] * (len(TITLES) - 1) + [1.0]
    record = json.loads((folder_of(experiment) / "audit.json").read_text())
    assert votes[record["verdict"]["headline"]] == 1
    assert record["network"]["hash_taken"] == "when audited"
    for name in ("certificate.md", "certificate.html"):
        assert TITLES[record["verdict"]["headline"]] in (folder_of(experiment) / name).read_text()


def test_curves_are_kept(full):
    experiment, metrics = full
    with np.load(folder_of(experiment) / "curves.npz") as curves:
        assert curves["unlearned/relearn/lr0.01/steps"].tolist() == [0, 2, 4]
        assert curves["unlearned/relearn/lr0.01/forget"].mean() == pytest.approx(
            metrics["unlearned/relearn/lr0.01/area"], abs=1e-6
        )
        attacks = {"mia/pop_margin", "mia/pop_lr", "mia/neighbour", "mia/retained_margin", "lira",
                   "lira/rest", "lira/retained", "rmia"}  # fmt: skip
        for phase in ("original", "unlearned", "retrained"):
            assert attacks <= {k.removeprefix(f"{phase}/roc/") for k in curves}
            assert curves[f"{phase}/relearn/lr0.01/retain"].shape == (3,)
            assert curves[f"{phase}/roc/lira"].shape == curves["fpr"].shape


def test_what_shadows_say_of_each_image_is_kept(full):
    """The stored scores are those that the figures are made of."""
    experiment, metrics = full
    with np.load(folder_of(experiment) / "shadows.npz") as kept:
        member_KN = kept["members/forget_train"]
        for phase in ("original", "unlearned", "retrained"):
            found = over_targets(kept[f"{phase}/lira"].astype(float), member_KN, None)
            assert found["auc"] == pytest.approx(metrics[f"{phase}/lira/auc"], abs=1e-4)
            assert kept[f"{phase}/lira/retained"].shape == kept["members/retain_train"].shape


def test_the_curve_of_the_references_is_the_mean_of_theirs(full):
    experiment, metrics = full
    with np.load(folder_of(experiment) / "curves.npz") as curves:
        for phase in ("original", "retrained"):
            area = metrics[f"{phase}/relearn/lr0.01/area"]
            curve_S = curves[f"{phase}/relearn/lr0.01/forget"]
            assert curve_S.mean() == pytest.approx(area, abs=1e-6)


def test_another_method_pays_for_itself_alone(full, open_shared):
    """Outputs and relearning curves of the references are read, not computed again."""
    experiment, _ = full
    original = stored_model(experiment, seed=0).folder
    before = {path: path.stat().st_mtime_ns for path in original.glob("*.npz")}
    assert any(path.name.startswith("relearn-") for path in before)
    unlearn(open_request(open_shared("metrics=standard", "method=zero_row", *SHORT)))
    assert {path: path.stat().st_mtime_ns for path in original.glob("*.npz")} == before


def test_references_are_measured_once_for_all_methods(open_shared, monkeypatch: pytest.MonkeyPatch):
    seen: list[object] = []
    plain = suite.samples

    def watched(outputs, **options):
        seen.append(outputs)
        return plain(outputs, **options)

    monkeypatch.setattr(suite, "samples", watched)
    runs = []
    for method in ("zero_row", "drop_unit"):
        experiment = open_shared(f"method={method}", "metrics.reference=train", "forget=5")
        runs.append(unlearn(open_request(experiment)))
    assert len(seen) == 3 + 1  # the original and the retrained network, and what is left
    of_references = [k for k in runs[0] if k.startswith(("original/", "retrained/"))]
    assert {k: runs[0][k] for k in of_references} == {k: runs[1][k] for k in of_references}


@pytest.mark.usefixtures("full")
@pytest.mark.parametrize("metrics", ["fast", "standard"])
def test_an_audit_leaves_everything_as_it_found_it(open_shared, metrics: str):
    """Weights, modes of single modules, and all three generators, references included."""
    relearning = [o for o in SHORT if metrics == "standard" or ".relearn." not in o]
    experiment = open_shared(f"metrics={metrics}", "method=mask_logit", *relearning)
    net = stored_model(experiment, seed=0).load(experiment)
    net.train()
    next(m for m in net.modules() if isinstance(m, nn.BatchNorm2d)).eval()  # a frozen one

    def found() -> tuple[object, ...]:
        weights = {name: value.clone() for name, value in net.state_dict().items()}
        modes = [module.training for module in net.modules()]
        needed = [parameter.requires_grad for parameter in net.parameters()]
        drawn = torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random()  # noqa: NPY002
        return weights, modes, needed, drawn

    def seeded() -> None:
        torch.manual_seed(7)
        np.random.seed(7)  # noqa: NPY002
        random.seed(7)

    seeded()
    before = found()
    seeded()
    audit_network(open_request(experiment), net, timed=Timed(net, 0.0, 0.0))
    after = found()
    assert before[1:] == after[1:]
    assert all(p.grad is None for p in net.parameters())
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=0)


def test_the_size_of_batches_changes_nothing(full, open_shared):
    found = []
    for size in (7, 512):
        experiment = open_shared(
            f"metrics.batch_size={size}", "method=mask_logit", "forget=3",
            "trainer.precision=32-true",
        )  # fmt: skip
        net = stored_model(full[0], seed=0).load(full[0]).train()  # a mode that must not matter
        outputs = predict(experiment, net, experiment.splits((3,)))
        names = experiment.data.class_names
        found.append((outputs, audit(outputs, forget=[3], class_names=names)))
    (one, figures), (other, others) = found
    for split, z in one.logits.items():
        np.testing.assert_allclose(other.logits[split], z, atol=1e-4)
        np.testing.assert_array_equal(other.labels[split], one.labels[split])
    for key, value in figures.items():
        # Attackers and probes are fitted: what one of 19 images turns on may turn.
        fitted = key.startswith(("compat/", "mia/pop_lr", "probe/", "depth/", "proto/"))
        assert others[key] == pytest.approx(value, abs=0.06 if fitted else 1e-3, nan_ok=True), key


def test_without_references_it_runs_and_says_what_is_missing(full, open_shared):
    checkpoint = open_request(full[0]).checkpoint
    experiment = open_shared(
        "metrics.reference=none", "forget=3", f"checkpoint={checkpoint}", job="evaluate"
    )
    metrics = evaluate(open_request(experiment))
    assert metrics["unlearned/verdict/incomplete"] == 1
    assert not any("relearn" in key for key in metrics)  # against what?
    page = (folder_of(experiment) / "certificate.md").read_text()
    assert "no retrained network" in page


def test_shadow_attacks_on_a_network_from_elsewhere_are_missed_and_not_silently(
    full, open_shared, caplog: pytest.LogCaptureFixture
):
    checkpoint = open_request(full[0]).checkpoint
    notes = {}
    for shadows in (0, 6):
        experiment = open_shared(
            f"metrics.shadows={shadows}", "metrics.reference=none", "forget=3",
            f"checkpoint={checkpoint}", job="evaluate",
        )  # fmt: skip
        caplog.clear()
        with caplog.at_level("INFO", logger="orthounlearn"):
            metrics = evaluate(open_request(experiment))
        assert not any("lira" in key for key in metrics)
        assert ("No shadow attacks (metrics.shadows=6)" in caplog.text) == bool(shadows)
        folder = folder_of(experiment)
        notes[shadows] = json.loads((folder / "audit.json").read_text())["verdict"]["cautions"]
        page = (folder / "certificate.md").read_text()
        assert ("shadow attacks that were asked for are not given" in page) == bool(shadows)
    assert set(notes[6]) - set(notes[0]) == {NO_SHADOWS}
    assert len(notes[6]) == len(notes[0]) + 1
    record = json.loads((folder_of(full[0]) / "audit.json").read_text())
    assert NO_SHADOWS not in record["verdict"]["cautions"]  # there they were made


def test_the_original_may_be_named(full, open_shared):
    experiment, before = full
    options = ("forget=3", f"checkpoint={open_request(experiment).checkpoint}")
    original = f"original={stored_model(experiment, seed=0).checkpoint}"
    relearn = [option for option in SHORT if option.startswith("metrics.relearn.")]
    metrics = evaluate(
        open_request(open_shared("metrics=standard", *relearn, original, *options, job="evaluate"))
    )
    # The same network beside the same original; only the retrained references are fewer.
    for key in ("retain_ratio", "acc/nearest_class_drop", "relearn/lr0.01/area", "depth/1"):
        assert metrics[f"unlearned/{key}"] == pytest.approx(before[f"unlearned/{key}"], abs=1e-6)
    assert metrics["original/acc/forget_test"] == before["original/acc/forget_test"]
    assert metrics["unlearned/depth/index"] == 1
    with pytest.raises(UsageError, match="original to be a file"):
        evaluate(open_request(open_shared(*options, "original=nowhere", job="evaluate")))
    with pytest.raises(UsageError, match="evaluate alone"):
        unlearn(open_request(open_shared("method=mask_logit", original, "forget=3")))
