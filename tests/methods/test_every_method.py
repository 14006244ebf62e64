"""Promises of every method, found by enumeration: a new file is tested without a line here."""

import copy
import importlib
import inspect
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn

import orthounlearn.methods
from orthounlearn.cli import CONF_DIR
from orthounlearn.config.build import build
from orthounlearn.engine.context import RequestContext
from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.store import ensure_trained
from orthounlearn.engine.timing import run_once
from orthounlearn.methods.base import LossMethod, UnlearningMethod

CONFIGS = sorted(Path(CONF_DIR, "method").glob("*.yaml"))
NAMES = [path.stem for path in CONFIGS]
FORGET = (3,)


def method_classes() -> dict[str, type[UnlearningMethod]]:
    files = Path(orthounlearn.methods.__file__).parent.glob("*.py")
    modules = [importlib.import_module(f"orthounlearn.methods.{file.stem}") for file in files]
    return {
        name: kind
        for module in modules
        for name, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, UnlearningMethod) and not inspect.isabstract(kind)
    }


@pytest.fixture(scope="module")
def experiments(open_shared) -> Callable[[str], Experiment]:
    def experiment(name: str) -> Experiment:
        short = []
        node = open_shared(f"method={name}").config["method"]
        if "epochs" in node:
            short.append("method.epochs=1")
        return open_shared(f"method={name}", *short)

    return experiment


def carry_out(experiment: Experiment, *, seed: int = 0) -> tuple[nn.Module, nn.Module]:
    """Return the original and the unlearned network."""
    stored = ensure_trained(experiment, seed=0)
    method = build(experiment.config["method"], UnlearningMethod)
    context = RequestContext(
        experiment, method, splits=experiment.splits(FORGET), seed=seed,
        statistics_folder=stored.folder,
    )  # fmt: skip
    return stored.load(experiment), run_once(method, stored.load(experiment), context)


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_every_class_has_a_config_and_every_config_a_class():
    targets = {yaml.safe_load(p.read_text()).get("_target_") for p in CONFIGS} - {None}
    assert {target.rpartition(".")[2] for target in targets} == set(method_classes())


@pytest.mark.parametrize("name", NAMES)
def test_config_is_named_like_its_file_and_says_what_it_is(name: str, experiments):
    node = experiments(name).config["method"]
    assert node["name"] == name
    kind = type(build(node, UnlearningMethod))
    assert inspect.getdoc(kind)
    assert inspect.getmodule(kind).__doc__


@pytest.mark.parametrize("name", NAMES)
def test_search_spaces_name_options_that_exist(name: str, experiments):
    node = experiments(name).config["method"]
    for key, space in (node.get("search") or {}).items():
        value = node
        for part in key.split("."):
            value = value[part]
        assert {"choices"} <= space.keys() or {"low", "high"} <= space.keys()
        if "low" in space and not isinstance(value, str):
            assert space["low"] <= value <= space["high"]


@pytest.mark.parametrize("name", NAMES)
def test_result_is_a_whole_network(name: str, experiments):
    original, unlearned = carry_out(experiments(name))
    assert unlearned.state_dict().keys() >= original.state_dict().keys()
    assert all(t.isfinite().all() for t in unlearned.state_dict().values())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in unlearned.modules())
    images = torch.randn(4, 1, 8, 8)
    assert unlearned.eval()(images).shape == (4, 10)


@pytest.mark.parametrize("name", NAMES)
def test_original_file_is_never_changed(name: str, experiments):
    experiment = experiments(name)
    stored = ensure_trained(experiment, seed=0)
    before = stored.checkpoint.read_bytes()
    carry_out(experiment)
    assert stored.checkpoint.read_bytes() == before


@pytest.mark.parametrize("name", NAMES)
def test_seed_determines_the_result(name: str, experiments):
    experiment = experiments(name)
    assert same(carry_out(experiment)[1], carry_out(experiment)[1])


@pytest.mark.parametrize("name", [n for n in NAMES if n != "original"])
def test_something_changes(name: str, experiments):
    original, unlearned = carry_out(experiments(name))
    assert original.state_dict().keys() != unlearned.state_dict().keys() or not same(
        original, unlearned
    )


class Witness(RequestContext):
    """Notes which sets are read in which phase."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)
        self.seen: dict[bool, set[str]] = {True: set(), False: set()}

    def _loader(self, split: str, **options: object):
        self.seen[self._preparing].add(split)
        return super()._loader(split, **options)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "retrain"])
def test_declared_sets_are_the_ones_that_are_read(name: str, experiments, tmp_path: Path):
    experiment = experiments(name)
    stored = ensure_trained(experiment, seed=0)
    method = build(experiment.config["method"], UnlearningMethod)
    context = Witness(
        experiment, method, splits=experiment.splits(FORGET), seed=0, statistics_folder=tmp_path
    )
    run_once(method, stored.load(experiment), context)
    assert context.seen == {True: set(method.prepare_uses), False: set(method.uses)}
    if method.training_free:
        assert not method.uses


@pytest.mark.parametrize("name", NAMES)
def test_request_is_unknown_while_preparing(name: str, experiments):
    experiment = experiments(name)
    method = build(experiment.config["method"], UnlearningMethod)
    context = RequestContext(
        experiment, method, splits=experiment.splits(FORGET), seed=0,
        statistics_folder=Path("/nowhere"),
    )  # fmt: skip
    with context.preparing(), pytest.raises(PermissionError):
        _ = context.forget
    assert context.forget == FORGET


def test_undeclared_sets_are_refused(experiments):
    experiment = experiments("original")
    method = build(experiment.config["method"], UnlearningMethod)
    context = RequestContext(
        experiment, method, splits=experiment.splits(FORGET), seed=0,
        statistics_folder=Path("/nowhere"),
    )  # fmt: skip
    with pytest.raises(PermissionError, match="retain_train"):
        next(iter(context.batches("retain_train", batch_size=4)))


@pytest.mark.parametrize(
    "kind", [k for k in method_classes().values() if issubclass(k, LossMethod)]
)
def test_losses_are_finite_scalars_with_gradients(kind: type[LossMethod]):
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    batch = {split: (torch.randn(6, 1, 2, 2), torch.arange(6) % 3) for split in kind.uses}
    method = kind(optimizer=torch.optim.SGD, epochs=1, batch_size=6, batch_norm="train")
    loss: Tensor = method.loss(net, batch)
    assert loss.shape == ()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_frozen_norms_keep_their_statistics(experiments):
    experiment = experiments("gradient_ascent")
    original, unlearned = carry_out(experiment)
    for name, buffer in original.named_buffers():
        assert torch.equal(buffer, unlearned.get_buffer(name)), name
    assert not same(original, unlearned)
    copy.deepcopy(unlearned)
