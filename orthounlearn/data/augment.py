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
        width = images.shape[-1]
        # Over rows of W·C numbers, as they lie in channels-last memory: one vectorised pass. With
        # (C, 1, 1) constants the same line is five times slower on a CPU.
        scale_R = self._scale_C.to(images.device).repeat(width)
        shift_R = self._shift_C.to(images.device).repeat(width)
        rows_BHR = images.permute(0, 2, 3, 1).flatten(2).to(torch.float32)
        normalised = torch.addcmul(shift_R, rows_BHR, scale_R)
        return normalised.view(*normalised.shape[:2], width, -1).permute(0, 3, 1, 2)

    def train(
        self, images: Tensor, *, generator: torch.Generator | None = None, size: int | None = None
    ) -> Tensor:
        """Return normalised, randomly cropped and flipped images.

        Args:
            images: uint8 (B, C, H, W).
            generator: Of the device of `images`; None is the device's own.
            size: Side length in pixels to shrink to (bilinear, antialiased); None keeps it.
        """
        # Cropped and flipped while the pixels are still bytes: a quarter of the memory traffic.
        if self._padding:
            shifts = torch.randint(
                2 * self._padding + 1,
                (2, len(images)),
                device=images.device,
                generator=generator,
            )
            images = shift_images(images, shifts, padding=self._padding)
        if self._flip:
            draws = torch.rand(len(images), 1, 1, 1, device=images.device, generator=generator)
            images = torch.where(draws < 0.5, images.flip(3), images)
        normalised = self.evaluate(images)
        if size is not None and size != images.shape[-1]:
            normalised = F.interpolate(
                normalised, size=(size, size), mode="bilinear", antialias=True, align_corners=False
            )
        return normalised.contiguous(memory_format=torch.channels_last)


def shift_images(images: Tensor, shifts: Tensor, *, padding: int) -> Tensor:
    """Cut each image out of its reflected surroundings, all of them in one indexing call.

    Args:
        images: (B, C, H, W).
        shifts: int64 (2, B) in 0..2·padding: top and left corner in the padded image.
        padding: Border in pixels, less than H and W.

    Returns:
        (B, C, H, W) in channels-last memory.
    """
    padded_BHWC = _reflect_pad(images.permute(0, 2, 3, 1), padding)
    count, channels, height, width = images.shape
    image, row, pixel, _ = padded_BHWC.stride()
    choices = 2 * padding + 1
    # Every possible crop of every image, as a view; a row of W·C bytes lies in one piece.
    windows = padded_BHWC.as_strided(
        (count, choices, choices, height, width * channels), (image, row, pixel, row, 1)
    )
    crops = windows[torch.arange(count, device=images.device), shifts[0], shifts[1]]
    return crops.view(count, height, width, channels).permute(0, 3, 1, 2)


def _reflect_pad(images_BHWC: Tensor, padding: int) -> Tensor:
    """Reflect without repeating the edge; torch's own pad takes no bytes."""
    count, height, width, channels = images_BHWC.shape
    p = padding
    padded = images_BHWC.new_empty(count, height + 2 * p, width + 2 * p, channels)
    middle = padded[:, p:-p]
    middle[:, :, p:-p] = images_BHWC
    middle[:, :, :p] = images_BHWC[:, :, 1 : p + 1].flip(2)
    middle[:, :, -p:] = images_BHWC[:, :, -p - 1 : -1].flip(2)
    padded[:, :p] = padded[:, p + 1 : 2 * p + 1].flip(1)
    padded[:, -p:] = padded[:, -2 * p - 1 : -p - 1].flip(1)
    return padded
