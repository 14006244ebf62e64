"""A user's network that does not fit is named before anything is trained or written."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.request import open_request
from orthounlearn.engine.store import ensure_trained
from orthounlearn.engine.unlearn import evaluate, unlearn
from orthounlearn.errors import UsageError
from tests.engine.toy_networks import Pair

Open = Callable[..., Experiment]


def own(name: str) -> tuple[str, ...]:
    target = f"model._target_=tests.engine.toy_networks.{name}"
    return "model=custom", "~model.width", target, "recipe.epochs=1"


WRONG = {
    "Pair": "eval mode it returns a tuple",
    "Named": "eval mode it returns a dict",
    "Auxiliary": "training mode it returns a tuple",
    "Thousand": r"returns \(2, 1000\).*num_classes",
    "Failing": "raises RuntimeError: mat1",
}


@pytest.mark.parametrize("name", WRONG)
def test_network_that_is_no_classifier_is_named(open_job: Open, name: str):
    experiment = open_job(*own(name), "regularizer=none")
    expected = rf"Expected tests.engine.toy_networks.{name} to return logits \(2, 10\)"
    with pytest.raises(UsageError, match=f"(?s){expected}.*{WRONG[name]}"):
        ensure_trained(experiment, seed=0)
    assert not experiment.runs.exists()


@pytest.mark.parametrize("job", ["unlearn", "evaluate"])
def test_so_is_one_whose_weights_are_given(open_job: Open, tmp_path: Path, job: str):
    torch.save(Pair(10, 1, 8).state_dict(), tmp_path / "mine.pt")
    chosen = ("method=mask_logit",) if job == "unlearn" else ()
    experiment = open_job(
        *own("Pair"), *chosen, f"checkpoint={tmp_path / 'mine.pt'}", "forget=3", job=job
    )
    with pytest.raises(UsageError, match="returns a tuple"):
        (unlearn if chosen else evaluate)(open_request(experiment))
    assert not experiment.runs.exists()


def test_network_without_convolutions_needs_no_regularizer(open_job: Open):
    with pytest.raises(UsageError, match=r"no convolution at all.*regularizer=none"):
        ensure_trained(open_job(*own("Dense")), seed=0)
    assert ensure_trained(open_job(*own("Dense"), "regularizer=none"), seed=0).is_trained


def test_sites_that_there_are_are_named(open_job: Open):
    """Of GroupNorm the channels cannot be followed to the classifier."""
    experiment = open_job(*own("Grouped"), "forget=3", "metrics.reference=none")
    with pytest.raises(UsageError, match=r"'last' matches nothing.*method\.sites=convs"):
        unlearn(open_request(experiment))


@pytest.mark.parametrize("text", ["def net(:", "net = 1 / 0"])
def test_module_that_cannot_be_run_is_named(
    open_job: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
):
    (tmp_path / "broken_module.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    error = "SyntaxError" if "def" in text else "ZeroDivisionError"
    with pytest.raises(UsageError, match=rf"'broken_module\.net', but its module raises {error}"):
        open_job("model=custom", "~model.width", "model._target_=broken_module.net")
