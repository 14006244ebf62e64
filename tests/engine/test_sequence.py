"""Requests one after another: each from what the one before has left, its images deleted."""

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from orthounlearn.config.build import build
from orthounlearn.data.loader import BatchLoader
from orthounlearn.engine import unlearn as job
from orthounlearn.engine.audit.predict import load_outputs, predict
from orthounlearn.engine.checkpoints import load_network
from orthounlearn.engine.context import RequestContext
from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.request import open_request
from orthounlearn.engine.store import ensure_trained, stored_model
from orthounlearn.engine.train import train
from orthounlearn.engine.unlearn import evaluate, unlearn
from orthounlearn.errors import UsageError
from orthounlearn.files import read_json, write_json
from orthounlearn.masking.attenuation import Attenuation
from orthounlearn.masking.scores import activation_difference
from orthounlearn.masking.statistics import class_statistics
from orthounlearn.masking.strengths import rank_strengths
from orthounlearn.masking.tracing import select_sites, trace_sites
from orthounlearn.methods.base import UnlearningMethod
from orthounlearn.report.collect import DIVERGED

Open = Callable[..., Experiment]


@pytest.fixture(scope="module")
def request_job(open_shared: Open) -> Open:
    return lambda *overrides, **job: open_shared("metrics.reference=none", *overrides, **job)


