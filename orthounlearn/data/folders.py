"""Reading an image folder: ROOT/{train,test}/CLASS/FILE, any format that Pillow reads."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from rich.progress import track

from orthounlearn.data.cache import Decoded
from orthounlearn.data.images import ImageSet
from orthounlearn.errors import UsageError

Parts = dict[str, dict[str, list[Path]]]
"""part -> class -> files."""


def is_image_folder(root: Path) -> bool:
    """Return whether the folder has the layout."""
    return (root / "train").is_dir() and (root / "test").is_dir()


def scan(root: Path) -> Parts:
    """List the files of an image folder.

    Raises:
        UsageError: A part is missing, a class is empty or has folders in it, a link is broken, or
            the parts have different classes.
    """
    parts: Parts = {}
    for part in ("train", "test"):
        folder = root / part
        if not folder.is_dir():
            raise UsageError(
                f"Expected an image folder with {root}/train/CLASS/FILE and "
                f"{root}/test/CLASS/FILE, but there is no {folder}."
            )
        parts[part] = {entry.name: _files(entry) for entry in _visible(folder) if entry.is_dir()}
        empty = [name for name, files in parts[part].items() if not files]
        if empty or len(parts[part]) < 2:
            found = f"class folders without images: {empty}" if empty else "fewer than two classes"
            raise UsageError(
                f"Expected at least two class folders with images in {folder}: {found}."
            )
    if parts["train"].keys() != parts["test"].keys():
        different = sorted(parts["train"].keys() ^ parts["test"].keys())
        raise UsageError(
            f"Expected the same classes in {root}/train and {root}/test, but these are in one "
            f"of them only: {', '.join(different[:10])}."
        )
    return parts


def _visible(folder: Path) -> list[Path]:
    entries = sorted(path for path in folder.iterdir() if path.name[0] != ".")
    broken = [path for path in entries if not path.exists()]
    if broken:
        raise UsageError(
            f"Expected links in {folder} to lead somewhere, but {broken[0]} is broken. Replace or "
            "remove it."
        )
    return entries


def _files(folder: Path) -> list[Path]:
    entries = _visible(folder)
    nested = [path for path in entries if path.is_dir()]
    if nested:
        raise UsageError(
            f"Expected images alone in the class folder {folder}, but {nested[0]} is a folder. "
            "Move its images up, or remove it."
        )
    return entries


def decode_folder(parts: Parts, convert: Callable[[Image.Image], Image.Image]) -> Decoded:
    """Decode all files, on all cores.

    Args:
        parts: From `scan`.
        convert: Brings an image to the common mode and size.

    Raises:
        UsageError: A file is no image, or the converted sizes differ.
    """
    names = tuple(parts["train"])
    sets = {}
    # Pillow releases the lock while it decodes, so threads suffice and memory is not copied.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for part, classes in parts.items():
            files = [file for name in names for file in classes[name]]
            labels = np.repeat(np.arange(len(names)), [len(classes[name]) for name in names])
            arrays = pool.map(lambda file: _decode(file, convert), files)
            first = next(arrays)
            images = np.empty((len(files), *first.shape), np.uint8)
            images[0] = first
            progress = track(
                zip(files[1:], arrays, strict=True),
                f"Decoding {part}",
                len(files) - 1,
                transient=True,
            )
            for index, (file, array) in enumerate(progress, 1):
                if array.shape != first.shape:
                    raise UsageError(
                        f"Expected all images to have the size of {files[0]} {first.shape[:2]}, "
                        f"but {file} has {array.shape[:2]}. Use data=image_folder, which resizes."
                    )
                images[index] = array
            sets[part] = ImageSet(images, labels.astype(np.int64))
    return Decoded(sets["train"], sets["test"], names)


def _decode(file: Path, convert: Callable[[Image.Image], Image.Image]) -> NDArray[np.uint8]:
    try:
        with Image.open(file) as image:
            array = np.asarray(convert(image))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise UsageError(
            f"Expected an image in {file}, but it cannot be read ({error}). Replace or remove it."
        ) from error
    return array if array.ndim == 3 else array[..., None]


def native(mode: str) -> Callable[[Image.Image], Image.Image]:
    """Return a converter that keeps the size; mode is "RGB" or "L"."""
    return lambda image: _eight_bits(image).convert(mode)


def square(size: int) -> Callable[[Image.Image], Image.Image]:
    """Return a converter to RGB that resizes the short side to `size` and crops the centre.

    Photos are turned upright first, as their EXIF orientation says.
    """
    return lambda image: ImageOps.fit(
        _eight_bits(ImageOps.exif_transpose(image)).convert("RGB"),
        (size, size),
        method=Image.Resampling.BILINEAR,
    )


def _eight_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits: Pillow's own conversion cuts it off at 255."""
    if not image.mode.startswith("I"):
        return image
    grey = np.asarray(image).astype(np.float64)
    if grey.min() < 0 or grey.max() > 65535:
        raise ValueError("it has 32 bits per pixel, but 8 or 16 are known")
    return Image.fromarray(np.rint(grey / 257).astype(np.uint8))
