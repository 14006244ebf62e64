"""Settings of the whole process, made once before anything is computed."""

import ctypes
import logging
import sys
import warnings

import torch

# Names and limits of glibc's mallopt.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_NEVER, _LARGEST_MMAP_THRESHOLD = 2**31 - 1, 32 << 20


def prepare_process() -> None:
    """Make this process quiet and fast; results do not change."""
    _quieten()
    _keep_freed_memory()
    # Deterministic mode fills each new tensor with NaN as well: an aid to find reads of memory that
    # nobody wrote, which costs a tenth of a training step on a CPU.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _quieten() -> None:
    """Silence what Lightning says to people who run one notebook cell; in a sweep it is noise."""
    for name in ("lightning.pytorch", "lightning.fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module=r"lightning\.")
    # lightning 2.6 checks isinstance(treespec, LeafSpec), which torch 2.14 deprecates
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)


def _keep_freed_memory() -> None:
    """Let the allocator keep the pages of freed activations for the next step.

    glibc returns them to the system and faults them in again, thousands of pages a step: 6 to 15 %
    of a training step of thin networks on 32 x 32 images. Other allocators have no `mallopt`.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        mallopt(_TRIM_THRESHOLD, _NEVER)
        mallopt(_TOP_PAD, 64 << 20)
