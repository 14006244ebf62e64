"""Bad input: one clear message that says what is valid, exit code 2, nothing written."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch

from orthounlearn.cli import JOBS
from orthounlearn.config import CONF_DIR

FAST = ("model.width=4", "recipe.epochs=1", "logger=none")

BAD = {
    "unknown job": (["unlern"], "expected a job out of train, prepare"),
    "unknown option": (["unlearn", "forget=3", "learning_rate=1"], "learning_rate"),
    "unknown key of a node": (
        ["train", "recipe.epoch=3"],
        "Expected recipe.epochs, but got recipe.epoch.",
    ),
    "unknown key of a model": (["train", "model.widht=3"], "Expected model.width, but got"),
    "unknown key like no other": (
        ["train", "recipe.foo=3"],
        "one of recipe.batch_size, recipe.epochs, recipe.image_sizes, recipe.label_smoothing",
    ),
    "added key": (["train", "+sed=1"], "Expected seed, but got sed."),
    "added key of data": (["train", "+data.foo=1"], "one of data.crop_padding, data.flip"),
    "added key of the recipe": (["train", "+recipe.foo=1"], "one of recipe.batch_size"),
    "added key of the metrics": (
        ["unlearn", "forget=3", "+metrics.max_image=1"],
        "Expected metrics.max_images, but got metrics.max_image.",
    ),
    "added key of relearning": (
        ["unlearn", "forget=3", "metrics=standard", "+metrics.relearn.step=1"],
        "metrics.relearn.steps",
    ),
    "added key of the table": (["sweep", "+table.method=[retrain]"], "table.methods"),
    "added key of the report": (["report", "+dataste=digits"], "Expected dataset, but got"),
    "key below a choice that is not made": (["unlearn", "table.nam=3"], "Make the choice as well"),
    "choice that is null": (["unlearn", "model=null"], "Expected GROUP=NAME"),
    "wrong type": (["train", "recipe.epochs=many"], "'many' of type 'str' could not be converted"),
    "seed that is a word": (["train", "seed=a"], "'a' of type 'str' could not be converted to Int"),
    "seeds that are words": (["sweep", "table.seeds=[a]"], "'a' of type 'str' could not be"),
    "negative seed": (["train", "seed=-1"], "Expected seed to be in [0, 4294967295], but got -1"),
    "seed that is too large": (["sweep", "table.seeds=[0,4294967296]"], "table.seeds to be in"),
    "no epoch": (
        ["train", "recipe.epochs=0"],
        "Expected recipe.epochs to be at least 1, but got 0",
    ),
    "negative epochs": (["train", "recipe.epochs=-1"], "recipe.epochs to be at least 1"),
    "label smoothing": (["train", "recipe.label_smoothing=7"], "label_smoothing to be in [0, 1)"),
    "image sizes": (["train", "recipe.image_sizes=[0]"], "recipe.image_sizes to be at least 1"),
    "empty batch": (["train", "recipe.batch_size=0"], "recipe.batch_size to be at least 1"),
    "empty batch of the audit": (["train", "metrics.batch_size=0"], "metrics.batch_size to be at"),
    "learning rate of relearning": (
        ["unlearn", "forget=3", "metrics=standard", "metrics.relearn.learning_rates=[0]"],
        "metrics.relearn.learning_rates to be above 0, but got 0",
    ),
    "several values out of range": (
        ["train", "recipe.epochs=0", "seed=-1"],
        "Expected recipe.epochs to be at least 1",
    ),
    "padding as large as the image": (
        ["train", "data.crop_padding=8"],
        "data.crop_padding to be less than the 8 pixels",
    ),
    "negative padding": (["train", "data.crop_padding=-1"], "data.crop_padding to be at least 0"),
    "image size": (
        ["train", "data=image_folder", "data.root=.", "data.source.image_size=0"],
        "data.source.image_size to be at least 1",
    ),
    "learning rate that is a word": (
        ["train", "optimizer.lr=abc"],
        "optimizer: expected options that torch.optim.SGD takes, but of lr='abc'",
    ),
    "negative learning rate": (["train", "optimizer.lr=-1"], "Invalid learning rate: -1"),
    "negative learning rate of a method": (
        ["unlearn", "forget=3", "method=fine_tune", "method.optimizer.lr=-1"],
        "method.optimizer: expected options that torch.optim.SGD takes",
    ),
    "share of a schedule": (["train", "scheduler.pct_start=7"], "scheduler: expected options"),
    "name that leads elsewhere": (["train", "model.name=../../evil"], "Expected model.name to be"),
    "table that leads elsewhere": (["sweep", "table.name=a/b"], "Expected table.name to be a name"),
    "report that leads elsewhere": (["report", "name=../../evil"], "Expected name to be a name"),
    "class of a table that does not exist": (
        ["sweep", "table.forget=cat"],
        "Expected table.forget to name a class, but got 'cat'",
    ),
    "unknown method": (["unlearn", "forget=3", "method=soft_prun"], "soft_prune"),
    "unknown method of train": (["train", "method=soft_prun"], "soft_prune"),
    "unknown model": (["train", "model=resnet19"], "resnet20"),
    "unknown data": (["train", "data=mnist"], "fashion_mnist"),
    "unknown regularizer": (["train", "regularizer=xyz"], "srip"),
    "key below an empty node": (
        ["train", "callbacks=none", "callbacks.mine=1"],
        "Expected +callbacks.mine=VALUE, which adds to the empty callbacks",
    ),
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
        [
            *("sweep", "table.sequence=true", "table.forget=all", "table.models=[resnet20]"),
            *("table.regularizers=[so]", "table.seeds=[0]", "table.methods=[original]"),
        ],
        "together name all 10",
    ),
    "shadow of a request": (["unlearn", "forget=3", "shadow=1"], "in the job train alone"),
    "class left out of a sweep": (["sweep", "without=3"], "table.references=true"),
    "class left out that does not exist": (["train", "without=cat"], "got 'cat'"),
    "odd number of shadows": (["unlearn", "forget=3", "metrics.shadows=7"], "even number"),
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
    "table that no sweep has made": (["report", "table=mine"], "Valid: none yet"),
    "table of a sweep that leads elsewhere": (
        ["report", "table=../x"],
        "Expected table to be a name",
    ),
    "table and a name": (["report", "table=mine", "name=yours"], "without name= and dataset="),
    "table of a data set": (["report", "table=mine", "dataset=digits"], "without name="),
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


_BEGUN = (
    *("runs", "runs/models", "runs/models/*_????????", "runs/models/*_????????.lock"),
    "runs/models/*/config.yaml",
    "runs/models/*/env.json",
    "runs/models/*/splits.npz",
    "runs/models/*/status.json",
)
"""A training that ended before its first step: what was asked for, and no network."""

MAY_STAY = {"bad schedule": _BEGUN, "layers that do not exist": _BEGUN}
"""Bad input that is seen late only -> what may lie in the folder then."""


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str, call: Callable, tmp_path: Path, cache_dir: Path):
    arguments, message = BAD[name]
    result = call(*arguments)
    assert result.code == 2
    assert message in result.err
    assert "Traceback" not in result.err + result.out
    assert result.err.startswith("error: ")  # nothing else is said, neither by Hydra
    assert result.err.count("error:") == 1
    assert _new_files(tmp_path, cache_dir, but=MAY_STAY.get(name, ())) == []


def _new_files(folder: Path, cache_dir: Path, *, but: Sequence[str] = ()) -> list[str]:
    """Return what lies in an empty folder and in the image cache, but for names that may stay."""
    decoded = [f"digits-bundled{end}" for end in ("", ".lock", "/*")]  # serves all tests
    found = [
        (path.relative_to(top).as_posix(), allowed)
        for top, allowed in ((folder, but), (cache_dir, decoded))
        for path in top.rglob("*")
    ]
    return [name for name, allowed in found if not any(fnmatch(name, glob) for glob in allowed)]


EXPERIMENTS = sorted(path.stem for path in Path(CONF_DIR, "experiment").glob("*.yaml"))


@pytest.mark.parametrize("job", [job for job in JOBS if job != "report"])
@pytest.mark.parametrize("name", ["cifar10_cup", "min"])
def test_unknown_experiment(job: str, name: str, call: Callable, tmp_path: Path):
    """The user's own experiments, from `--config-dir`, are among those that are listed."""
    own = tmp_path / "conf/experiment/mine.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("# @package _global_\nseed: 7\n")
    arguments = (job, "--config-dir", str(tmp_path / "conf"), "--cfg", "job")
    result = call(*arguments, f"experiment={name}")
    assert result.code == 2
    assert f"experiment/{name}'" in result.err
    assert [line.strip() for line in result.err.splitlines() if line.startswith("\t")][
        : len(EXPERIMENTS) + 1
    ] == sorted([*EXPERIMENTS, "mine"])
    own_result = call(*arguments, "experiment=mine")
    assert own_result.code == 0
    assert "\nseed: 7\n" in own_result.out


