"""Augmentation of whole batches, on the device where the batch is."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from orthounlearn.errors import UsageError


class BatchTransform:
    """Normalise uint8 batches; in training also crop, flip and shrink them.

    Args:
        mean: Per channel, in [0, 1].
        std: Per channel, in [0, 1].
        crop_padding: Reflected border in pixels that random crops may reach into.
        flip: Mirror every second image, at random.

    Raises:
        UsageError: The padding is negative.
    """

    def __init__(
        self,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        crop_padding: int = 0,
        flip: bool = False,
    ) -> None:
        if crop_padding < 0:
            raise UsageError(f"Expected data.crop_padding of at least 0, but got {crop_padding}.")
        self._scale_C = 1 / (255 * torch.tensor(std))
        self._shift_C = -torch.tensor(mean) / torch.tensor(std)
        self._padding = crop_padding
        self._flip = flip

    def evaluate(self, images: Tensor) -> Tensor:
        """Return float32 images (B, C, H, W): (x / 255 − mean) / std."""
        scale = self._scale_C.to(images.device).view(1, -1, 1, 1)
        shift = self._shift_C.to(images.device).view(1, -1, 1, 1)
        return torch.addcmul(shift, images.to(torch.float32), scale)

    def train(
        self, images: Tensor, *, generator: torch.Generator | None = None, size: int | None = None
    ) -> Tensor:
        """Return normalised, randomly cropped and flipped images.

        Args:
            images: uint8 (B, C, H, W).
            generator: Of the device of `images`; None is the device's own.
            size: Side length in pixels to shrink to (bilinear, antialiased); None keeps it.
        """
        images = self._crop_and_flip(images, generator)
        normalised = self.evaluate(images)
        if size is not None and size != images.shape[-1]:
            normalised = F.interpolate(
                normalised, size=(size, size), mode="bilinear", antialias=True, align_corners=False
            )
        return normalised.contiguous(memory_format=torch.channels_last)

    def _crop_and_flip(self, images: Tensor, generator: torch.Generator | None) -> Tensor:
        """Crop and flip while the pixels are still bytes: a quarter of the memory traffic."""
        count, channels, height, width = images.shape
        device = images.device
        padding = self._padding
        rows = torch.arange(height, device=device).expand(count, height)
        columns = torch.arange(width, device=device).expand(count, width)
        if padding:
            shifts = torch.randint(
                -padding, padding + 1, (2, count, 1), device=device, generator=generator
            )
            rows = _reflect(rows + shifts[0], height)
            columns = _reflect(columns + shifts[1], width)
        if self._flip:
            mirrored = torch.rand(count, 1, device=device, generator=generator) < 0.5
            columns = torch.where(mirrored, columns.flip(1), columns)
        if not padding and not self._flip:
            return images
        # One gather: pixel (n, r, c) of the result is pixel (n, rows[n, r], columns[n, c]).
        pixels = images.permute(0, 2, 3, 1).reshape(-1, channels)
        start = torch.arange(count, device=device).view(-1, 1, 1) * (height * width)
        source = start + rows[:, :, None] * width + columns[:, None, :]
        gathered = pixels.index_select(0, source.flatten())
        return gathered.view(count, height, width, channels).permute(0, 3, 1, 2)


def _reflect(position: Tensor, size: int) -> Tensor:
    """Fold positions outside 0..size−1 back, without repeating the edge (as reflect padding)."""
    position = position.abs()
    return torch.where(position >= size, 2 * (size - 1) - position, position)
