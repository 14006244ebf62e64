"""What a data set is to the rest of the program: two sets of uint8 images with labels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ImageSet:
    """Images and labels of one official part.

    Attributes:
        images_NHWC: uint8 (N, H, W, C), usually memory-mapped.
        labels_N: int64 (N,).
    """

    images_NHWC: NDArray[np.uint8]
    labels_N: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels_N)


@dataclass(frozen=True)
class ImageData:
    """A data set with its official train and test parts.

    Attributes:
        name: For people and file names.
        train: Official train part.
        test: Official test part.
        class_names: K names; the position is the label.
        mean: Per channel over the train part, in [0, 1].
        std: Per channel over the train part, in [0, 1].
        fingerprint: SHA-256 of images, labels and class names.
    """

    name: str
    train: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fingerprint: str

    @property
    def num_classes(self) -> int:
        """K."""
        return len(self.class_names)

    @property
    def image_size(self) -> int:
        """Height in pixels."""
        return int(self.train.images_NHWC.shape[1])

    @property
    def in_channels(self) -> int:
        """1 for grey, 3 for RGB."""
        return int(self.train.images_NHWC.shape[3])
