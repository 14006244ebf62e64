"""Preparation without a request: what it makes is what a request would have made."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from orthounlearn.engine import context
from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.prepare import is_prepared, preparation_folder, prepare
from orthounlearn.engine.request import open_request
from orthounlearn.engine.store import ensure_trained
from orthounlearn.engine.unlearn import unlearn
from orthounlearn.errors import UsageError

Open = Callable[..., Experiment]

SHORT = (
    "method=class_transport", "method.classes=[2,3]", "method.held_out_steps=2", "method.steps=2",
    "method.sum_steps=2", "method.batch_size=16", "metrics.reference=none",
)  # fmt: skip


def test_a_request_takes_what_was_prepared(open_job: Open, monkeypatch: pytest.MonkeyPatch):
    experiment = open_job(*SHORT)
    assert not is_prepared(experiment)
    prepared = prepare(experiment)
    assert is_prepared(experiment)
    assert prepared.seconds > 0

    def never(*_: object, **__: object) -> None:
        raise AssertionError("prepared again")

    monkeypatch.setattr("orthounlearn.methods.class_transport.learn_edit", never)
    request = open_request(open_job(*SHORT, "forget=3"))
    metrics = unlearn(request)
    assert metrics["unlearned/time/prep_s"] >= 0.9 * prepared.seconds
    again = prepare(experiment)
    assert again.files == prepared.files
    assert again.seconds >= 0.9 * prepared.seconds


@pytest.mark.parametrize(
    ("method", "tolerance"),
    [(SHORT, 0.0), (("method=soft_prune", "metrics.reference=none"), 1e-5)],  # sums over images
)
def test_preparing_first_changes_nothing(open_job: Open, method: tuple[str, ...], tolerance: float):
    prepared = prepare(open_job(*method))
    before = [load_file(path) for path in prepared.files]
    for path in prepared.files:
        path.unlink()
    assert not is_prepared(open_job(*method))
    unlearn(open_request(open_job(*method, "forget=3")))
    after = [load_file(path) for path in prepared.files]
    for one, other in zip(before, after, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            torch.testing.assert_close(
                one[name], other[name], rtol=tolerance, atol=0, equal_nan=True
            )


def test_of_a_users_file_it_lies_beside_the_file(open_job: Open, tmp_path: Path):
    stored = ensure_trained(open_job(), seed=0)
    mine = tmp_path / "mine.pt"
    torch.save(torch.load(stored.checkpoint, weights_only=True)["state_dict"], mine)
    experiment = open_job(f"checkpoint={mine}", "method=soft_prune")
    prepared = prepare(experiment)
    assert {path.parent.parent for path in prepared.files} == {tmp_path}
    assert is_prepared(experiment)


def test_the_job_and_the_cell_of_a_table_mean_the_same(open_job: Open):
    """A sweep looks for the preparation that its requests want."""
    tuned = ("experiment=digits_cpu", "method=class_transport")
    job, cell = open_job(*tuned, job="prepare"), open_job(*tuned, "forget=8")
    assert preparation_folder(job) == preparation_folder(cell)
    for changed in ("seed=1", "method.steps=3", "regularizer=none"):
        assert preparation_folder(open_job(*tuned, changed)) != preparation_folder(job)


def test_its_images_are_those_of_all_classes(open_job: Open, monkeypatch: pytest.MonkeyPatch):
    counts = []
    measure = context.class_statistics

    def counting(*arguments: object, **options: object):
        found = measure(*arguments, **options)
        counts.append(found.counts_K)
        return found

    monkeypatch.setattr(context, "class_statistics", counting)
    experiment = open_job("method=soft_prune")
    prepare(experiment)
    labels = experiment.data.train.labels_N[experiment.splits()["retain_train"]]
    assert counts[0].tolist() == torch.bincount(torch.as_tensor(labels)).tolist()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("method=fine_tune",), "fine_tune does all its work at the request"),
        (("method=soft_prune", "forget=3"), "no forget= in prepare"),
        (("method=soft_prune", "after=[[1]]"), "after= in the job unlearn alone"),
    ],
)
def test_bad_input_costs_no_training(open_job: Open, overrides: tuple[str, ...], message: str):
    experiment = open_job(*overrides, job="prepare")
    with pytest.raises(UsageError, match=message):
        prepare(experiment)
    assert not experiment.runs.exists()


def test_a_method_that_keeps_nothing_is_no_error(open_job: Open):
    """In a sweep a user's own method may say that it lasts, and keep what it made to itself."""
    experiment = open_job("method=leace")
    assert prepare(experiment).files == []
    assert is_prepared(experiment)
