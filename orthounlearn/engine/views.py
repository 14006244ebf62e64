"""What a run keeps for people to look at, beside its figures: channels, and a few real images."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from orthounlearn.data.images import ImageSet
from orthounlearn.data.splits import Indices, Splits
from orthounlearn.files import writing
from orthounlearn.masking.channels import ChannelEdit

SHOWN = 8
"""Images of the forgotten classes, and as many of the others."""

_LARGEST = 64  # pixels of a side; larger images are made smaller


def save_channels(edits: Mapping[str, ChannelEdit], path: Path) -> None:
    """Write `score/SITE` (C,), `strength/SITE` (C,) and `alone/SITE` (K, C); nothing for no sites.

    Args:
        edits: Site -> what was done there, in the order of the network.
        path: An .npz file.
    """
    if not edits:
        return
    arrays: dict[str, Any] = {}
    for site, edit in edits.items():
        parts = {"score": edit.score_C, "strength": edit.strength_C, "alone": edit.alone_KC}
        arrays |= {f"{part}/{site}": values.float().cpu().numpy() for part, values in parts.items()}
    with writing(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def save_gallery(test: ImageSet, splits: Splits, path: Path) -> None:
    """Write `images/SPLIT` (n, H, W, C) and `rows/SPLIT` (n,), their places within the split.

    The same images for every method: which they are depends on the splits alone.

    Args:
        test: Official test part.
        splits: Of the request.
        path: An .npz file.
    """
    arrays: dict[str, Any] = {}
    for split in ("forget_test", "retain_test"):
        rows = spread_rows(test.labels_N[splits[split]], SHOWN)
        images = test.images_NHWC[splits[split][rows]]
        arrays |= {f"rows/{split}": rows, f"images/{split}": np.stack(list(map(_small, images)))}
    with writing(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def spread_rows(labels_N: NDArray[np.int64], count: int) -> Indices:
    """Return at most `count` rows that spread evenly over the classes, sorted by class.

    >>> spread_rows(np.array([1, 0, 1, 0, 2, 2]), 3).tolist()
    [3, 2, 5]
    """
    by_class = np.argsort(labels_N, kind="stable")
    count = min(count, len(labels_N))
    return np.asarray(by_class[(2 * np.arange(count) + 1) * len(labels_N) // (2 * count)])


def _small(image_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if max(image_HWC.shape[:2]) <= _LARGEST:
        return image_HWC
    grey = image_HWC.shape[2] == 1
    image = Image.fromarray(image_HWC[:, :, 0] if grey else image_HWC)
    image.thumbnail((_LARGEST, _LARGEST))
    small = np.asarray(image)
    return small[:, :, None] if grey else small
