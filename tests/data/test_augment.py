"""Augmentation of batches against one image at a time."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from orthounlearn.data.augment import BatchTransform, shift_images
from orthounlearn.errors import UsageError


def images(count: int = 5, channels: int = 3, size: int = 8) -> Tensor:
    """uint8 images in channels-last memory, as the loader yields them."""
    bytes_ = torch.randint(0, 256, (count, size, size, channels), dtype=torch.uint8)
    return bytes_.permute(0, 3, 1, 2)


@given(padding=st.integers(1, 4), channels=st.sampled_from([1, 3]), data=st.data())
@settings(max_examples=30)
def test_crops_match_torch_pad_and_slice(padding: int, channels: int, data: st.DataObject):
    batch = images(4, channels, 7)
    choices = st.lists(st.integers(0, 2 * padding), min_size=4, max_size=4)
    shifts = torch.tensor([data.draw(choices), data.draw(choices)])
    found = shift_images(batch, shifts, padding=padding)
    padded = F.pad(batch.float(), [padding] * 4, mode="reflect")
    for index in range(4):
        top, left = shifts[:, index].tolist()
        expected = padded[index, :, top : top + 7, left : left + 7]
        assert torch.equal(found[index].float(), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_evaluate_is_the_normalisation_of_its_docstring(channels: int):
    mean, std = [0.2, 0.5, 0.7][:channels], [0.3, 0.1, 0.9][:channels]
    batch = images(3, channels)
    found = BatchTransform(mean=mean, std=std).evaluate(batch)
    expected = (batch.double() / 255 - torch.tensor(mean).view(-1, 1, 1)) / torch.tensor(std).view(
        -1, 1, 1
    )
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


def test_training_without_augmentation_is_evaluation():
    batch = images()
    transform = BatchTransform(mean=[0.5] * 3, std=[0.2] * 3)
    assert torch.equal(transform.train(batch), transform.evaluate(batch))


def test_each_image_is_flipped_whole_or_not_at_all():
    batch = images(64)
    transform = BatchTransform(mean=[0.5] * 3, std=[0.2] * 3, flip=True)
    found, plain = transform.train(batch), transform.evaluate(batch)
    flipped = [torch.equal(f, p.flip(2)) for f, p in zip(found, plain, strict=True)]
    kept = [torch.equal(f, p) for f, p in zip(found, plain, strict=True)]
    assert all(a != b for a, b in zip(flipped, kept, strict=True))
    assert 15 < sum(flipped) < 49  # a fair coin leaves this range once in 50,000 tests


def test_a_generator_decides_the_draw():
    batch = images(16)
    transform = BatchTransform(mean=[0.5] * 3, std=[0.2] * 3, crop_padding=2, flip=True)
    one, same, other = (
        transform.train(batch, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_images_are_not_changed_in_place():
    batch = images(8)
    before = batch.clone()
    BatchTransform(mean=[0.5] * 3, std=[0.2] * 3, crop_padding=2, flip=True).train(batch)
    assert torch.equal(batch, before)


def test_shrinking_gives_the_size_in_channels_last_memory():
    found = BatchTransform(mean=[0.5] * 3, std=[0.2] * 3).train(images(), size=4)
    assert found.shape == (5, 3, 4, 4)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_negative_padding_is_refused():
    with pytest.raises(UsageError, match="crop_padding"):
        BatchTransform(mean=[0.5], std=[0.5], crop_padding=-1)
