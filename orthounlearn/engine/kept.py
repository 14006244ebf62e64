"""Tensors that preparation made, kept beside the checkpoint that they belong to."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from orthounlearn.errors import UsageError
from orthounlearn.files import make_folder, writing

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Kept:
    """What was made or read.

    Attributes:
        path: Of the file.
        tensors: On the CPU.
        earlier_s: Seconds that an earlier call took to make them; 0 if this one did.
        waited_s: Seconds that passed here while something else made or read them.
    """

    path: Path
    tensors: Tensors
    earlier_s: float
    waited_s: float


def keep(folder: Path, net: nn.Module, name: str, make: Callable[[], Tensors]) -> Kept:
    """Return what `make` returns for a network, made by one process and once.

    Args:
        folder: Of the checkpoint.
        net: Its weights are part of the file's name, so another network's file is never read.
        name: Tells apart whatever changes the tensors but the network.
        make: Makes them.

    Raises:
        UsageError: The file is damaged.
    """
    path = folder / f"{name}-{weights_digest(net)[:12]}.safetensors"
    start = time.perf_counter()
    make_folder(folder)
    with FileLock(path.with_suffix(".lock")):
        if path.exists():
            tensors, earlier_s = _read(path)
            return Kept(path, tensors, earlier_s, time.perf_counter() - start)
        waited_s = time.perf_counter() - start
        start = time.perf_counter()
        tensors = {key: tensor.cpu().contiguous() for key, tensor in make().items()}
        made_s = time.perf_counter() - start
        with writing(path) as temporary:
            save_file(tensors, temporary, metadata={"seconds": str(made_s)})
    return Kept(path, tensors, 0.0, waited_s)


def weights_digest(net: nn.Module) -> str:
    """Return the SHA-256 of the names and bytes of all weights."""
    found = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()


def _read(path: Path) -> tuple[Tensors, float]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return tensors, float((file.metadata() or {})["seconds"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UsageError(
            f"Expected prepared tensors in {path}, but cannot read them ({error}). Delete the "
            "file; the next request makes them again."
        ) from error
