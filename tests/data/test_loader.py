"""Batches: every image once, in an order that seed and epoch alone decide."""

import numpy as np
import pytest
import torch

from orthounlearn.data import loader as loader_module
from orthounlearn.data.images import ImageSet
from orthounlearn.data.loader import BatchLoader
from orthounlearn.errors import UsageError


@pytest.fixture
def part() -> ImageSet:
    images = np.arange(10, dtype=np.uint8).repeat(12).reshape(10, 2, 2, 3)
    return ImageSet(images, np.arange(10))


def labels(loader: BatchLoader) -> list[int]:
    return [int(label) for _, batch in loader for label in batch]


def test_without_shuffling_images_come_in_order(part: ImageSet):
    loader = BatchLoader(part, np.array([1, 4, 7]), batch_size=2)
    batches = list(loader)
    assert [batch.tolist() for _, batch in batches] == [[1, 4], [7]]
    assert [int(image[0, 0, 0]) for images, _ in batches for image in images] == [1, 4, 7]
    assert batches[0][0].shape == (2, 3, 2, 2)
    assert batches[0][0].is_contiguous(memory_format=torch.channels_last)


def test_each_epoch_is_another_permutation_and_repeatable(part: ImageSet):
    first = BatchLoader(part, np.arange(10), batch_size=3, shuffle=True, seed=5)
    again = BatchLoader(part, np.arange(10), batch_size=3, shuffle=True, seed=5)
    epochs = [labels(first) for _ in range(3)]
    assert [labels(again) for _ in range(3)] == epochs
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert epochs[0] != epochs[1]


def test_resumed_loader_continues_with_the_epoch_it_is_told(part: ImageSet):
    first = BatchLoader(part, np.arange(10), batch_size=3, shuffle=True, seed=5)
    epochs = [labels(first) for _ in range(3)]
    resumed = BatchLoader(part, np.arange(10), batch_size=3, shuffle=True, seed=5)
    resumed.epoch = 2
    assert labels(resumed) == epochs[2]


@pytest.mark.parametrize(("drop_last", "count", "seen"), [(False, 4, 10), (True, 3, 9)])
def test_length(part: ImageSet, drop_last: bool, count: int, seen: int):
    loader = BatchLoader(part, np.arange(10), batch_size=3, drop_last=drop_last)
    assert len(loader) == count == len(list(loader))
    assert len(labels(loader)) == seen


@pytest.mark.parametrize("world", [2, 3, 4])
def test_ranks_share_the_images_evenly(part: ImageSet, world: int, monkeypatch: pytest.MonkeyPatch):
    shares = []
    for rank in range(world):
        monkeypatch.setattr(loader_module, "_world", lambda rank=rank: (rank, world))
        shares.append(labels(BatchLoader(part, np.arange(10), batch_size=2, shuffle=True)))
    assert len({len(share) for share in shares}) == 1
    assert set().union(*shares) == set(range(10))
    assert sum(map(len, shares)) < 10 + world


def test_empty_and_too_small_sets_are_refused(part: ImageSet):
    with pytest.raises(UsageError, match="Expected images, at least 1, but got 0"):
        BatchLoader(part, np.array([], dtype=np.int64), batch_size=2)
    with pytest.raises(UsageError, match="at least 4, a whole batch, but got 3"):
        BatchLoader(part, np.arange(3), batch_size=4, drop_last=True)
    with pytest.raises(UsageError, match="batch size"):
        BatchLoader(part, np.arange(3), batch_size=0)
