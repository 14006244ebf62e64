"""The model store: trained once, under what determines it; resumable; deterministic."""

import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from orthounlearn.engine import store
from orthounlearn.engine.own_code import sources
from orthounlearn.engine.request import open_request
from orthounlearn.engine.store import ensure_trained, short_name, stored_model
from orthounlearn.errors import UsageError
from orthounlearn.files import read_json
from orthounlearn.lit.classifier import LitClassifier


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "model.ckpt", weights_only=True)["state_dict"]


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


@pytest.fixture
def count_fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    fits: list[int] = []
    plain = store.fit

    def counted(*arguments, **options):
        fits.append(1)
        return plain(*arguments, **options)

    monkeypatch.setattr(store, "fit", counted)
    return fits


def test_a_network_is_trained_once(open_job, count_fits):
    experiment = open_job("recipe.epochs=1")
    one, two = ensure_trained(experiment, seed=0), ensure_trained(experiment, seed=0)
    assert one == two
    assert len(count_fits) == 1
    files = {path.name for path in one.folder.iterdir()}
    assert {"config.yaml", "env.json", "splits.npz", "metrics.json", "model.ckpt"} <= files
    assert "resume.ckpt" not in files


def test_two_that_want_the_same_network_wait_for_one_training(open_job, count_fits):
    experiment = open_job("recipe.epochs=1")
    threads = [
        threading.Thread(target=ensure_trained, args=(experiment,), kwargs={"seed": 0})
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(count_fits) == 1


@pytest.mark.parametrize(
    "other",
    [
        "model.width=6",
        "model=vgg11",
        "regularizer=none",
        "regularizer.penalty.weight=0.5",
        "optimizer.lr=0.01",
        "recipe.epochs=3",
        "recipe.batch_size=32",
        "data.val_fraction=0.2",
        "data.split_seed=1",
        "data.flip=true",
        "trainer.precision=64-true",
        "trainer.accumulate_grad_batches=2",
        "+trainer.max_steps=1",
        "+trainer.max_time={seconds:1}",
        "+trainer.overfit_batches=1",
        "+trainer.sync_batchnorm=true",
        "+trainer.gradient_clip_algorithm=value",
        "trainer.deterministic=false",
        "trainer.deterministic=null",
        "~trainer.deterministic",
        "scheduler=none",
        "+callbacks.mine._target_=lightning.pytorch.callbacks.StochasticWeightAveraging",
    ],
)
def test_whatever_changes_the_weights_changes_the_key(open_job, other: str):
    keys = [stored_model(open_job(*o), seed=0).key for o in ((), (other,))]
    assert keys[0] != keys[1]


def test_seed_and_left_out_classes_change_the_key(open_job):
    experiment = open_job()
    keys = {
        stored_model(experiment, seed=seed, without=without).key
        for seed in (0, 1)
        for without in ((), (1,), (1, 2))
    }
    assert len(keys) == 6


@pytest.mark.parametrize(
    "comfort",
    [
        "logger=csv",
        "method=mask_logit",
        "forget=4",
        "metrics.max_images=10",
        "trainer.enable_progress_bar=true",
        "trainer.log_every_n_steps=1",
        "trainer.accelerator=cpu",
        "+trainer.max_time=null",
        "callbacks=none",
        "+callbacks.mine._target_=lightning.pytorch.callbacks.DeviceStatsMonitor",
        "paths.runs=/elsewhere",
    ],
)
def test_comfort_does_not_change_the_key(open_job, comfort: str):
    keys = [stored_model(open_job(*o), seed=0).key for o in ((), (comfort,))]
    assert keys[0] == keys[1]


def test_a_short_training_is_not_taken_for_the_whole_one(open_job):
    short = ensure_trained(open_job("recipe.epochs=1", "+trainer.max_steps=1"), seed=0)
    whole = ensure_trained(open_job("recipe.epochs=1"), seed=0)
    name = "classifier.weight"
    assert not torch.equal(weights(short.folder)[name], weights(whole.folder)[name])


def test_users_callbacks_run_without_a_logger(open_job):
    mine = "{_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: no-such-metric}"
    with pytest.raises(RuntimeError, match="no-such-metric"):
        ensure_trained(open_job("logger=none", f"+callbacks.mine={mine}"), seed=0)


OWN = """
from orthounlearn.models import resnet

def net(**options):
    return resnet(depth=20, width=4, **options)
"""


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a user's module with a network, which the name `own_net_module` imports."""
    path = tmp_path / "own_net_module.py"
    path.write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, path.stem, raising=False)
    return path


OWN_NET = ("model=custom", "~model.width", "model._target_=own_net_module.net")


def test_source_of_a_users_network_is_part_of_the_key(open_job, own_module: Path):
    experiment = open_job(*OWN_NET)
    key = stored_model(experiment, seed=0).key
    assert stored_model(experiment, seed=0).key == key
    own_module.write_text(OWN + "# edited\n")
    assert stored_model(experiment, seed=0).key != key


