"""What a run says of the network and the method that it is of, for whoever averages over runs."""

from collections.abc import Callable

import pytest

from orthounlearn.engine.experiment import Experiment
from orthounlearn.engine.identity import network_kind, settings_kind
from orthounlearn.engine.request import AUDIT_VERSION, open_request
from orthounlearn.engine.store import ensure_trained
from orthounlearn.engine.unlearn import evaluate, unlearn
from orthounlearn.files import file_digest, read_json

Open = Callable[..., Experiment]
SHARED = ("forget=3", "recipe.epochs=6", "metrics.reference=none")


@pytest.fixture
def told(open_shared: Open) -> Callable[..., tuple[str, str]]:
    def of(*overrides: str) -> tuple[str, str]:
        request = open_request(open_shared(*SHARED, *overrides))
        return network_kind(request), settings_kind(request)

    return of


@pytest.mark.parametrize(
    "override",
    ["seed=1", "forget=4", "metrics=full", "method.inverse=undo.safetensors", "method.gate=null",
     "method.search=null", "trainer.enable_progress_bar=true"],
)  # fmt: skip
def test_what_a_row_averages_over_has_one_network_and_settings(told: Callable, override: str):
    assert told(override) == told()


@pytest.mark.parametrize(
    "override",
    ["recipe.epochs=7", "model.width=8", "regularizer=none", "optimizer.lr=0.01",
     "data.val_fraction=0.2", "trainer.precision=32-true"],
)  # fmt: skip
def test_another_training_is_another_network(told: Callable, override: str):
    (network, settings), plain = told(override), told()
    assert network != plain[0]
    assert settings == plain[1]


def test_another_option_is_another_choice_of_settings(told: Callable):
    (network, settings), plain = told("method.rate=0.5"), told()
    assert (network == plain[0], settings == plain[1]) == (True, False)
    assert told("method=mask_logit")[1] != told("method=zero_row")[1]


def test_a_run_says_what_it_is_of(open_shared: Open, told: Callable):
    request = open_request(open_shared(*SHARED))
    unlearn(request)
    identity = read_json(request.folder / "run.json")
    assert (identity["network"], identity["settings"]) == told()
    assert identity["audit"] == AUDIT_VERSION

    original = ensure_trained(request.experiment, seed=0).checkpoint
    own = open_request(open_shared(*SHARED, f"checkpoint={original}"))
    assert network_kind(own) == file_digest(original)[:8]
    assert settings_kind(own) == told()[1]

    elsewhere = f"checkpoint={request.checkpoint}"
    for given, network in ((None, told()[0]), (original, file_digest(original)[:8])):
        more = [f"original={given}"] if given else []
        audited = open_request(open_shared(*SHARED, elsewhere, *more, job="evaluate"))
        evaluate(audited)
        identity = read_json(audited.folder / "run.json")
        assert identity["network"] == network
        assert identity["settings"] == file_digest(request.checkpoint)[:8]
