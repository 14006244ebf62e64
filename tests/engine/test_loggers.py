"""What a dashboard sees: one W&B run per training and per request, with group, kind and finals."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import wandb
from wandb.proto.wandb_internal_pb2 import Record

from orthounlearn.engine.loggers import opened
from orthounlearn.engine.request import open_request
from orthounlearn.engine.store import stored_model
from orthounlearn.engine.train import train
from orthounlearn.engine.unlearn import unlearn
from orthounlearn.engine.wandb_run import class_lines, figure_lines
from tests.report.toy_runs import write_runs

WANDB = ("logger=wandb", "logger.offline=true", "metrics.reference=none", "forget=3")


def records(path: Path) -> list[Record]:
    """Read W&B's own file: LevelDB's log format (blocks of 32 KiB) after a header of 7 bytes."""
    data, position, parts, found = path.read_bytes(), 7, b"", []
    while position + 7 <= len(data):
        if 0 < -position % 32768 < 7:  # the rest of a block that holds no header is padding
            position += -position % 32768
            continue
        length, kind = (
            int.from_bytes(data[position + 4 : position + 6], "little"),
            data[position + 6],
        )
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = Record()
            record.ParseFromString(parts)
            found.append(record)
            parts = b""
    return found


def written(path: Path, patience_s: float = 30.0) -> list[Record]:
    """Return the records once the last one is there: a process of W&B's own writes them."""
    until = time.monotonic() + patience_s
    while True:
        every = records(path)
        if any(record.HasField("exit") for record in every) or time.monotonic() > until:
            return every
        time.sleep(0.2)


def runs(root: Path) -> dict[str, dict]:
    found = {}
    for path in root.rglob("*.wandb"):
        every = written(path)
        run = next(r.run for r in every if r.HasField("run"))
        keys = {
            "/".join(item.nested_key) or item.key
            for r in every
            if r.HasField("history")
            for item in r.history.item
        }
        exits = [r.exit.exit_code for r in every if r.HasField("exit")]
        references = {
            entry.path: entry.ref
            for r in every
            if r.HasField("artifact") and r.artifact.type == "model"
            for entry in r.artifact.manifest.contents
        }
        found[run.display_name] = {
            "kind": run.job_type, "group": run.run_group, "keys": keys, "exits": exits,
            "references": references,
        }  # fmt: skip
    return found


@pytest.fixture(autouse=True)
def _silent(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")


def test_wandb_gets_a_run_for_the_training_and_one_for_the_request(open_job: Callable):
    experiment = open_job(*WANDB, "group=sweep")
    unlearn(open_request(experiment))
    assert wandb.run is None
    by_kind = {run["kind"]: run | {"name": name} for name, run in runs(experiment.runs).items()}
    assert set(by_kind) == {"train", "unlearn"}
    assert {run["group"] for run in by_kind.values()} == {"sweep"}
    assert all(run["exits"] == [0] for run in by_kind.values())
    assert {"val/acc", "train/orthogonality", "gram_error"} <= by_kind["train"]["keys"]
    assert {"unlearned/acc/forget_test", "original/acc/forget_test"} <= by_kind["unlearn"]["keys"]
    name = by_kind["unlearn"]["name"]
    assert name.startswith("digits/resnet20_so/seed0/forget-3/soft_prune_")
    views = {"tables/figures", "tables/per_class", "figures/gallery", "figures/channels"}
    assert views <= {key.removesuffix("/_type") for key in by_kind["unlearn"]["keys"]}
    unlearned, original = (
        experiment.runs / name / "unlearned.ckpt", stored_model(experiment, seed=0).checkpoint
    )  # fmt: skip
    references = by_kind["unlearn"]["references"]
    assert set(references.values()) == {unlearned.as_uri(), original.as_uri()}
    assert not list(experiment.runs.rglob("wandb/**/*.ckpt"))


def test_tables_of_a_dashboard_have_every_class_and_figure(tmp_path: Path):
    (run,) = write_runs(tmp_path, models=["n"], methods=["soft_prune"], forgets=["cat"], seeds=[0])
    lines = {line[0]: line[1:] for line in class_lines(run)}
    assert lines["cat"] == (True, 1.0, 0.0, 0.0, 0.0)
    assert lines["dog"] == (False, 0.90, 0.88, 0.91, pytest.approx(1 / 3))
    assert list(lines) == list(run.classes)
    figures = {line[0]: line[1:] for line in figure_lines(run)}
    assert figures.keys() == run.metrics.keys()
    assert figures["probe/k50"][:4] == (pytest.approx(0.77), 0.8, 0.5, "→R")


def test_request_at_the_end_of_a_fit_shares_its_wandb_run(open_job: Callable):
    experiment = open_job(*WANDB, "method=soft_prune", job="train")
    train(experiment)
    assert wandb.run is None
    (run,) = runs(experiment.runs).values()
    assert run["kind"] == "train"
    assert {"val/acc", "unlearned/acc/forget_test"} <= run["keys"]


def test_failed_run_is_marked_as_failed(open_job: Callable):
    experiment = open_job(*WANDB)
    folder = experiment.runs / "failing"
    with pytest.raises(KeyError), opened(experiment, folder, job_type="evaluate"):
        raise KeyError
    (run,) = runs(folder).values()
    assert (run["kind"], run["exits"]) == ("evaluate", [1])


def test_tensorboard_gets_the_same_numbers(open_job: Callable):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    experiment = open_job("logger=tensorboard", "metrics.reference=none", "forget=3")
    metrics = unlearn(open_request(experiment))
    folder = next(experiment.runs.glob("digits/**/tensorboard"))
    events = EventAccumulator(str(folder)).Reload()
    value = events.Scalars("unlearned/acc/retain_test")[0].value
    assert value == pytest.approx(metrics["unlearned/acc/retain_test"])


@pytest.mark.filterwarnings("ignore")  # of what MLflow does with SQLAlchemy, and of renamed @
def test_mlflow_gets_the_same_numbers(open_job: Callable):
    mlflow = pytest.importorskip("mlflow")
    experiment = open_job("logger=mlflow", "metrics.reference=none", "forget=3", "group=sweep")
    request = open_request(experiment)
    metrics = unlearn(request)
    client = mlflow.MlflowClient(f"sqlite:///{experiment.runs}/mlflow.db")
    (where,) = client.search_experiments(filter_string="name = 'orthounlearn'")
    runs = {run.info.run_name: run for run in client.search_runs([where.experiment_id])}
    found = runs[request.folder.relative_to(experiment.runs).as_posix()]
    assert found.info.status == "FINISHED"
    assert found.data.tags["group"] == "sweep"
    value = found.data.metrics["unlearned/acc/retain_test"]
    assert value == pytest.approx(metrics["unlearned/acc/retain_test"])
