"""The relearning audit on real digits: who relearns, and on which images."""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import orthounlearn.engine.audit.relearn as engine
from orthounlearn.config.build import build
from orthounlearn.data.splits import Splits
from orthounlearn.engine.audit.predict import predict
from orthounlearn.engine.audit.relearn import Relearned, relearn
from orthounlearn.engine.context import RequestContext
from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.store import ensure_trained
from orthounlearn.engine.timing import run_once
from orthounlearn.errors import UsageError
from orthounlearn.methods.base import UnlearningMethod
from orthounlearn.metrics.accuracy import micro_accuracy
from orthounlearn.metrics.relearn import Accuracies, area_ratio
from orthounlearn.metrics.suite import Outputs

FORGET = (3,)
SETTINGS: dict[str, Any] = {
    "images": 20,
    "steps": 40,
    "every": 5,
    "learning_rates": [1e-2],
    "batch_size": 64,
    "batch_norm": "frozen",
    "reset_row": False,
    "max_test_images": 1000,
}
SHORT = SETTINGS | {"steps": 4, "every": 2, "batch_size": 32}


@pytest.fixture(scope="module")
def experiment(open_shared: Callable[..., Experiment]) -> Experiment:
    return open_shared("recipe.epochs=6", "method=mask_logit")


@pytest.fixture(scope="module")
def splits(experiment: Experiment) -> Splits:
    return experiment.splits(FORGET)


@pytest.fixture(scope="module")
def original(experiment: Experiment) -> nn.Module:
    return ensure_trained(experiment, seed=0).load(experiment)


@pytest.fixture(scope="module")
def known(experiment: Experiment, splits: Splits, original: nn.Module) -> Accuracies:
    outputs = predict(experiment, original, splits, ("forget_test", "retain_test"))
    return Accuracies(
        micro_accuracy(*outputs["forget_test"]), micro_accuracy(*outputs["retain_test"])
    )


@pytest.fixture(scope="module")
def attack(experiment: Experiment, splits: Splits, known: Accuracies) -> Callable[..., Relearned]:
    def run(net: nn.Module, settings: dict[str, Any] = SETTINGS) -> Relearned:
        return relearn(experiment, net, splits, settings, original=known)

    return run


@pytest.fixture(scope="module")
def retrained(experiment: Experiment, attack: Callable[..., Relearned]) -> Relearned:
    stored = ensure_trained(experiment, without=FORGET, seed=0)
    return attack(stored.load(experiment))


def masked(experiment: Experiment, splits: Splits) -> nn.Module:
    stored = ensure_trained(experiment, seed=0)
    method = build(experiment.config["method"], UnlearningMethod)
    context = RequestContext(experiment, method, splits=splits, seed=0, kept_folder=stored.folder)
    return run_once(method, stored.load(experiment), context)


def steps_of(found: Relearned) -> float:
    return found.values["relearn/lr0.01/steps"]


def area_of(found: Relearned) -> float:
    return found.values["relearn/lr0.01/area"]


def test_original_has_nothing_to_relearn(attack, original: nn.Module, known: Accuracies):
    found = attack(original, SHORT)
    curve = found.curves["lr0.01"]
    assert steps_of(found) == 0
    assert curve.forget_S[0] == known.forget > 0.3
    assert curve.retain_S[0] == known.retain > 0.8


def test_masked_logit_comes_back_long_before_the_retrained_class(
    attack, experiment: Experiment, splits: Splits, retrained: Relearned
):
    net = masked(experiment, splits)
    outputs = predict(experiment, net, splits, ("forget_test",))
    assert micro_accuracy(*outputs["forget_test"]) == 0
    found = attack(net)
    never = SETTINGS["steps"]
    theirs = never if np.isnan(steps_of(retrained)) else steps_of(retrained)
    assert steps_of(found) <= 0.3 * theirs
    assert area_of(found) > 0.4
    assert not area_ratio(area_of(found), area_of(retrained)) < 1.3  # nan: theirs is 0


def test_untrained_network_does_not_count_as_relearning(
    attack, experiment: Experiment, known: Accuracies
):
    """It soon calls every image the forgotten class, which is not knowing the class."""
    found = attack(experiment.new_net(5).eval())
    assert found.curves["lr0.01"].forget_S.max() >= 0.95 * known.forget
    assert np.isnan(steps_of(found))
    assert area_of(found) == 0


