"""Bad input: one clear message that says what is valid, exit code 2, nothing written."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

FAST = ("model.width=4", "recipe.epochs=1", "logger=none")

BAD = {
    "unknown job": (["unlern"], "expected a job out of train, unlearn"),
    "unknown option": (["unlearn", "forget=3", "learning_rate=1"], "learning_rate"),
    "unknown key of a node": (["train", "recipe.epoch=3"], "epoch"),
    "wrong type": (["train", "recipe.epochs=many"], "many"),
    "unknown method": (["unlearn", "forget=3", "method=soft_prun"], "soft_prune"),
    "unknown model": (["train", "model=resnet19"], "resnet20"),
    "unknown data": (["train", "data=mnist"], "fashion_mnist"),
    "unknown regularizer": (["train", "regularizer=xyz"], "srip"),
    "unknown experiment": (["sweep", "experiment=nothing"], "digits_cpu"),
    "unknown option of a method": (
        ["unlearn", "forget=3", "+method.strength=1"],
        "valid are sites, pooling",
    ),
    "unknown option of a method that is trained": (
        ["unlearn", "forget=3", "method=neg_grad_plus", "+method.strength=1"],
        "valid are alpha, optimizer, epochs, batch_size, batch_norm",
    ),
    "unknown option of an optimiser": (["train", "+optimizer.learning_rate=1"], "valid are params"),
    "target that does not exist": (
        ["train", "model=custom", "model._target_=torch.nn.Nothing"],
        "torch.nn.Nothing",
    ),
    "target that is not given": (["train", "model=custom"], "model._target_"),
    "value out of range": (["unlearn", "forget=3", "method.rate=1.5", *FAST], "(0, 1]"),
    "no forget class": (["unlearn"], "Valid: 0 (0), 1 (1)"),
    "class that does not exist": (["unlearn", "forget=11"], "got 11"),
    "class name that does not exist": (["unlearn", "forget=cat"], "got 'cat'"),
    "negative class": (["unlearn", "forget=-1"], "got -1"),
    "repeated class": (["unlearn", "forget=[3,3]"], "once"),
    "all classes": (["unlearn", "forget=[0,1,2,3,4,5,6,7,8,9]"], "at least one class to retain"),
    "empty list": (["unlearn", "forget=[]"], "got none"),
    "class of an earlier request": (["unlearn", "after=[[3]]", "forget=3"], "names 3 (3)"),
    "all classes in turn": (
        ["unlearn", "after=[[0,1,2,3,4],[5,6,7,8]]", "forget=9"],
        "at least one class to retain",
    ),
    "earlier class that does not exist": (["unlearn", "after=[[11]]", "forget=3"], "got 11"),
    "earlier requests that are no list": (["unlearn", "after=3", "forget=1"], "after"),
    "sequence in train": (["train", "after=[[1]]"], "in the job unlearn alone"),
    "sequence in evaluate": (
        ["evaluate", "after=[[1]]", "forget=3", "checkpoint=none.ckpt"],
        "in the job unlearn alone",
    ),
    "sequence in sweep": (["sweep", "after=[[1]]"], "table.sequence"),
    "sweep that forgets everything in turn": (
        ["sweep", "table.sequence=true", "table.forget=all"],
        "together name all 10",
    ),
    "missing checkpoint": (["unlearn", "forget=3", "checkpoint=none.ckpt"], "none.ckpt"),
    "missing data": (["train", "data=image_folder", "data.root=/no/where"], "/no/where"),
    "data not named": (["train", "data=image_folder"], "data.root=FOLDER"),
    "data elsewhere": (["train", "data=cifar10", "data.root=."], "Found neither"),
    "bad precision": (["train", "trainer.precision=${precision:bf17}"], "bf17"),
    "nothing to report": (["report"], "Expected finished runs"),
    "sequence to tune": (["tune", "method=soft_prune", "after=[[1]]"], "job unlearn alone"),
    "sequence with shadows": (
        ["unlearn", "forget=2", "after=[[1]]", "metrics.shadows=6"],
        "metrics.shadows=0 with after=",
    ),
    "nothing to report of a data set": (["report", "dataset=mnist"], "on mnist"),
    "evaluate without a checkpoint": (["evaluate", "forget=3"], "checkpoint"),
    "request of train without method": (["train", "forget=3"], "both forget=CLASS and method"),
    "empty axis": (["sweep", "table.methods=[]"], "table.methods"),
    "nothing to tune": (["tune", "method=mask_logit"], "nothing to tune"),
    "probe of blocks that does not exist": (
        ["unlearn", "forget=3", "metrics.block_probes=[k20]"],
        "k10, k50, kall",
    ),
    "bad schedule": (
        ["train", "regularizer.penalty.schedule=[[0.5,1]]", *FAST],
        "start at 0",
    ),
    "layers that do not exist": (
        ["train", "regularizer.penalty.layers=[nothing]", *FAST],
        "spatial, all or names",
    ),
    "validation share": (["train", "data.val_fraction=1.5"], "[0, 1)"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str, call: Callable, tmp_path: Path):
    arguments, message = BAD[name]
    result = call(*arguments)
    assert result.code == 2
    assert message in result.err
    assert "Traceback" not in result.err + result.out
    assert result.err.count("error:") == 1
    results = [
        p for p in tmp_path.rglob("*") if p.suffix in {".ckpt", ".json"} and "metrics" in p.name
    ]
    assert results == []


def test_runs_folder_that_is_a_file(call: Callable, tmp_path: Path):
    (tmp_path / "runs").touch()
    result = call("train", *FAST)
    assert result.code == 2
    assert "choose another folder" in result.err


def test_no_job_shows_the_usage(call: Callable):
    result = call()
    assert result.code == 2
    assert "usage: orthounlearn JOB" in result.out


def test_interrupt_says_how_to_go_on(call: Callable, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("orthounlearn.engine.train.ensure_trained", interrupted)
    result = call("train", *FAST)
    assert result.code == 130
    assert "goes on where it stopped" in result.err


def test_network_that_diverged_is_not_audited(call: Callable, tmp_path: Path):
    assert call("train", *FAST).code == 0
    trained = next(tmp_path.rglob("model.ckpt"))
    broken = torch.load(trained, weights_only=True)
    for tensor in broken["state_dict"].values():
        tensor.fill_(float("nan") if tensor.is_floating_point() else 0)
    torch.save(broken, tmp_path / "broken.ckpt")
    result = call("evaluate", "forget=3", f"checkpoint={tmp_path / 'broken.ckpt'}", *FAST)
    assert result.code == 2
    assert "puts out nan" in result.err
    assert not list(tmp_path.rglob("audit.json"))