@pytest.mark.parametrize("job", ["train", "unlearn", "sweep"])
@pytest.mark.parametrize("more", [["experiment=digits_cpu"], []])
def test_method_without_tuned_values_keeps_its_own(job: str, more: list[str], call: Callable):
    result = call(job, *more, "method=mask_logit", "--cfg", "job")
    assert result.code == 0, result.err
    assert "name: mask_logit" in result.out
    assert "tuned:" not in result.out


def test_runs_folder_that_is_a_file(call: Callable, tmp_path: Path):
    (tmp_path / "runs").touch()
    result = call("train", *FAST)
    assert result.code == 2
    assert "choose another folder" in result.err


def test_job_of_a_multirun_that_fails_is_named(call: Callable):
    result = call("unlearn", "-m", "forget=11,12")
    assert result.code == 2
    assert "['forget=11']" in result.err
    assert "error: Expected forget to name a class, but got 11" in result.err


def test_report_lists_the_data_sets_and_names_what_is_damaged(call: Callable, tmp_path: Path):
    assert call("unlearn", "forget=3", "method=mask_logit", *FAST).code == 0
    result = call("report", "dataset=nope")
    assert result.code == 2
    assert "on nope, but there are only some on digits" in result.err
    run = next(tmp_path.glob("runs/digits/**/metrics.json"))
    run.write_text("{}")
    result = call("report")
    assert result.code == 2
    assert f"left out: {run.parent}: its metrics.json has no figure" in result.out
    assert not (tmp_path / "runs/tables").exists()


def test_nobody_logged_in_to_wandb(call: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    result = call("train", "logger=wandb", "model.width=4", "recipe.epochs=1")
    wandb.teardown()  # it keeps what it read from the environment, for whoever comes next
    assert result.code == 2
    assert "`wandb login`" in result.err
    assert "logger.offline=true" in result.err
    assert not list(tmp_path.rglob("model.ckpt"))


@pytest.mark.parametrize("forget", ["0", "[0]", "[[0]]"])
def test_one_class_of_a_table_needs_no_list(
    call: Callable, forget: str, monkeypatch: pytest.MonkeyPatch
):
    asked: list[list[str] | None] = []
    monkeypatch.setattr(
        "orthounlearn.engine.sweep._run",
        lambda phase, _: asked.append(phase.grid.get("forget") or phase.grid.get("without")),
    )
    few = ("table.models=[resnet20]", "table.regularizers=[so]", "table.methods=[original]")
    call("sweep", f"table.forget={forget}", *few)
    assert asked == [None, ["[0]"], ["[0]"]]  # originals, retrained networks, the others


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