@pytest.mark.usefixtures("own_module")
def test_only_the_users_own_files_are_sources():
    targets = ("own_net_module.net", "torchvision.models.resnet18", "orthounlearn.models.resnet")
    assert list(sources([{"_target_": target} for target in targets])) == ["own_net_module.net"]
    assert sources({"_target_": "functools.partial"}) == {}


def test_names_that_are_too_long_end_in_a_hash():
    one, other = ("_".join([*["ß" * 20] * 15, last]) for last in "ab")
    assert len(short_name(one).encode()) <= 200
    assert short_name(one).startswith("ß" * 20 + "_")
    assert short_name(one) != short_name(other)
    assert short_name(one[:100]) == one[:100]


def test_long_class_names_are_no_path_too_long(open_job):
    experiment = open_job("recipe.epochs=1", "forget=[1,2]")
    long = tuple(f"{c}" * 200 for c in "abcdefghij")
    experiment = replace(experiment, data=replace(experiment.data, class_names=long))
    assert ensure_trained(experiment, seed=0, without=(1, 2)).is_trained
    open_request(experiment).folder.mkdir(parents=True)


def test_networks_of_a_name_with_a_dot_do_not_share_a_lock(open_job):
    experiment = open_job("recipe.epochs=1", "model.name=net.v2")
    stored = ensure_trained(experiment, seed=0)
    assert stored.folder.with_name(stored.folder.name + ".lock").exists()


def test_seed_determinism(open_job):
    first = ensure_trained(open_job("recipe.epochs=1"), seed=0).folder
    before = weights(first)
    (first / "metrics.json").unlink()
    assert_equal(weights(ensure_trained(open_job("recipe.epochs=1"), seed=0).folder), before)
    other = weights(ensure_trained(open_job("recipe.epochs=1"), seed=1).folder)
    assert not torch.equal(other["classifier.weight"], before["classifier.weight"])


class KilledError(BaseException):
    pass


def test_resume(open_job, monkeypatch: pytest.MonkeyPatch):
    """Killed in the third of four epochs and started again: the same weights, to the last bit."""
    whole = weights(ensure_trained(open_job("recipe.epochs=4"), seed=0).folder)
    folder = stored_model(open_job("recipe.epochs=4"), seed=0).folder
    for path in folder.iterdir():
        path.unlink()

    plain = LitClassifier.training_step

    def killed(module, batch, batch_idx):
        if module.current_epoch == 2 and batch_idx == 3:
            raise KilledError
        return plain(module, batch, batch_idx)

    monkeypatch.setattr(LitClassifier, "training_step", killed)
    with pytest.raises(KilledError):
        ensure_trained(open_job("recipe.epochs=4"), seed=0)
    assert (folder / "resume.ckpt").exists()
    assert not (folder / "metrics.json").exists()

    epochs = []

    def watched(module, batch, batch_idx):
        epochs.append(module.current_epoch)
        return plain(module, batch, batch_idx)

    monkeypatch.setattr(LitClassifier, "training_step", watched)
    resumed = ensure_trained(open_job("recipe.epochs=4"), seed=0)
    assert set(epochs) == {2, 3}
    assert_equal(weights(resumed.folder), whole)


def test_retraining_never_sees_the_forgotten_class(open_job, monkeypatch: pytest.MonkeyPatch):
    seen: set[int] = set()
    plain = LitClassifier.training_step

    def watched(module, batch, batch_idx):
        seen.update(batch[1].tolist())
        return plain(module, batch, batch_idx)

    monkeypatch.setattr(LitClassifier, "training_step", watched)
    ensure_trained(open_job("recipe.epochs=1"), seed=0, without=(3, 7))
    assert seen == {0, 1, 2, 4, 5, 6, 8, 9}


def test_diverged_training_is_explained_and_leaves_no_network(open_job):
    experiment = open_job("recipe.epochs=1", "optimizer.lr=1e12")
    with pytest.raises(UsageError, match=r"diverged.*finite"):
        ensure_trained(experiment, seed=0)
    assert not stored_model(experiment, seed=0).checkpoint.exists()


def test_too_few_steps_for_the_scheduler_are_explained(open_job):
    with pytest.raises(UsageError, match=r"more steps than 4.*recipe.epochs"):
        ensure_trained(open_job("recipe.epochs=2", "trainer.limit_train_batches=2"), seed=0)


def test_metrics_and_environment_are_plain(open_job):
    folder = ensure_trained(open_job("recipe.epochs=1"), seed=0).folder
    metrics = read_json(folder / "metrics.json")
    assert 0 <= metrics["val/acc"] <= 1
    assert metrics["time/train_s"] > 0
    assert {"versions", "python", "platform", "device", "threads", "git", "command"} <= set(
        read_json(folder / "env.json")
    )


def test_lower_resolution_needs_an_entry_for_every_epoch(open_job):
    with pytest.raises(UsageError, match="one entry per epoch"):
        ensure_trained(open_job("recipe.epochs=2", "recipe.image_sizes=[6]"), seed=0)
    ensure_trained(open_job("recipe.epochs=2", "recipe.image_sizes=[6,8]"), seed=0)
