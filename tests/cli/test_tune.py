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
    assert note["method"] == "soft_prune"
    assert note["settings"].items() >= {"pooling": "mean", "rate": found["rate"]}.items()
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


def test_search_killed_in_its_first_trial_judges_the_methods_own_values(
    call: Callable, tuned: Path, monkeypatch: pytest.MonkeyPatch
):
    tried: list[float] = []

    def watched(_, node):
        tried.append(node["optimizer"]["lr"])
        if len(tried) <= 2:
            raise KeyboardInterrupt
        return 0.0

    monkeypatch.setattr(tune, "_loss", watched)
    for code in (130, 130, 0):
        assert call("tune", "method=fine_tune", *SMALL).code == code
    assert tried[:3] == [0.01] * 3
    assert len(tried) == 4
    assert tried[3] != 0.01
    assert yaml.safe_load((tuned / "fine_tune.yaml").read_text())["tuned"]["trials"] == 2


def test_the_smallest_objective_wins(call: Callable, tuned: Path, monkeypatch: pytest.MonkeyPatch):
    tried: list[float] = []
    monkeypatch.setattr(tune, "_loss", lambda _, node: tried.append(node["rate"]) or node["rate"])
    axes = [axis for axis in SMALL if "trials" not in axis]
    assert call("tune", "method=class_aware", *axes, "tune.trials=6").code == 0
    found = yaml.safe_load((tuned / "class_aware.yaml").read_text())
    assert min(tried) < max(tried)
    assert found["rate"] == pytest.approx(min(tried))
    assert found["tuned"]["objective"] == pytest.approx(min(tried))


@pytest.mark.parametrize(
    ("forget", "retain", "left"),
    [(0.0, 0.9, 0.0), (0.25, 0.9, 0.25), (0.0, 0.5, 0.4), (0.25, 0.5, 0.65), (0.25, 1.0, 0.25)],
)
def test_objective_by_hand(
    open_job: Callable, monkeypatch: pytest.MonkeyPatch, forget: float, retain: float, left: float
):
    """On a cell whose original has 90 %: what is left of the class and what the others lost."""
    experiment = open_job("method=zero_row")
    stored = tune.ensure_trained(experiment, seed=0)
    cell = tune.Cell(experiment, experiment.splits((1,)), stored, 0.9)
    found = {"forget_val": forget, "retain_val": retain}
    monkeypatch.setattr(tune, "_accuracies", lambda *_: found)
    assert tune._loss(cell, experiment.config["method"]) == pytest.approx(left)


def test_another_version_of_the_code_is_searched_anew(
    call: Callable, tuned: Path, monkeypatch: pytest.MonkeyPatch
):
    tried: list[dict] = []
    monkeypatch.setattr(tune, "_loss", lambda _, node: tried.append(node) or 1.0)
    for version, trials in ((1, 2), (1, 2), (2, 4)):
        monkeypatch.setattr(tune, "AUDIT_VERSION", version)
        assert call("tune", "method=soft_prune", *SMALL).code == 0
        assert len(tried) == trials
    assert tuned.exists()


def test_setting_that_the_method_refuses_is_a_bad_one(call: Callable, tuned: Path):
    """A ResNet-20 has 22 layers, and a draw out of 200 is more than that (of this seed, always)."""
    result = call(
        "tune", "method=cf_k", "method.epochs=1", "method.k=2",
        "method.search.k.high=200", *SMALL,
    )  # fmt: skip
    assert result.code == 0, result.err
    assert "method.k" in result.err
    found = yaml.safe_load((tuned / "cf_k.yaml").read_text())
    assert found["k"] == 2
    assert found["tuned"]["trials"] == 2
    assert found["tuned"]["objective"] < 2


def test_own_values_that_are_none_of_the_choices_are_refused(call: Callable, tuned: Path):
    result = call("tune", "method=soft_prune", "method.floor=0.6", *SMALL)
    assert result.code == 2
    assert "method.floor to be one of those that are searched, [0.5, 0.75, 1.0]" in result.err
    assert not tuned.exists()


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
