"""The data sets: each function is the `source._target_` of files in `conf/data/`."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from orthounlearn.data.archives import ARCHIVES, Archive
from orthounlearn.data.cache import Decoded, cached, source_key
from orthounlearn.data.folders import decode_folder, is_image_folder, native, scan, square
from orthounlearn.data.images import ImageData, ImageSet
from orthounlearn.errors import UsageError


def digits(*, cache_dir: str) -> ImageData:
    """Scikit-learn's bundled scans of 1,797 handwritten digits, 8×8 pixels, 10 classes, grey.

    A stratified fifth is the test part, the same on every machine.
    """

    def decode() -> Decoded:
        bunch = load_digits()
        images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
        labels = bunch.target.astype(np.int64)
        train, test = train_test_split(
            np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0
        )
        return Decoded(
            ImageSet(images[train], labels[train]),
            ImageSet(images[test], labels[test]),
            tuple(str(name) for name in bunch.target_names),
        )

    return cached("digits", "bundled", cache_dir=cache_dir, decode=decode)


def official(
    *, name: str, cache_dir: str, root: str | None = None, search: str | None = None
) -> ImageData:
    """CIFAR-10, CIFAR-100, Fashion-MNIST or Tiny ImageNet, from a local folder or the internet.

    A local folder holds the official files or an image folder (`train/CLASS/FILE` and
    `test/CLASS/FILE`, at the native size), itself or in a subfolder named like the data set.

    Args:
        name: "cifar10", "cifar100", "fashion_mnist" or "tiny_imagenet".
        cache_dir: Folder of the decoded images; archives are fetched to `archives` in it.
        root: A folder that must hold the data set.
        search: A folder that may hold it; if it does not, the archive is fetched.

    Raises:
        UsageError: `root` does not hold the data set, or fetching failed.
    """
    archive = ARCHIVES[name]
    archives = Path(cache_dir).absolute() / "archives" / name
    found = None
    if root is not None:
        found = _find(archive, Path(root).absolute())
        if found is None:
            raise UsageError(
                f"Expected data.root={root} to hold {name}: the official files "
                f"({archive.marker}), or an image folder with train/CLASS/FILE and "
                f"test/CLASS/FILE, there or in {root}/{name}. Found neither."
            )
    elif search is not None:
        found = _find(archive, Path(search).absolute())
    if found is None:
        found = archive.locate(archives) or archive.download(archives)

    if is_image_folder(found) and archive.locate(found) != found:
        return cached(
            name,
            source_key(found / "train", found / "test", options=[archive.mode]),
            cache_dir=cache_dir,
            decode=lambda: decode_folder(scan(found), native(archive.mode)),
        )
    return cached(name, source_key(found), cache_dir=cache_dir, decode=lambda: archive.read(found))


def _find(archive: Archive, folder: Path) -> Path | None:
    for candidate in (folder, folder / archive.name, folder / archive.name.replace("_", "-")):
        located = archive.locate(candidate) if candidate.is_dir() else None
        if located is not None:
            return located
        if is_image_folder(candidate):
            return candidate
    return None


def image_folder(*, root: str | None, cache_dir: str, image_size: int) -> ImageData:
    """Any images: ROOT/{train,test}/CLASS/FILE, converted to RGB squares.

    Args:
        root: The folder.
        cache_dir: Folder of the decoded images.
        image_size: Side length in pixels; the short side is resized to it, the centre kept.

    Raises:
        UsageError: The folder is missing, has another layout, or holds an unreadable file.
    """
    if root is None:
        raise UsageError(
            "Expected data.root=FOLDER with FOLDER/train/CLASS/FILE and FOLDER/test/CLASS/FILE."
        )
    folder = Path(root).absolute()
    if not folder.is_dir():
        raise UsageError(f"Expected data.root to be a folder, but there is no {folder}.")
    if ".." in folder.parts:  # it is no name; a link, on the other hand, keeps its own
        folder = folder.resolve()
    if not folder.name:
        raise UsageError(
            f"Expected data.root to be a folder with a name, which the runs are filed under, but "
            f"got {root}. Move train/ and test/ into a folder of their own."
        )
    return cached(
        folder.name,
        source_key(folder / "train", folder / "test", options=[image_size]),
        cache_dir=cache_dir,
        decode=lambda: decode_folder(scan(folder), square(image_size)),
    )
