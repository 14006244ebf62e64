"""The request from end to end, on real digits."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from orthounlearn.data.splits import SPLIT_NAMES
from orthounlearn.engine.audit.predict import load_outputs, predict
from orthounlearn.engine.checkpoints import load_network
from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.request import open_request
from orthounlearn.engine.store import ensure_trained
from orthounlearn.engine.train import train
from orthounlearn.engine.unlearn import evaluate, unlearn
from orthounlearn.errors import UsageError
from orthounlearn.files import read_json
from orthounlearn.metrics.catalog import figure

Open = Callable[..., Experiment]


@pytest.fixture(scope="module")
def request_job(open_shared: Open) -> Open:
    shared = ("forget=3", "recipe.epochs=6", "metrics.reference=none")
    return lambda *overrides, **job: open_shared(*shared, *overrides, **job)


def test_unlearned_checkpoint_is_unlearned(request_job: Open):
    """What is on disk, what was audited and what the method made are one network."""
    experiment = request_job()
    metrics = unlearn(open_request(experiment))
    folder = open_request(experiment).folder
    request = open_request(experiment)

    loaded, original = experiment.new_net(5), experiment.new_net(6)
    about = load_network(loaded, folder / "unlearned.ckpt")
    load_network(original, ensure_trained(experiment, seed=0).checkpoint)
    again = predict(experiment, loaded, request.splits)
    audited = load_outputs(folder / "outputs.npz")
    before = predict(experiment, original, request.splits)
    for split, logits in again.logits.items():
        np.testing.assert_array_equal(logits, audited.logits[split])
        assert not np.array_equal(logits, before.logits[split])
    accuracy = (again.logits["forget_test"].argmax(1) == 3).mean()
    assert metrics["unlearned/acc/forget_test"] == accuracy
    assert metrics["original/acc/forget_test"] - accuracy > 0.5
    assert about["method"] == "soft_prune"
    assert about["forget"] == [3]


def test_callback_at_the_end_of_fit_writes_the_same_request(open_job: Open):
    """`train forget= method=` unlearns what was just trained, as the job `unlearn` would."""
    overrides = ("forget=3", "method=soft_prune", "metrics.reference=none")
    experiment = open_job(*overrides, job="train")
    stored = train(experiment)
    folder = open_request(experiment).folder
    by_callback = torch.load(folder / "unlearned.ckpt", weights_only=True)["state_dict"]
    trained = torch.load(stored.checkpoint, weights_only=True)["state_dict"]
    assert any(not torch.equal(tensor, trained[name]) for name, tensor in by_callback.items())

    for path in folder.iterdir():
        path.unlink()
    unlearn(open_request(open_job(*overrides)))
    by_job = torch.load(folder / "unlearned.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(tensor, by_job[name]) for name, tensor in by_callback.items())


def test_bad_request_does_not_cost_a_training(open_job: Open):
    experiment = open_job("forget=77", "method=soft_prune", job="train")
    with pytest.raises(UsageError, match="77"):
        train(experiment)
    assert not experiment.runs.exists()


@pytest.mark.parametrize("half", ["forget=3", "method=soft_prune"])
def test_half_a_request_is_refused(open_job: Open, half: str):
    with pytest.raises(UsageError, match="both forget=CLASS and method=NAME"):
        train(open_job(half, job="train"))


def test_run_directory_explains_itself(request_job: Open):
    experiment = request_job()
    unlearn(open_request(experiment))
    folder = open_request(experiment).folder
    files = {path.name for path in folder.iterdir()}
    assert {
        "config.yaml", "env.json", "splits.npz", "run.json", "metrics.json", "outputs.npz",
        "unlearned.ckpt", "status.json",
    } <= files  # fmt: skip
    assert read_json(folder / "status.json")["state"] == "done"
    for key, value in read_json(folder / "metrics.json").items():
        phase, _, name = key.partition("/")
        assert phase in {"original", "unlearned", "retrained"}
        figure(name)
        assert value is None or isinstance(value, float)


def test_second_call_does_nothing(request_job: Open, monkeypatch: pytest.MonkeyPatch):
    first = unlearn(open_request(request_job()))
    monkeypatch.setattr("orthounlearn.engine.unlearn.carry_out", None)
    assert unlearn(open_request(request_job())) == first


def test_retrained_reference_gives_the_gaps(request_job: Open):
    metrics = unlearn(open_request(request_job("metrics.reference=train")))
    assert metrics["retrained/acc/forget_test"] == 0
    for key in ("acc/retain_test", "mia/pop_margin/auc"):
        expected = metrics[f"unlearned/{key}"] - metrics[f"retrained/{key}"]
        assert metrics[f"unlearned/{key}_gap"] == pytest.approx(expected)
    assert 0 <= metrics["unlearned/tow"] <= 1


def test_retrain_is_its_own_reference(request_job: Open):
    metrics = unlearn(open_request(request_job("method=retrain", "metrics.reference=train")))
    assert metrics["unlearned/avg_gap"] == 0
    assert metrics["unlearned/kl/retain"] == 0
    assert metrics["unlearned/time/unlearn_s"] > 1e-2  # the training, not the reading of its file


def test_a_reference_that_is_trained_meanwhile_does_not_move_the_run(open_job: Callable):
    """`reference=auto`, and the method itself trains the retrained network."""
    request = open_request(open_job("forget=6", "method=retrain"))
    folder = request.folder
    metrics = unlearn(request)
    assert request.folder == folder
    assert (folder / "certificate.md").exists()
    assert [path for path in folder.parent.iterdir() if path.is_dir()] == [folder]
    assert unlearn(request) == metrics
    later = open_request(open_job("forget=6", "method=retrain"))
    assert later.folder != folder  # now there is something to compare with
    assert unlearn(later)["unlearned/acc/retain_test_gap"] == 0


def test_masked_logit_forgets_and_keeps_the_rest(request_job: Open):
    metrics = unlearn(open_request(request_job("method=mask_logit")))
    assert metrics["unlearned/acc/forget_train"] == 0
    assert metrics["unlearned/acc/retain_test"] >= metrics["original/acc/retain_test"]


def test_several_classes_at_once(request_job: Open):
    metrics = unlearn(open_request(request_job("forget=[3,8]", "method=mask_logit")))
    assert metrics["unlearned/acc/forget_test"] == 0
    assert "unlearned/acc/retain_test_per_class/3" not in metrics


def test_checkpoint_of_a_user_is_unlearned_and_left_alone(request_job: Open, tmp_path: Path):
    stored = ensure_trained(request_job(), seed=0)
    mine = tmp_path / "mine.pt"
    torch.save(torch.load(stored.checkpoint, weights_only=True)["state_dict"], mine)
    before = mine.read_bytes()
    metrics = unlearn(open_request(request_job(f"checkpoint={mine}")))
    assert mine.read_bytes() == before
    same = unlearn(open_request(request_job()))
    assert metrics["unlearned/acc/retain_test"] == same["unlearned/acc/retain_test"]
    statistics = list(tmp_path.glob("mine.pt.kept-*/*.safetensors"))
    assert len(statistics) == 1

    first = metrics["unlearned/time/prep_s"]
    metrics = unlearn(open_request(request_job(f"checkpoint={mine}", "forget=5")))
    assert metrics["unlearned/time/prep_s"] > first / 20  # what was measured before still counts


def test_statistics_of_a_replaced_file_are_measured_anew(request_job: Open, tmp_path: Path):
    """Two networks of one shape, one after the other under the same name."""
    mine = tmp_path / "mine.pt"
    for seed in (0, 1):
        stored = ensure_trained(request_job(), seed=seed)
        torch.save(torch.load(stored.checkpoint, weights_only=True)["state_dict"], mine)
        unlearn(open_request(request_job(f"checkpoint={mine}", "forget=7")))
    kept = [load_file(path) for path in tmp_path.glob("mine.pt.kept-*/*.safetensors")]
    assert len(kept) == 2
    assert any(not torch.equal(one, kept[1][name]) for name, one in kept[0].items())


def test_statistics_of_other_images_are_measured_anew(request_job: Open, tmp_path: Path):
    """One network, and requests on two sets of training images."""
    stored, mine = ensure_trained(request_job(), seed=0), tmp_path / "mine.pt"
    torch.save(torch.load(stored.checkpoint, weights_only=True)["state_dict"], mine)
    for share in (0.1, 0.3):
        overrides = f"checkpoint={mine}", "forget=2", f"data.val_fraction={share}"
        unlearn(open_request(request_job(*overrides)))
    kept = [load_file(path) for path in tmp_path.glob("mine.pt.kept-*/*.safetensors")]
    assert len(kept) == 2
    assert kept[0]["counts"].sum() != kept[1]["counts"].sum()


def test_evaluate_audits_a_file_as_it_is(request_job: Open):
    experiment = request_job()
    metrics = unlearn(open_request(experiment))
    path = open_request(experiment).folder / "unlearned.ckpt"
    found = evaluate(open_request(request_job(f"checkpoint={path}", job="evaluate")))
    assert found["unlearned/acc/forget_test"] == metrics["unlearned/acc/forget_test"]
    assert "unlearned/time/unlearn_s" not in found


@pytest.mark.parametrize("other", ["+trainer.max_steps=1", "data.crop_padding=3", "model.depth=32"])
def test_how_a_users_file_is_run_and_fitted_is_part_of_the_key(
    request_job: Open, tmp_path: Path, other: str
):
    (tmp_path / "mine.pt").write_bytes(b"opened later")
    given = f"checkpoint={tmp_path / 'mine.pt'}", "method=fine_tune"
    keys = {open_request(request_job(*given, *more)).key for more in ((), (other,))}
    assert len(keys) == 2


OWN_METHOD = """
from orthounlearn.methods.mask_logit import MaskLogit

