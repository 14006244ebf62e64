"""Decoded once, mapped ever after, rebuilt when damaged."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from orthounlearn.data.cache import Decoded, cached, channel_statistics, source_key
from orthounlearn.data.images import ImageData, ImageSet
from orthounlearn.errors import UsageError


class Source:
    """Counts how often it is decoded."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        images = rng.integers(0, 256, (12, 4, 4, 3), dtype=np.uint8)
        part = ImageSet(images, np.arange(12) % 3)
        self.decoded = Decoded(part, part, ("a", "b", "c"))
        self.calls = 0

    def __call__(self) -> Decoded:
        self.calls += 1
        return self.decoded


def open_(source: Source, folder: Path, key: str = "k") -> ImageData:
    return cached("toy", key, cache_dir=str(folder), decode=source)


def test_second_opening_maps_the_same_images_without_decoding(tmp_path: Path):
    source = Source()
    first, second = open_(source, tmp_path), open_(source, tmp_path)
    assert source.calls == 1
    assert isinstance(second.train.images_NHWC, np.memmap)
    np.testing.assert_array_equal(second.train.images_NHWC, source.decoded.train.images_NHWC)
    assert (second.class_names, second.fingerprint) == (("a", "b", "c"), first.fingerprint)
    assert (second.num_classes, second.image_size, second.in_channels) == (3, 4, 3)


def test_another_key_is_another_entry(tmp_path: Path):
    one, other = Source(0), Source(1)
    assert open_(one, tmp_path, "x").fingerprint != open_(other, tmp_path, "y").fingerprint


@pytest.mark.parametrize("file", ["train_images.npy", "meta.json", "test_labels.npy"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_damaged_entry_is_decoded_again(tmp_path: Path, file: str, damage: str):
    source = Source()
    before = open_(source, tmp_path).fingerprint
    path = tmp_path / "toy-k" / file
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-3])
    else:
        path.unlink()
    assert open_(source, tmp_path).fingerprint == before
    assert source.calls == 2


def test_failed_decoding_leaves_nothing(tmp_path: Path):
    def fails() -> Decoded:
        raise UsageError("no image")

    with pytest.raises(UsageError, match="no image"):
        cached("toy", "k", cache_dir=str(tmp_path), decode=fails)
    assert not [p for p in tmp_path.iterdir() if p.is_dir()]


def test_threads_that_want_the_same_data_decode_once(tmp_path: Path):
    source = Source()
    threads = [threading.Thread(target=open_, args=(source, tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert source.calls == 1


def test_unwritable_cache_is_explained(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"paths\.cache=FOLDER"):
        open_(Source(), tmp_path / "file")


def test_unreadable_sources_are_not_called_an_unwritable_cache(tmp_path: Path):
    def fails() -> Decoded:
        return Decoded(*[np.load(tmp_path / "lost.npy")] * 2, ("a",))

    with pytest.raises(UsageError, match=r"read the images of toy, but .*lost\.npy") as caught:
        cached("toy", "k", cache_dir=str(tmp_path), decode=fails)
    assert "paths.cache" not in str(caught.value)


def test_source_key_follows_files_and_options(tmp_path: Path):
    (tmp_path / "a").mkdir()
    before = source_key(tmp_path, options=["RGB"])
    assert source_key(tmp_path, options=["RGB"]) == before
    assert source_key(tmp_path, options=["L"]) != before
    (tmp_path / "a" / "new.png").touch()
    assert source_key(tmp_path, options=["RGB"]) != before


def test_source_key_follows_what_is_overwritten_in_place(tmp_path: Path):
    file = tmp_path / "a.png"
    file.write_bytes(b"old")
    before, times = source_key(tmp_path), file.stat()
    os.utime(file, ns=(0, times.st_mtime_ns))
    assert source_key(tmp_path) == before
    file.write_bytes(b"longer")
    os.utime(file, ns=(0, times.st_mtime_ns))
    assert source_key(tmp_path) != before  # another size
    file.write_bytes(b"new")
    os.utime(file, ns=(0, times.st_mtime_ns + 1))
    assert source_key(tmp_path) != before  # another time
    os.utime(file, ns=(0, times.st_mtime_ns))
    assert source_key(tmp_path) == before  # as many bytes and the old time: missed, as documented


def test_source_key_follows_links_and_ends_where_they_lead_back(tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    root = tmp_path / "root"
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "back").symlink_to(root)
    (root / "broken").symlink_to(tmp_path / "nowhere")
    before = source_key(root)
    (tmp_path / "elsewhere" / "new.png").touch()
    assert source_key(root) != before


def test_channel_statistics_match_numpy():
    images = np.random.default_rng(0).integers(0, 256, (9, 5, 5, 3), dtype=np.uint8)
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, (images / 255).mean((0, 1, 2)))
    np.testing.assert_allclose(std, (images / 255).std((0, 1, 2)))