def test_each_learning_rate_has_its_keys_and_curves(attack, original: nn.Module):
    found = attack(original, SHORT | {"learning_rates": [1e-3, 1e-2]})
    assert found.values.keys() == {
        f"relearn/{rate}/{kind}" for rate in ("lr0.001", "lr0.01") for kind in ("steps", "area")
    }
    assert found.lines.keys() == {
        f"{rate}/{kind}" for rate in ("lr0.001", "lr0.01") for kind in ("steps", "forget", "retain")
    }
    assert all(array.shape == (3,) for array in found.lines.values())
    np.testing.assert_array_equal(found.lines["lr0.01/steps"], [0, 2, 4])
    alone = attack(original, SHORT)
    assert alone.values.items() <= found.values.items()  # one rate does not disturb the next


def test_same_bits_and_everything_as_it_was_found(attack, experiment: Experiment):
    net = ensure_trained(experiment, without=FORGET, seed=0).load(experiment)
    next(net.children()).train()  # a mode that no single switch would restore
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    settings = SHORT | {"batch_norm": "train", "reset_row": True}
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    first = attack(net, settings)
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert random.getstate() == states[2]

    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())

    torch.rand(5)
    again = attack(net, settings)
    for name, array in first.lines.items():
        np.testing.assert_array_equal(array, again.lines[name])


class Watched:
    """Images that note which of them are read, and for what."""

    purpose = "trained"

    def __init__(self, images: np.ndarray) -> None:
        self._images = images
        self.shape = images.shape
        self.seen: dict[str, set[int]] = {"trained": set(), "evaluated": set()}

    def __getitem__(self, chosen: np.ndarray) -> np.ndarray:
        self.seen[Watched.purpose].update(chosen.tolist())
        return self._images[chosen]


def test_only_fresh_and_retained_images_are_trained_on(
    experiment: Experiment, original: nn.Module, known: Accuracies, monkeypatch: pytest.MonkeyPatch
):
    data, forget = experiment.data, (3, 8)
    train, test = Watched(data.train.images_NHWC), Watched(data.test.images_NHWC)
    parts = {
        "train": replace(data.train, images_NHWC=train),
        "test": replace(data.test, images_NHWC=test),
    }

    def evaluate(*arguments: Any) -> Outputs:
        with monkeypatch.context() as patch:
            patch.setattr(Watched, "purpose", "evaluated")
            return predict(*arguments)

    monkeypatch.setattr(engine, "predict", evaluate)
    splits = experiment.splits(forget)
    settings = SHORT | {"images": 5, "max_test_images": 80, "batch_size": 200, "steps": 6}
    watching = replace(experiment, data=replace(data, **parts))
    relearn(watching, original, splits, settings, original=known)

    assert train.seen["trained"] == set(splits.retain_train.tolist())  # 6 of 200 are one pass
    assert not train.seen["evaluated"]
    labels = data.test.labels_N
    fresh = np.array(sorted(test.seen["trained"]))
    assert set(fresh) <= set(splits.forget_probe)
    assert labels[fresh].tolist().count(3) == labels[fresh].tolist().count(8) == 5
    asked = np.array(sorted(test.seen["evaluated"]))
    retained = asked[~np.isin(labels[asked], forget)]
    assert set(asked) - set(retained) == set(splits.forget_test)
    assert set(retained) <= set(splits.retain_test)
    counts = np.bincount(labels[retained], minlength=10)[[0, 1, 2, 4, 5, 6, 7, 9]]
    assert counts.sum() == pytest.approx(80, abs=4)
    assert counts.max() - counts.min() <= 1


def test_divergence_is_no_relearning_and_no_crash(
    attack, experiment: Experiment, caplog: pytest.LogCaptureFixture
):
    net = ensure_trained(experiment, without=FORGET, seed=0).load(experiment)
    found = attack(net, SHORT | {"learning_rates": [1e20]})
    assert np.isnan(found.values["relearn/lr1e+20/steps"])
    assert found.values["relearn/lr1e+20/area"] == 0
    assert np.isnan(found.curves["lr1e+20"].forget_S[-1])
    assert "diverged" in caplog.text


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("images", 0), ("steps", 0), ("every", 0), ("batch_size", 0), ("max_test_images", 0),
        ("steps", 5), ("batch_norm", "eval"), ("learning_rates", []), ("learning_rates", [0.1, 0]),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(attack, original: nn.Module, setting: str, value: Any):
    with pytest.raises(UsageError, match=f"metrics.relearn.{setting}"):
        attack(original, SHORT | {setting: value})
