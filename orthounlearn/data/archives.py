"""The official archives: where their files lie, how to fetch and to read them."""

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torchvision import datasets as tv
from torchvision.datasets.utils import download_and_extract_archive

from orthounlearn.data.cache import Decoded
from orthounlearn.data.folders import Parts, decode_folder, native
from orthounlearn.data.images import ImageSet
from orthounlearn.errors import UsageError

_TINY = ("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de")


@dataclass(frozen=True)
class Archive:
    """One official archive.

    Attributes:
        name: Of the data set, and of the subfolder that may hold it.
        marker: A file that is there when the archive is unpacked, relative to its root.
        fetch: Downloads (with progress and checksum) and unpacks below a folder.
        read: Decodes what lies in a folder.
        mode: Pillow's mode of the images, when they come as an image folder instead.
    """

    name: str
    marker: str
    fetch: Callable[[Path], object]
    read: Callable[[Path], Decoded]
    mode: str = "RGB"

    def locate(self, folder: Path) -> Path | None:
        """Return the root of the unpacked archive in, or one or two levels below, a folder."""
        for pattern in ("", "*/", "*/*/"):
            for hit in sorted(folder.glob(pattern + self.marker)):
                return hit.parents[len(Path(self.marker).parts) - 1]
        return None

    def download(self, folder: Path) -> Path:
        """Fetch the archive into a folder and return its root.

        Raises:
            UsageError: There is no connection, or what came is damaged.
        """
        try:
            self.fetch(folder)
        except (OSError, RuntimeError, EOFError) as error:
            raise UsageError(
                f"Cannot fetch {self.name} ({error}). If there is no internet, put the data set "
                "into a folder (its official layout, or train/CLASS/FILE and test/CLASS/FILE) and "
                "give it as data.root=FOLDER or in the environment variable ORTHOUNLEARN_DATA. "
                f"If a download was damaged, delete {folder} and try again."
            ) from error
        root = self.locate(folder)
        if root is None:
            raise UsageError(
                f"Expected {self.marker} after fetching {self.name} to {folder}, but it is not "
                "there. Delete the folder and try again."
            )
        return root


def _read_cifar(dataset: Any) -> Callable[[Path], Decoded]:  # noqa: ANN401 - no typed base class
    def read(root: Path) -> Decoded:
        try:
            parts = [dataset(str(root), train=train) for train in (True, False)]
        except RuntimeError as error:
            raise UsageError(
                f"Expected the files of {dataset.__name__} in {root}, but some are missing or "
                "damaged (checksum). Fetch them again."
            ) from error
        train, test = (ImageSet(p.data, np.asarray(p.targets, np.int64)) for p in parts)
        return Decoded(train, test, tuple(parts[0].classes))

    return read


def _read_fashion(root: Path) -> Decoded:
    train, test = (
        ImageSet(
            _read_idx(root, f"{part}-images-idx3-ubyte")[..., None],
            _read_idx(root, f"{part}-labels-idx1-ubyte").astype(np.int64),
        )
        for part in ("train", "t10k")
    )
    return Decoded(train, test, tuple(tv.FashionMNIST.classes))


def _read_idx(root: Path, name: str) -> NDArray[np.uint8]:
    """Read one IDX file: magic (the last byte counts the dimensions), big-endian sizes, bytes."""
    path = next((p for p in (root / name, root / f"{name}.gz") if p.exists()), None)
    if path is None:
        raise UsageError(f"Expected {name} or {name}.gz in {root}, but neither is there.")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        shape = np.frombuffer(content, ">i4", count=content[3], offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)
    except (ValueError, IndexError, EOFError, OSError) as error:
        raise UsageError(f"{path} is damaged ({error}). Fetch it again.") from error


def _read_tiny(root: Path) -> Decoded:
    train, annotations = root / "train", root / "val" / "val_annotations.txt"
    if not train.is_dir():
        raise UsageError(f"Expected the train part of Tiny ImageNet in {train}. Fetch it again.")
    classes = sorted(folder.name for folder in train.iterdir() if folder.is_dir())
    parts: Parts = {
        "train": {name: sorted((train / name / "images").iterdir()) for name in classes},
        "test": {name: [] for name in classes},
    }
    for number, line in enumerate(annotations.read_text().splitlines(), 1):
        file, name, *_ = [*line.split("\t"), ""]
        if name not in parts["test"]:
            raise UsageError(
                f"Expected FILE and CLASS in line {number} of {annotations}, with a class that has "
                f"a folder in {train}, but got {line[:80]!r}. Fetch the data set again."
            )
        parts["test"][name].append(root / "val" / "images" / file)
    return decode_folder(parts, native("RGB"))


ARCHIVES = {
    archive.name: archive
    for archive in (
        Archive(
            "cifar10",
            "cifar-10-batches-py/data_batch_1",
            lambda folder: tv.CIFAR10(str(folder), download=True),
            _read_cifar(tv.CIFAR10),
        ),
        Archive(
            "cifar100",
            "cifar-100-python/train",
            lambda folder: tv.CIFAR100(str(folder), download=True),
            _read_cifar(tv.CIFAR100),
        ),
        Archive(
            "fashion_mnist",
            "train-images-idx3-ubyte*",
            lambda folder: tv.FashionMNIST(str(folder), download=True),
            _read_fashion,
            mode="L",
        ),
        # Its test part is the official validation part: the labels of the test part are not public.
        Archive(
            "tiny_imagenet",
            "val/val_annotations.txt",
            lambda folder: download_and_extract_archive(_TINY[0], str(folder), md5=_TINY[1]),
            _read_tiny,
        ),
    )
}