class Own(MaskLogit):
    pass
"""


def test_source_of_a_users_method_is_part_of_the_key(
    request_job: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "own_method_module.py"
    path.write_text(OWN_METHOD)
    monkeypatch.syspath_prepend(tmp_path)
    experiment = request_job("method=mask_logit", "method._target_=own_method_module.Own")
    key = open_request(experiment).key
    path.write_text(OWN_METHOD + "# edited\n")
    assert open_request(experiment).key != key


def test_damaged_original_leaves_no_run_directory(request_job: Open, tmp_path: Path):
    experiment = request_job()
    given = ensure_trained(experiment, seed=0).checkpoint
    (tmp_path / "damaged.pt").write_text("no network")
    files = f"checkpoint={given}", f"original={tmp_path / 'damaged.pt'}"
    request = open_request(request_job(*files, job="evaluate"))
    with pytest.raises(UsageError, match=r"damaged\.pt"):
        evaluate(request)
    assert not request.folder.exists()


@pytest.mark.parametrize(
    "option", ["recipe.epochs", "recipe.batch_size", "metrics.batch_size", "metrics.max_images"]
)
def test_sizes_are_refused_before_anything_is_written(open_job: Open, option: str):
    with pytest.raises(UsageError, match=f"{option} to be at least 1, but got 0"):
        open_job(f"{option}=0")


def test_missing_checkpoint_is_named(request_job: Open):
    with pytest.raises(UsageError, match=r"/no/file\.pt is not there"):
        unlearn(open_request(request_job("checkpoint=/no/file.pt")))


def test_damaged_statistics_are_named(open_job: Open):
    experiment = open_job("forget=3", "metrics.reference=none")
    unlearn(open_request(experiment))
    folder = ensure_trained(experiment, seed=0).folder
    (statistics,) = folder.glob("statistics-*.safetensors")
    statistics.write_bytes(statistics.read_bytes()[:60])
    with pytest.raises(UsageError, match="Delete the file"):
        unlearn(open_request(open_job("forget=4", "metrics.reference=none")))


def test_unknown_reference_is_refused(request_job: Open):
    with pytest.raises(UsageError, match="auto, train or none"):
        unlearn(open_request(request_job("metrics.reference=maybe")))


def test_diverging_method_is_explained_and_writes_no_network(open_job: Open):
    experiment = open_job(
        "forget=3", "method=fine_tune", "method.optimizer.lr=1e18", "metrics.reference=none"
    )
    with pytest.raises(UsageError, match=r"FineTune diverged.*method\.optimizer\.lr"):
        unlearn(open_request(experiment))
    folder = open_request(experiment).folder
    assert not (folder / "unlearned.ckpt").exists()
    assert not (folder / "metrics.json").exists()


def test_request_on_real_cifar10(open_job: Open, cifar10_root: Path):
    """The official sizes, through the whole path, with a network that has hardly learned."""
    experiment = open_job(
        "data=cifar10", f"data.root={cifar10_root}", "model=resnet18_thin", "model.width=4",
        "recipe.epochs=1", "trainer.limit_train_batches=10", "trainer.limit_val_batches=1",
        "metrics.max_images=500", "metrics.reference=none", "forget=cat", "method=soft_prune",
    )  # fmt: skip
    metrics = unlearn(open_request(experiment))
    request = open_request(experiment)
    assert {name: len(request.splits[name]) for name in SPLIT_NAMES} == {
        "forget_train": 4500, "forget_val": 500, "forget_test": 500, "forget_probe": 500,
        "retain_train": 40500, "retain_val": 4500, "retain_test": 9000,
    }  # fmt: skip
    outputs = load_outputs(request.folder / "outputs.npz")
    # About 500 of nine classes alike are 56 of each.
    assert {name: len(labels) for name, labels in outputs.labels.items()} == {
        "forget_train": 4500, "forget_test": 500, "forget_probe": 500, "retain_train": 504,
        "retain_val": 504, "retain_test": 9000,
    }  # fmt: skip
    assert set(outputs.labels["forget_test"].tolist()) == {3}
    assert 0 <= metrics["unlearned/probe/k10"] <= 1
