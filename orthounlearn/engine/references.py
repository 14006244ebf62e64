"""What the original and a retrained network said, kept with a run that may be read alone."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from orthounlearn.files import writing
from orthounlearn.metrics.suite import Outputs

SPLITS = ("forget_train", "forget_test", "retain_test")
"""What figures of a report draw."""

_LEAST = float(np.finfo(np.float16).min)


def save_references(references: Mapping[str, Outputs | None], path: Path) -> None:
    """Write `NAME/logits/SPLIT` (N, K) as float16; nothing of networks that are not known.

    The largest logit of an image is 0, where float16 is finest; no softmax sees the difference. The
    labels are those of the run's own outputs.

    Args:
        references: `original` and `retrained`.
        path: An .npz file.
    """
    arrays = {
        f"{name}/logits/{split}": _compact(outputs.logits[split])
        for name, outputs in references.items()
        if outputs is not None
        for split in SPLITS
    }
    if arrays:
        with writing(path) as temporary:
            np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]


def _compact(logits_NK: NDArray[np.float32]) -> NDArray[np.float16]:
    if not logits_NK.size:
        return logits_NK.astype(np.float16)
    below_NK = logits_NK - logits_NK.max(1, keepdims=True)
    compact_NK: NDArray[np.float16] = np.clip(below_NK, _LEAST, 0).astype(np.float16)
    return compact_NK