@pytest.fixture
def carried_out(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Return a list that grows by the classes of each request that is carried out."""
    found: list[tuple[int, ...]] = []
    plain = job.carry_out

    def watched(method, net, context, **options):
        found.append(context.forget)
        return plain(method, net, context, **options)

    monkeypatch.setattr(job, "carry_out", watched)
    return found


def test_order_method_and_steps_decide_the_folder(request_job: Open):
    def request(*overrides: str):
        return open_request(request_job("method=mask_logit", *overrides))

    requests = [
        request("after=[]", "forget=[7,1,4]"),
        request("after=[[1],[4]]", "forget=7"),
        request("after=[4,1]", "forget=7"),
        request("after=[[1,4]]", "forget=7"),
        request("after=[[1]]", "forget=[4,7]"),
        request("after=[[1],[4]]", "forget=7", "method=zero_row"),
    ]
    assert [r.folder.parent.name for r in requests] == [
        "forget-1+4+7",
        "forget-1-then-4-then-7",
        "forget-4-then-1-then-7",
        "forget-1+4-then-7",
        "forget-1-then-4+7",
        "forget-1-then-4-then-7",
    ]
    assert len({r.key for r in requests}) == len(requests)
    assert requests[0].key == request("forget=[1,4,7]").key
    assert len({r.splits.hash for r in requests}) == 1  # one audit, so one outputs of references
    assert requests[1].earlier.folder == request("after=[[1]]", "forget=4").folder
    assert requests[1].earlier.earlier.folder == request("forget=1").folder
    assert requests[1].earlier.earlier.earlier is None


def test_masking_one_after_the_other_is_masking_at_once(request_job: Open):
    after = request_job("after=[[1]]", "forget=4", "method=mask_logit")
    at_once = request_job("forget=[1,4]", "method=mask_logit")
    one, other = unlearn(open_request(after)), unlearn(open_request(at_once))
    outputs = [
        load_outputs(open_request(experiment).folder / "outputs.npz")
        for experiment in (after, at_once)
    ]
    assert set(outputs[0].labels["forget_test"].tolist()) == {1, 4}
    for split, logits in outputs[0].logits.items():
        np.testing.assert_array_equal(logits, outputs[1].logits[split])
    own = {"unlearned/sequence/step", "unlearned/time/prep_s", "unlearned/time/unlearn_s"}
    assert {k: v for k, v in one.items() if k not in own} == {
        k: v for k, v in other.items() if k not in own
    }
    assert [found["unlearned/sequence/step"] for found in (one, other)] == [2, 1]


def test_the_next_request_gets_its_network_as_the_first_one_does(
    request_job: Open, monkeypatch: pytest.MonkeyPatch
):
    """In eval mode: a method's forward passes must not move BatchNorm's statistics."""
    modes: list[bool] = []
    plain = job.carry_out

    def watched(method, net, context, **options):
        modes.append(net.training)
        return plain(method, net, context, **options)

    monkeypatch.setattr(job, "carry_out", watched)
    unlearn(open_request(request_job("after=[[2]]", "forget=6", "method=drop_unit")))
    assert modes == [False, False]


def test_a_lasting_preparation_comes_before_the_first_request(
    request_job: Open, monkeypatch: pytest.MonkeyPatch
):
    """Edits that are made in advance are added, one request after another; nothing is made anew."""
    method = [
        "method=class_transport",
        "method.steps=3",
        "method.sum_steps=3",
        "method.held_out_steps=3",
    ]
    first = open_request(request_job("forget=1", *method))
    folder = stored_model(first.experiment, seed=0).folder
    unlearn(first)
    kept = set(folder.glob("transport-*.safetensors"))
    assert kept
    monkeypatch.setattr(Experiment, "loader", None)  # no request reads an image
    requests = [
        open_request(request_job(*request, *method))
        for request in (["after=[[1],[4]]", "forget=7"], ["forget=[1,4,7]"])
    ]
    states = []
    for request in requests:
        unlearn(request)
        net = request.experiment.new_net(9)
        load_network(net, request.checkpoint)
        states.append(net.state_dict())
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name])
    assert set(folder.glob("transport-*.safetensors")) == kept
    assert not list(requests[0].earlier.folder.glob("transport-*"))


def test_drift_is_against_the_original_on_the_classes_that_remain(request_job: Open):
    experiment = request_job("after=[[1],[4]]", "forget=7", "method=soft_prune")
    metrics = unlearn(open_request(experiment))
    request = open_request(experiment)
    accuracies = []
    for checkpoint in (request.checkpoint, ensure_trained(experiment, seed=0).checkpoint):
        net = experiment.new_net(9)
        load_network(net, checkpoint)
        logits, labels = predict(experiment, net, request.splits)["retain_test"]
        assert not set(labels.tolist()) & {1, 4, 7}
        accuracies.append((logits.argmax(1) == labels).mean())
    assert metrics["unlearned/drift/retain_test"] == pytest.approx(accuracies[0] - accuracies[1])
    identity = read_json(request.folder / "run.json")
    assert (identity["after"], identity["forget"]) == ([["1"], ["4"]], ["7"])


def test_earlier_runs_are_found_not_repeated(request_job: Open, carried_out: list):
    method = "method=zero_row"
    unlearn(open_request(request_job("forget=2", method)))
    first = open_request(request_job("forget=2", method)).checkpoint.read_bytes()
    unlearn(open_request(request_job("after=[[2],[5]]", "forget=8", method)))
    assert carried_out == [(2,), (5,), (8,)]
    unlearn(open_request(request_job("after=[[2]]", "forget=5", method)))
    unlearn(open_request(request_job("after=[[2],[5]]", "forget=6", method)))
    assert carried_out == [(2,), (5,), (8,), (6,)]
    assert open_request(request_job("forget=2", method)).checkpoint.read_bytes() == first


def test_a_killed_sequence_goes_on(request_job: Open, monkeypatch: pytest.MonkeyPatch):
    experiment = request_job("after=[[6],[9]]", "forget=0", "method=zero_row")
    plain, calls = job.carry_out, []

    def killed(method, net, context, **options):
        calls.append(context.forget)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return plain(method, net, context, **options)

    monkeypatch.setattr(job, "carry_out", killed)
    with pytest.raises(KeyboardInterrupt):
        unlearn(open_request(experiment))
    assert open_request(experiment).earlier.earlier.is_done
    unlearn(open_request(experiment))
    assert calls == [(6,), (9,), (9,), (0,)]


def test_who_comes_second_waits_and_takes_the_result(request_job: Open, carried_out: list):
    experiment = request_job("forget=9", "method=mask_logit")
    ensure_trained(experiment, seed=0)
    folder = open_request(experiment).folder
    folder.mkdir(parents=True)
    found: list[dict] = []
    second = threading.Thread(target=lambda: found.append(unlearn(open_request(experiment))))
    with FileLock(folder.with_name(folder.name + ".lock")):
        second.start()
        second.join(1)
        assert second.is_alive()
        write_json(folder / "audit.json", {})
        write_json(folder / "metrics.json", {"unlearned/acc/forget_test": 0.25})
    second.join(60)
    (folder / "metrics.json").unlink()
    assert found == [{"unlearned/acc/forget_test": 0.25}]
    assert carried_out == []


class Reader(UnlearningMethod):
    """Declares everything."""

    uses = frozenset({"forget_train", "forget_val", "retain_train", "retain_val"})
    prepare_uses = uses

    def unlearn(self, net, context):  # noqa: ARG002 - interface
        return net


def test_a_method_sees_this_request_and_what_remains(request_job: Open, tmp_path: Path):
    experiment = request_job("after=[[1],[4]]", "forget=[7,8]")
    request = open_request(experiment)
    context = RequestContext(
        experiment, Reader(), splits=request.splits, gone=request.gone, seed=0,
        kept_folder=tmp_path,
    )  # fmt: skip
    assert context.forget == (7, 8)
    alone = experiment.splits((7, 8))
    labels = experiment.data.train.labels_N
    for split in sorted(Reader.uses):
        batches = context.batches(split, batch_size=64)
        seen = np.concatenate([batch.numpy() for _, batch in batches])
        assert set(seen) == ({7, 8} if split.startswith("forget") else {0, 2, 3, 5, 6, 9})
        expected = labels[alone[split]]
        assert seen.tolist() == expected[~np.isin(expected, [1, 4])].tolist()


@pytest.mark.parametrize("method", ["soft_prune", "fine_tune"])
def test_no_image_of_an_earlier_class_is_read(
    request_job: Open, method: str, monkeypatch: pytest.MonkeyPatch
):
    unlearn(open_request(request_job("forget=3", f"method={method}")))
    read: list[np.ndarray] = []
    plain = Experiment.loader

    def watched(self, splits, *names, **options) -> BatchLoader:
        read.extend(splits[name] for name in names)
        return plain(self, splits, *names, **options)

    monkeypatch.setattr(Experiment, "loader", watched)
    experiment = request_job("after=[[3]]", "forget=5", f"method={method}")
    unlearn(open_request(experiment))
    labels = set(experiment.data.train.labels_N[np.concatenate(read)].tolist())
    remaining = set(range(10)) - {3}
    assert labels == (remaining if method == "soft_prune" else remaining - {5})


def test_statistics_are_those_of_the_network_that_is_edited(request_job: Open):
    step = request_job("after=[[1]]", "forget=4", "method=soft_prune")
    unlearn(open_request(step))
    experiment = request_job("forget=1", "method=soft_prune")
    request = open_request(experiment)
    net = experiment.new_net(9)
    load_network(net, request.checkpoint)
    sites = select_sites(trace_sites(net, experiment.example()), "last")
    (path,) = request.folder.glob("statistics-*.safetensors")
    stored = load_file(path)
    batches = [
        (experiment.transform.evaluate(images), labels)
        for images, labels in experiment.loader(request.splits, "retain_train", batch_size=64)
    ]
    here = class_statistics(
        net, batches, sites=sites, num_classes=10, autocast=experiment.autocast,
    )  # fmt: skip
    assert stored["counts"].tolist() == here.counts_K.tolist()
    assert stored["counts"][1] == 0
    for site in sites:
        assert stored[site.name][1].abs().max() == 0
        # Of eight bits, and in batches of another size.
        torch.testing.assert_close(stored[site.name], here.sums[site.name], rtol=0.02, atol=1)

    (site,) = sites
    score_C = activation_difference(stored[site.name], stored["counts"], (4,))
    method = step.config["method"]
    factor_C = 1 - rank_strengths(score_C, rate=method["rate"], floor=method["floor"])
    expected = Attenuation(net, sites)
    expected.apply(expected.shape([factor_C]))
    found = experiment.new_net(9)
    load_network(found, open_request(step).checkpoint)
    assert factor_C.isfinite().all()
    for name, tensor in found.state_dict().items():
        torch.testing.assert_close(tensor, net.state_dict()[name], msg=name)


def test_retrained_reference_is_without_all_of_them(request_job: Open):
    reference = ("method=retrain", "metrics.reference=train", "recipe.epochs=1")
    experiment = request_job("after=[[1]]", "forget=4", *reference)
    metrics = unlearn(open_request(experiment))
    assert metrics["unlearned/avg_gap"] == 0
    assert stored_model(experiment, without=(1, 4), seed=0).is_trained
    assert not stored_model(experiment, without=(4,), seed=0).is_trained


def test_a_users_file_is_the_original_of_the_whole_sequence(request_job: Open, tmp_path: Path):
    stored = ensure_trained(request_job(), seed=0)
    mine = tmp_path / "mine.pt"
    torch.save(torch.load(stored.checkpoint, weights_only=True)["state_dict"], mine)
    sequence = ("after=[[1]]", "forget=4", "method=mask_logit")
    found, same = (
        unlearn(open_request(request_job(f"checkpoint={mine}", *sequence))),
        request_job(*sequence),
    )
    same = unlearn(open_request(same))
    for key in ("original/acc/retain_test", "unlearned/acc/retain_test", "unlearned/acc/test_all"):
        assert found[key] == same[key]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("after=[[1],[4]]", "forget=4"), r"more than one names 4 \(4\)"),
        (("after=[[1],[1,2]]", "forget=4"), r"more than one names 1 \(1\)"),
        (("after=[[0,1,2,3,4],[5,6,7,8]]", "forget=9"), "together name all 10"),
        (("after=[[1],[11]]", "forget=4"), r"after\[1\] to name a class, but got 11"),
        (("after=[[]]", "forget=4"), r"after\[0\]=CLASS"),
        (("after=[[1]]",), "forget=CLASS"),
    ],
)
def test_bad_sequences_are_told_before_anything_is_computed(
    open_job: Open, overrides: tuple[str, ...], message: str
):
    experiment = open_job(*overrides)
    with pytest.raises(UsageError, match=message):
        unlearn(open_request(experiment))
    assert not experiment.runs.exists()


def test_other_jobs_know_one_request(open_job: Open, tmp_path: Path):
    mine = tmp_path / "mine.pt"
    mine.touch()
    sequence = ("after=[[1]]", "forget=4")
    experiment = open_job(*sequence, "method=mask_logit", job="train")
    with pytest.raises(UsageError, match=r"in the job unlearn alone.*in train"):
        train(experiment)
    with pytest.raises(UsageError, match=r"in the job unlearn alone.*in evaluate"):
        evaluate(open_request(open_job(*sequence, f"checkpoint={mine}", job="evaluate")))
    assert not experiment.runs.exists()


def test_methods_are_built_before_an_earlier_step_is_computed(open_job: Open):
    experiment = open_job("after=[[1]]", "forget=4", "method=soft_prune", "method.rate=2")
    with pytest.raises(Exception, match=r"\(0, 1\]"):
        build(experiment.config["method"], UnlearningMethod)
    with pytest.raises(Exception, match=r"\(0, 1\]"):
        unlearn(open_request(experiment))
    assert not experiment.runs.exists()


def test_after_a_request_that_diverged_there_is_none(open_job: Open):
    """A table of sequences must not wait for a cell that has nothing to start from."""
    exploding = ("method=fine_tune", "method.optimizer.lr=1e18", "metrics.reference=none")
    request = open_request(open_job(*exploding, "after=[[1]]", "forget=3"))
    with pytest.raises(UsageError, match="FineTune diverged"):
        unlearn(request)
    for diverged in (request.earlier, request):
        assert "FineTune diverged" in read_json(diverged.folder / DIVERGED)["why"]
        assert not (diverged.folder / "unlearned.ckpt").exists()
