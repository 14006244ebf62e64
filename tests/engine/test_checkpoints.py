"""Network files: what goes in comes out, nothing in them runs, mistakes are named."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from orthounlearn.engine.checkpoints import load_network, save_network
from orthounlearn.errors import UsageError
from orthounlearn.models import resnet


def network(**options: int) -> nn.Module:
    return resnet(**{"depth": 20, "num_classes": 4, "image_size": 8, "width": 4, **options})


def equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_checkpoint_reload_weights_only(tmp_path: Path):
    net, other = network(), network()
    save_network(net, tmp_path / "m.ckpt", about={"seed": 3, "classes": ["a", "b"]})
    torch.load(tmp_path / "m.ckpt", weights_only=True)
    assert load_network(other, tmp_path / "m.ckpt") == {"seed": 3, "classes": ["a", "b"]}
    assert equal(net, other)


@pytest.mark.parametrize("prefix", ["", "net.", "model.", "module.", "_orig_mod."])
def test_files_of_wrappers_are_understood(tmp_path: Path, prefix: str):
    """A Lightning checkpoint, DDP's, torch.compile's, with entries of losses and metrics beside."""
    net, other = network(), network()
    state = {prefix + name: tensor for name, tensor in net.state_dict().items()}
    torch.save(
        {"state_dict": {**state, **({"loss.w": torch.ones(1)} if prefix else {})}},
        tmp_path / "m.ckpt",
    )
    load_network(other, tmp_path / "m.ckpt")
    assert equal(net, other)


def test_plain_state_dict_and_safetensors(tmp_path: Path):
    net = network()
    torch.save(net.state_dict(), tmp_path / "m.pt")
    save_file({n: t.contiguous() for n, t in net.state_dict().items()}, tmp_path / "m.safetensors")
    for file in ("m.pt", "m.safetensors"):
        other = network()
        load_network(other, tmp_path / file)
        assert equal(net, other)


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model", "net"])
def test_weights_beside_an_optimizer_are_found(tmp_path: Path, key: str):
    net, other = network(), network()
    torch.save({"epoch": 3, "optimizer": {"lr": 0.1}, key: net.state_dict()}, tmp_path / "m.pt")
    load_network(other, tmp_path / "m.pt")
    assert equal(net, other)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"state_dict": [1]}, r"state_dict \(list\)"),
        ({"weights": {}, "epoch": 3}, r"weights \(dict\), epoch \(int\)"),
        ({0: torch.ones(1)}, r"0 \(Tensor\)"),
        ({}, "nothing"),
    ],
)
def test_keys_of_a_file_without_weights_are_named(tmp_path: Path, content: dict, found: str):
    torch.save(content, tmp_path / "m.pt")
    with pytest.raises(UsageError, match=rf"m\.pt to hold a state dict.*found {found} in it"):
        load_network(network(), tmp_path / "m.pt")


@pytest.mark.parametrize("text", ["hello world\n", "state", ""])
def test_text_is_said_to_be_no_checkpoint(tmp_path: Path, text: str):
    (tmp_path / "m.pt").write_text(text)
    with pytest.raises(UsageError, match=r"m\.pt: it is no file of torch\.save\. Expected"):
        load_network(network(), tmp_path / "m.pt")


class Attack:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_nothing_in_a_file_is_run(tmp_path: Path):
    torch.save({"state_dict": Attack(tmp_path / "owned")}, tmp_path / "evil.pt")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Attack(tmp_path / "owned")))
    for file in ("evil.pt", "evil.pkl"):
        with pytest.raises(UsageError, match="Cannot read"):
            load_network(network(), tmp_path / file)
    assert not (tmp_path / "owned").exists()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _text(path: Path) -> None:
    path.write_text("no network")


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _whole_module(path: Path) -> None:
    torch.save(network(), path)


def _list(path: Path) -> None:
    torch.save([torch.ones(2)], path)


@pytest.mark.parametrize("spoil", [_cut, _text, _empty, _whole_module, _list, Path.unlink])
def test_damaged_files_are_named_and_change_nothing(tmp_path: Path, spoil):
    path = tmp_path / "m.pt"
    torch.save(network().state_dict(), path)
    spoil(path)
    net = network()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(UsageError, match=r"m\.pt"):
        load_network(net, path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"width": 8}, "has shape"),
        ({"num_classes": 5}, r"classifier.* has shape \(5"),
        ({"depth": 32}, "is not in the network"),
    ],
)
def test_other_architectures_are_named(tmp_path: Path, other: dict[str, int], message: str):
    save_network(network(**other), tmp_path / "m.ckpt", about={})
    with pytest.raises(UsageError, match=message):
        load_network(network(), tmp_path / "m.ckpt")
