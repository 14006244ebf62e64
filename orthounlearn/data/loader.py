"""Batches straight from the memory-mapped images: no worker processes, no decoding."""

import math
from collections.abc import Iterator

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from orthounlearn.data.images import ImageSet
from orthounlearn.data.splits import Indices
from orthounlearn.errors import UsageError


class BatchLoader:
    """Iterate over (uint8 images (B, C, H, W) in channels-last memory, int64 labels (B,)).

    The order is a pure function of seed and epoch, so that a resumed run sees the same batches.
    Each pass over the loader is the next epoch. Under `torch.distributed` each rank gets an equal
    share, as with `DistributedSampler` (the shortest shares are filled up from the front).

    Args:
        part: Images and labels.
        indices: Which of them.
        batch_size: Images per batch (per rank).
        shuffle: Draw a new order each epoch.
        seed: Of the order.
        drop_last: Leave an incomplete last batch out.
        what: What the images are, for messages.

    Raises:
        UsageError: There is no image, or fewer than a whole batch where only those count.
    """

    def __init__(
        self,
        part: ImageSet,
        indices: Indices,
        *,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        what: str = "images",
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"Expected a batch size of at least 1, but got {batch_size}.")
        needed = batch_size if drop_last else 1
        if len(indices) < needed:
            least = f"{needed}, a whole batch" if drop_last else "1"
            raise UsageError(f"Expected {what}, at least {least}, but got {len(indices)}.")
        self._part = part
        self._indices = indices
        self._batch_size = batch_size
        self._shuffle = shuffle
        self._seed = seed
        self._drop_last = drop_last
        self.epoch = 0

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        share = math.ceil(len(self._indices) / _world()[1])
        whole, rest = divmod(share, self._batch_size)
        return whole if self._drop_last or not rest else whole + 1

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of this epoch."""
        order = self._order(self.epoch)
        self.epoch += 1
        for start in range(0, len(self) * self._batch_size, self._batch_size):
            chosen = order[start : start + self._batch_size]
            images_BHWC = torch.from_numpy(self._part.images_NHWC[chosen])
            # A permuted view of (B, H, W, C) *is* the channels-last layout: nothing is copied.
            yield images_BHWC.permute(0, 3, 1, 2), torch.from_numpy(self._part.labels_N[chosen])

    def _order(self, epoch: int) -> Indices:
        order = self._indices
        if self._shuffle:
            order = np.random.default_rng([self._seed, epoch]).permutation(order)
        rank, size = _world()
        if size > 1:
            missing = -len(order) % size
            order = np.concatenate([order, order[:missing]])[rank::size]
        return order


def _world() -> tuple[int, int]:
    """Return rank and number of processes."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1
