"""Kept preparation: made once for one network, whoever asks."""

from pathlib import Path

import pytest
import torch
from torch import nn

from orthounlearn.engine.kept import keep
from orthounlearn.errors import UsageError

MADE = {"edit": torch.arange(3.0)}


def refuse() -> dict[str, torch.Tensor]:
    raise AssertionError("It is there already.")


def linear(bias: float = 0.0) -> nn.Module:
    net = nn.Linear(2, 2)
    nn.init.constant_(net.weight, 1.0)
    nn.init.constant_(net.bias, bias)
    return net


def test_second_call_reads_what_the_first_made(tmp_path: Path):
    first = keep(tmp_path, linear(), "name", lambda: MADE)
    second = keep(tmp_path, linear(), "name", refuse)
    assert torch.equal(second.tensors["edit"], MADE["edit"])
    assert first.earlier_s == 0 < second.earlier_s


@pytest.mark.parametrize("other", [(linear(1.0), "name"), (linear(), "another")])
def test_other_weights_or_another_name_are_another_file(tmp_path: Path, other):
    keep(tmp_path, linear(), "name", lambda: MADE)
    found = keep(tmp_path, *other, lambda: {"edit": torch.zeros(1)})
    assert not found.tensors["edit"].any()


def test_nothing_is_left_of_what_failed(tmp_path: Path):
    with pytest.raises(AssertionError):
        keep(tmp_path, linear(), "name", refuse)
    assert not list(tmp_path.glob("*.safetensors"))
    assert keep(tmp_path, linear(), "name", lambda: MADE).earlier_s == 0


def test_damaged_file_is_named(tmp_path: Path):
    keep(tmp_path, linear(), "name", lambda: MADE)
    next(tmp_path.glob("*.safetensors")).write_bytes(b"damaged")
    with pytest.raises(UsageError, match=r"Delete the\s+file"):
        keep(tmp_path, linear(), "name", refuse)
