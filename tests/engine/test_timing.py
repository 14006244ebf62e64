"""Timing does not change what is timed."""

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from orthounlearn.engine import timing
from orthounlearn.engine.timing import carry_out
from orthounlearn.errors import UsageError
from orthounlearn.methods.base import UnlearningMethod


def context(stored_seconds: float = 0.0) -> Any:
    return SimpleNamespace(
        example=torch.zeros(1), preparing=nullcontext, stored_seconds=stored_seconds
    )


class ZeroFirst(UnlearningMethod):
    """Zeroes a layer that `prepare` has found; notes each call."""

    training_free = True
    calls: list[str]

    def __init__(self) -> None:
        self.calls = calls = []
        ZeroFirst.calls = calls

    def prepare(self, net: nn.Module, context: Any) -> None:  # noqa: ARG002
        ZeroFirst.calls.append("prepare")
        self.layer = net[0]

    def unlearn(self, net: nn.Module, context: Any) -> nn.Module:  # noqa: ARG002
        ZeroFirst.calls.append("unlearn")
        assert self.layer is net[0], "a copy of the method works on the original network"
        assert self.layer.weight.any(), "an earlier run has edited this network"
        self.layer.weight.data.zero_()
        return net


def test_preparation_runs_once_and_the_request_on_copies():
    net = nn.Sequential(nn.Linear(2, 2))
    timed = carry_out(ZeroFirst(), net, context())
    assert ZeroFirst.calls.count("prepare") == 1
    assert ZeroFirst.calls.count("unlearn") > 2
    assert timed.net is net
    assert not net[0].weight.any()


def test_a_long_request_is_not_repeated_for_a_median(monkeypatch: pytest.MonkeyPatch):
    clock = iter(range(0, 1000, 2))  # every request takes two seconds
    monkeypatch.setattr(timing, "now", lambda _: float(next(clock)))
    timed = carry_out(ZeroFirst(), nn.Sequential(nn.Linear(2, 2)), context())
    assert ZeroFirst.calls.count("unlearn") == 2
    assert timed.unlearn_s == 2


def test_what_an_earlier_request_has_prepared_counts():
    timed = carry_out(ZeroFirst(), nn.Sequential(nn.Linear(2, 2)), context(stored_seconds=7.0))
    assert 7.0 < timed.prepare_s < 8.0
    assert timed.unlearn_s < 1.0


class Earlier(ZeroFirst):
    """Its result was made before: what it took then is what counts."""

    training_free = False
    unlearn_seconds = 12.5


def test_seconds_of_an_earlier_computation_are_taken_over():
    timed = carry_out(Earlier(), nn.Sequential(nn.Linear(2, 2)), context())
    assert timed.unlearn_s == 12.5
    assert ZeroFirst.calls == ["prepare", "unlearn"]


class Diverges(ZeroFirst):
    def unlearn(self, net: nn.Module, context: Any) -> nn.Module:  # noqa: ARG002
        net[0].weight.data.fill_(float("nan"))
        return net


def test_a_destroyed_network_is_refused():
    with pytest.raises(UsageError, match="Diverges diverged"):
        carry_out(Diverges(), nn.Sequential(nn.Linear(2, 2)), context())
