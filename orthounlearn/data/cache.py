"""Decoded images on disk: each data set is decoded once and memory-mapped ever after."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from orthounlearn.data.images import ImageData, ImageSet
from orthounlearn.errors import UsageError
from orthounlearn.files import digest, explained, read_json, write_json

_CHUNK = 4096  # images per step of the statistics, so that no data set must fit in memory


@dataclass(frozen=True)
class Decoded:
    """Images in memory, as a decoder returns them."""

    train: ImageSet
    test: ImageSet
    class_names: tuple[str, ...]


def source_key(*folders: Path, options: Sequence[object] = ()) -> str:
    """Return a key of a source: each file's path, size and time, and the options.

    Not the content: hashing 60,000 small files takes 2 s at each start where asking for their
    times takes 0.6 s, and folders of photos have gigabytes. So one change is missed: a file that
    is overwritten in place, with as many bytes, and is then given its old time. What runs record
    is the hash of the decoded images, `ImageData.fingerprint`.

    Args:
        *folders: Those that are read, each with another name; links in them are followed.
        options: Of the decoding.
    """
    entries = [
        [folder.name, os.path.relpath(path, folder), size, time]
        for folder in folders
        for path, size, time in _states(os.fspath(folder), frozenset())
    ]
    return digest([sorted(entries), [str(option) for option in options]])[:16]


def _states(folder: str, above: frozenset[str]) -> Iterator[tuple[str, int, int]]:
    """Yield path, size and time of each file below a folder; a link to a folder above ends."""
    real = os.path.realpath(folder)
    try:
        entries = [] if real in above else list(os.scandir(folder))
    except OSError:  # it is told, in words, when the images in it are read
        return
    for entry in entries:
        if entry.is_dir():
            yield from _states(entry.path, above | {real})
        else:  # of a broken link its own state; reading it is refused
            status = entry.stat(follow_symlinks=entry.is_file())
            yield entry.path, status.st_size, status.st_mtime_ns


def cached(name: str, key: str, *, cache_dir: str, decode: Callable[[], Decoded]) -> ImageData:
    """Open a cache entry, decoding the source first if there is none or it is damaged.

    Args:
        name: Of the data set.
        key: Of the source's state; another key is another entry.
        cache_dir: Folder of all entries.
        decode: Reads the source.

    Raises:
        UsageError: The source cannot be read, or the folder cannot be written.
    """
    folder = Path(cache_dir).absolute() / f"{name}-{key}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not _is_whole(folder):
            # Two processes that want the same data wait for one decoding.
            with FileLock(folder.with_suffix(".lock")):
                if not _is_whole(folder):
                    _write(folder, _read(name, decode))
    except OSError as error:
        raise UsageError(
            f"Cannot write the image cache {folder}: {error.strerror or error}. Choose another "
            "folder with paths.cache=FOLDER."
        ) from error
    return _open(name, folder)


def _read(name: str, decode: Callable[[], Decoded]) -> Decoded:
    try:
        return decode()
    except OSError as error:
        raise UsageError(
            f"Expected to read the images of {name}, but {error.filename or 'one of its files'} "
            f"cannot be read: {error.strerror or error}."
        ) from error


def _is_whole(folder: Path) -> bool:
    try:
        sizes = read_json(folder / "meta.json")["bytes"]
        return all((folder / file).stat().st_size == size for file, size in sizes.items())
    except (UsageError, OSError, KeyError):
        return False


def _open(name: str, folder: Path) -> ImageData:
    meta = read_json(folder / "meta.json")
    parts = {
        part: ImageSet(
            np.load(folder / f"{part}_images.npy", mmap_mode="r"),
            np.load(folder / f"{part}_labels.npy"),
        )
        for part in ("train", "test")
    }
    return ImageData(
        name=name,
        class_names=tuple(meta["class_names"]),
        mean=tuple(meta["mean"]),
        std=tuple(meta["std"]),
        fingerprint=meta["fingerprint"],
        **parts,
    )


def _write(folder: Path, decoded: Decoded) -> None:
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".decoding-"))
    try:
        files: dict[str, NDArray[np.generic]] = {}
        for part, images in (("train", decoded.train), ("test", decoded.test)):
            files[f"{part}_images.npy"] = images.images_NHWC
            files[f"{part}_labels.npy"] = images.labels_N
        for file, array in files.items():
            with explained(folder / file):
                np.save(temporary / file, array)
        mean, std = channel_statistics(decoded.train.images_NHWC)
        meta = {
            "class_names": decoded.class_names,
            "mean": mean,
            "std": std,
            "fingerprint": _fingerprint(decoded),
            "bytes": {file: (temporary / file).stat().st_size for file in files},
        }
        write_json(temporary / "meta.json", meta)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)  # noqa: PTH105 - a folder over a missing folder
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def channel_statistics(
    images_NHWC: NDArray[np.uint8],
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel, with pixels scaled to [0, 1].

    >>> channel_statistics(np.array([0, 255], dtype=np.uint8).reshape(2, 1, 1, 1))
    ((0.5,), (0.5,))
    """
    total = np.zeros(images_NHWC.shape[-1])
    squares = np.zeros_like(total)
    for start in range(0, len(images_NHWC), _CHUNK):
        pixels = images_NHWC[start : start + _CHUNK].astype(np.float64) / 255
        total += pixels.sum((0, 1, 2))
        squares += np.square(pixels).sum((0, 1, 2))
    count = images_NHWC[..., 0].size
    mean = total / count
    # A channel without any contrast must not divide by zero.
    std = np.sqrt(np.maximum(squares / count - mean**2, 1e-12))
    return tuple(mean.tolist()), tuple(std.tolist())


def _fingerprint(decoded: Decoded) -> str:
    sha = hashlib.sha256()
    for part in (decoded.train, decoded.test):
        sha.update(repr(part.images_NHWC.shape).encode())
        sha.update(np.ascontiguousarray(part.images_NHWC).data)
        sha.update(np.ascontiguousarray(part.labels_N).data)
    sha.update(repr(decoded.class_names).encode())
    return sha.hexdigest()
