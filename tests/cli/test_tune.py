"""Tuning: on validation images alone, resumable, and used by the other jobs."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from orthounlearn import cli
from orthounlearn.config import build
from orthounlearn.engine import tune

SMALL = (
    "model.width=4", "recipe.epochs=2", "logger=none", "tune.trials=2", "tune.models=[resnet20]",
    "tune.regularizers=[so]", "tune.forget=[[1]]",
)  # fmt: skip


@pytest.fixture
def tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(build, "CONF_DIR", str(tmp_path / "conf"))
    return tmp_path / "conf/method/tuned/digits_cpu"


def test_tune_writes_what_it_found_and_how(call: Callable, tuned: Path, tmp_path: Path):
    result = call("tune", "method=soft_prune", "method.pooling=mean", *SMALL)
    assert result.code == 0, result.err
    text = (tuned / "soft_prune.yaml").read_text()
    assert text.startswith("# @package method\n")
    found = yaml.safe_load(text)
    assert found["pooling"] == "mean"  # set by hand
    assert 0.05 <= found["rate"] <= 0.6
    note = found["tuned"]
    assert (note["trials"], note["split"]) == (2, "forget_val + retain_val")
    assert note["command"].startswith("orthounlearn tune experiment=digits_cpu method=soft_prune")
    assert not list((tmp_path / "runs/models").glob("*without*")), (
        "the retrained model must not help"
    )


def test_an_installed_package_is_not_written_to(
    call: Callable, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(build, "INSTALLED", True)
    monkeypatch.setattr(tune, "_loss", lambda *_: 1.0)
    refused = call("tune", "method=soft_prune", *SMALL)
    assert refused.code == 2
    assert "--config-dir=FOLDER" in refused.err
    assert not (tmp_path / "runs").exists()
    mine = tmp_path / "mine"
    mine.mkdir()
    result = call("tune", f"--config-dir={mine}", "method=soft_prune", *SMALL)
    assert result.code == 0, result.err
    assert (mine / "method/tuned/digits_cpu/soft_prune.yaml").exists()
    assert not tuned.exists()


def test_tuning_sees_validation_images_only(
    call: Callable, tuned: Path, monkeypatch: pytest.MonkeyPatch
):
    read: set[str] = set()
    plain = tune.predict

    def watched(experiment, net, splits, names):
        read.update(names)
        return plain(experiment, net, splits, names)

    monkeypatch.setattr(tune, "predict", watched)
    assert call("tune", "method=soft_prune", *SMALL).code == 0
    assert tuned.exists()
    assert read == {"forget_val", "retain_val"}


def test_the_methods_own_values_are_tried_first(
    call: Callable, tuned: Path, monkeypatch: pytest.MonkeyPatch
):
    tried: list[dict] = []
    monkeypatch.setattr(tune, "_loss", lambda _, node: tried.append(dict(node)) or 1.0)
    own = ("method.rate=0.4", "method.pooling=mean")
    assert call("tune", "method=soft_prune", *own, *SMALL).code == 0
    assert tuned.exists()
    assert tried[0].items() >= {"rate": 0.4, "floor": 1.0, "score": "activation_difference"}.items()
    assert [node["pooling"] for node in tried] == ["mean", "mean"]  # set by hand, for all trials


def test_killed_search_goes_on(call: Callable, tuned: Path, monkeypatch: pytest.MonkeyPatch):
    tried: list[dict] = []
    plain = tune._loss

    def watched(cell, node):
        tried.append(dict(node))
        if len(tried) == 2:
            raise KeyboardInterrupt
        return plain(cell, node)

    monkeypatch.setattr(tune, "_loss", watched)
    assert call("tune", "method=soft_prune", *SMALL).code == 130
    assert not tuned.exists()
    assert call("tune", "method=soft_prune", *SMALL).code == 0
    assert len(tried) == 3  # one finished before, the other one again
    assert (tuned / "soft_prune.yaml").exists()


def test_killed_search_does_not_draw_the_same_again(
    call: Callable, tuned: Path, monkeypatch: pytest.MonkeyPatch
):
    judged: list[float] = []
    stops = {2, 4}  # in the second and in the third call

    def watched(_, node):
        if len(judged) in stops:
            stops.remove(len(judged))
            raise KeyboardInterrupt
        judged.append(node["optimizer"]["lr"])
        return 0.0

    monkeypatch.setattr(tune, "_loss", watched)
    axes = [axis for axis in SMALL if "trials" not in axis]
    for code in (130, 130, 0):
        assert call("tune", "method=fine_tune", *axes, "tune.trials=6").code == code
    assert len(judged) == len(set(judged)) == 6
    assert (tuned / "fine_tune.yaml").exists()


def test_diverged_setting_is_the_worst(open_job: Callable):
    experiment = open_job("method=gradient_ascent")
    stored = tune.ensure_trained(experiment, seed=0)
    cell = tune.Cell(experiment, experiment.splits((1,)), stored, 0.9)

    def loss(lr: float) -> float:
        values = {"optimizer.lr": lr, "epochs": 3}
        return tune._loss(cell, tune.with_values(experiment.config["method"], values))

    assert loss(1e30) == 2
    assert loss(1e-9) < 2


def test_a_request_that_the_method_refuses_is_no_bad_setting(call: Callable, tuned: Path):
    result = call("tune", "method=class_transport", "method.classes=[2]", "method.steps=1", *SMALL)
    assert result.code == 2
    assert "out of [2], but got [1]" in result.err
    assert not tuned.exists()


def test_stored_values_are_used_by_the_other_jobs(open_job: Callable):
    """Composed from the files that are in the repository."""
    stored = yaml.safe_load(
        Path(cli.CONF_DIR, "method/tuned/digits_cpu/soft_prune.yaml").read_text()
    )
    method = open_job("method=soft_prune").config["method"]
    assert method["rate"] == stored["rate"]
    assert method["tuned"]["command"] == stored["tuned"]["command"]
    assert open_job("method=soft_prune", "method.rate=0.11").config["method"]["rate"] == 0.11
