"""Network files: ours, Lightning's, a plain state dict, or safetensors."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from orthounlearn.errors import UsageError
from orthounlearn.files import writing

_HOLDERS = ("state_dict", "model_state_dict", "model", "net")
"""Keys under which training scripts put the weights, beside optimiser and epoch."""

_PREFIXES = ("net.", "model.", "module.", "_orig_mod.", "backbone.")
"""What wrappers (Lightning modules, DDP, torch.compile) put before the names of weights."""


def save_network(net: nn.Module, path: Path, *, about: Mapping[str, Any]) -> None:
    """Write the weights and notes (plain types only) to a checkpoint, atomically."""
    state = {name: tensor.detach().cpu() for name, tensor in net.state_dict().items()}
    with writing(path) as temporary:
        torch.save({"state_dict": state, "about": dict(about)}, temporary)


def load_network(net: nn.Module, path: Path) -> dict[str, Any]:
    """Load weights into a network of the same architecture; return the notes of the file.

    Nothing in the file is executed (`weights_only`).

    Raises:
        UsageError: The file is missing, damaged, or of another architecture or class count.
    """
    stored = _read(path)
    about = stored.get("about", {}) if isinstance(stored.get("about", {}), dict) else {}
    expected = net.state_dict()
    state = _strip_prefix(_weights(stored, path), expected)
    problems = [f"{name} is missing" for name in expected.keys() - state.keys()]
    problems += [f"{name} is not in the network" for name in state.keys() - expected.keys()]
    problems += [
        f"{name} has shape {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in expected.keys() & state.keys()
        if state[name].shape != expected[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise UsageError(
            f"Expected {path} to hold the weights of this {type(net).__name__}, but: "
            f"{'; '.join(sorted(problems)[:4])}{more}. Choose the network with model=NAME "
            "(and its width and class count) that the file was made with."
        )
    net.load_state_dict(state)
    return about


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "is not there"
        raise UsageError(f"Expected a checkpoint file, but {path} {found}.")
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle raises almost anything for what is no pickle
        raise UsageError(
            f"Cannot read the checkpoint {path}: {_reason(error)} Expected a .ckpt or "
            ".pt file with a state dict of tensors and plain values (it is read with "
            "weights_only=True), or a .safetensors file."
        ) from error
    if not isinstance(stored, dict):
        raise UsageError(
            f"Expected a state dict in {path}, but got a {type(stored).__name__}. Save "
            "net.state_dict() instead of the network."
        )
    return stored


def _reason(error: Exception) -> str:
    """Return what a reader says, unless it means nothing but that the file is another kind."""
    if "Weights only load failed" in str(error):
        return (
            "it holds Python objects beside tensors, as torch.save(net) writes them, and reading "
            "those could execute code. Save net.state_dict() instead of the network."
        )
    told = isinstance(error, SafetensorError | pickle.UnpicklingError | RuntimeError | OSError)
    line = next(iter(str(error).splitlines()), "") if told else ""
    return f"{line.rstrip('.')}." if line else "it is no file of torch.save."


def _weights(stored: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, from the key that holds them or from its top.

    Raises:
        UsageError: There are none.
    """
    held = [stored[key] for key in _HOLDERS if isinstance(stored.get(key), Mapping)]
    for place in (*held, stored):
        tensors = {
            name: value
            for name, value in place.items()
            if isinstance(name, str) and isinstance(value, Tensor)
        }
        if tensors:
            return tensors
    found = [f"{key} ({type(value).__name__})" for key, value in stored.items()]
    raise UsageError(
        f"Expected {path} to hold a state dict of tensors, at its top or as one of "
        f"{', '.join(_HOLDERS)}, but found {', '.join(found[:8]) or 'nothing'} in it. "
        "Save net.state_dict()."
    )


def _strip_prefix(tensors: dict[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove a wrapper's prefix, and entries beside the network's own (losses, metrics)."""
    if expected.keys() <= tensors.keys():
        return tensors
    for prefix in _PREFIXES:
        stripped = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        if expected.keys() & stripped.keys():
            return stripped
    return tensors
