"""Peak memory of measuring class statistics, read from the system in a process of its own."""

import ctypes
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import torch

from orthounlearn.masking.statistics import class_statistics
from orthounlearn.masking.tracing import select_sites, trace_sites
from orthounlearn.models import resnet

_PROCESS = Path("/proc/self")
_BATCH = 64
_CLASSES = 10
_M_MMAP_THRESHOLD = -3  # of glibc's malloc.h

IS_READABLE = (_PROCESS / "clear_refs").exists()
"""Whether this system tells the peak (Linux does)."""


def extra_memory(batches: Sequence[int]) -> list[int]:
    """Return by how many bytes passes over so many batches of 64 raise the peak, each in turn.

    A process of its own, since a peak that another benchmark left behind would hide this one, and
    since torch's memory is not Python's: only the system sees it.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peaks, list(batches)).result()


def _peaks(batches: list[int]) -> list[int]:
    torch.set_num_threads(1)
    # Memory of 64 KiB and more goes back to the system when a tensor dies. Otherwise the allocator
    # keeps it, and its peak wanders by half with the order in which tensors of all sizes come.
    ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 64 * 1024)
    net = resnet(depth=18, num_classes=_CLASSES, width=16).eval()
    sites = select_sites(trace_sites(net, torch.zeros(2, 3, 32, 32)), "convs")
    # One batch again and again: images that are read from a file would count as memory too.
    batch = (torch.rand(_BATCH, 3, 32, 32), torch.arange(_BATCH) % _CLASSES)
    (_PROCESS / "clear_refs").write_text("5")  # sets the peak back to what is used now
    before = _status("VmRSS")
    peaks = []
    for count in batches:
        class_statistics(net, repeat(batch, count), sites=sites, num_classes=_CLASSES)
        peaks.append(_status("VmHWM") - before)
    return peaks


def _status(key: str) -> int:
    """Return an entry of /proc/self/status in bytes."""
    for line in (_PROCESS / "status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(key)
