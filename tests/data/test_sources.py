"""Data sets: the bundled one, a user's folders, the official archives where they are."""

import gzip
import pickle
import shutil
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from orthounlearn.data.sources import digits, image_folder, official
from orthounlearn.errors import UsageError


def make_folder(root: Path, *, size: tuple[int, int] = (6, 6), classes: str = "ab") -> Path:
    rng = np.random.default_rng(0)
    for part, count in (("train", 4), ("test", 2)):
        for name in classes:
            folder = root / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return root


def test_digits_are_the_bundled_ones(cache_dir: Path):
    data = digits(cache_dir=str(cache_dir))
    assert len(data.train) + len(data.test) == 1797
    assert data.class_names == tuple("0123456789")
    assert (data.image_size, data.in_channels) == (8, 1)
    shares = np.bincount(data.test.labels_N) / np.bincount(data.train.labels_N)
    assert shares.max() - shares.min() < 0.01


def test_image_folder_keeps_pixels_and_labels(tmp_path: Path):
    root = make_folder(tmp_path / "mine")
    data = image_folder(root=str(root), cache_dir=str(tmp_path / "cache"), image_size=6)
    assert data.class_names == ("a", "b")
    assert data.train.labels_N.tolist() == [0] * 4 + [1] * 4
    with Image.open(root / "train" / "b" / "2.png") as image:
        np.testing.assert_array_equal(data.train.images_NHWC[6], np.asarray(image))


def test_image_folder_resizes_any_shape_to_a_square(tmp_path: Path):
    root = make_folder(tmp_path / "wide", size=(6, 20))
    data = image_folder(root=str(root), cache_dir=str(tmp_path / "cache"), image_size=4)
    assert data.train.images_NHWC.shape == (8, 4, 4, 3)


def test_adding_a_file_decodes_again(tmp_path: Path):
    root = make_folder(tmp_path / "mine")
    cache = str(tmp_path / "cache")
    assert len(image_folder(root=str(root), cache_dir=cache, image_size=6).train) == 8
    Image.new("RGB", (6, 6)).save(root / "train" / "a" / "new.png")
    assert len(image_folder(root=str(root), cache_dir=cache, image_size=6).train) == 9


def test_overwriting_a_file_decodes_again(tmp_path: Path):
    root = make_folder(tmp_path / "mine")
    cache = str(tmp_path / "cache")
    before = image_folder(root=str(root), cache_dir=cache, image_size=6)
    file = root / "train" / "a" / "0.png"
    Image.new("RGB", (6, 6), (1, 2, 3)).save(file)
    after = image_folder(root=str(root), cache_dir=cache, image_size=6)
    assert (after.train.images_NHWC[0] == (1, 2, 3)).all()
    assert after.fingerprint != before.fingerprint


def test_what_lies_beside_the_images_decodes_nothing_again(tmp_path: Path):
    root = make_folder(tmp_path / "mine")
    cache = root / "cache"  # as with data.root=.
    image_folder(root=str(root), cache_dir=str(cache), image_size=6)
    entries = sorted(cache.iterdir())
    image_folder(root=str(root), cache_dir=str(cache), image_size=6)
    assert sorted(cache.iterdir()) == entries


@pytest.mark.parametrize("root", [".", "..", "train/..", "../mine"])
def test_a_folder_is_named_as_it_is_called(
    tmp_path: Path, root: str, monkeypatch: pytest.MonkeyPatch
):
    mine = make_folder(tmp_path / "mine")
    monkeypatch.chdir(mine / "train" if root == ".." else mine)
    data = image_folder(root=root, cache_dir=str(tmp_path / "cache"), image_size=6)
    assert data.name == "mine"


def test_a_link_keeps_its_name(tmp_path: Path):
    (tmp_path / "pets").symlink_to(make_folder(tmp_path / "mine"))
    root = str(tmp_path / "pets")
    assert image_folder(root=root, cache_dir=str(tmp_path / "cache"), image_size=6).name == "pets"


@pytest.mark.parametrize("root", ["/", "/tmp/.."])  # noqa: S108 - nothing is written
def test_a_folder_without_a_name_is_refused(tmp_path: Path, root: str):
    with pytest.raises(UsageError, match="folder with a name"):
        image_folder(root=root, cache_dir=str(tmp_path), image_size=6)


def test_photos_are_turned_upright(tmp_path: Path):
    root = make_folder(tmp_path / "mine")
    pixels = np.zeros((6, 6, 3), np.uint8)
    pixels[0] = 255  # the upper row, stored as if the camera had been turned by 180 degrees
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(pixels).save(root / "train" / "a" / "0.png", exif=exif)
    data = image_folder(root=str(root), cache_dir=str(tmp_path / "cache"), image_size=6)
    np.testing.assert_array_equal(data.train.images_NHWC[0], pixels[::-1])


def test_sixteen_bits_of_grey_are_scaled(tmp_path: Path):
    root = make_folder(tmp_path / "mine")
    grey = np.linspace(0, 65535, 36).round().astype(np.uint16).reshape(6, 6)
    Image.fromarray(grey).save(root / "train" / "a" / "0.png")
    data = image_folder(root=str(root), cache_dir=str(tmp_path / "cache"), image_size=6)
    np.testing.assert_array_equal(data.train.images_NHWC[0, ..., 0], np.rint(grey / 257))


def _broken_link(root: Path) -> None:
    (root / "train" / "a" / "link.png").symlink_to(root / "nowhere.png")


def _broken_class(root: Path) -> None:
    (root / "train" / "c").symlink_to(root / "nowhere")


def _nested(root: Path) -> None:
    (root / "test" / "b" / "more").mkdir()


def _without_test(root: Path) -> None:
    for path in (root / "test").rglob("*.png"):
        path.unlink()


def _damaged(root: Path) -> None:
    path = root / "train" / "a" / "1.png"
    path.write_bytes(path.read_bytes()[:40])


def _text(root: Path) -> None:
    (root / "train" / "a" / "1.png").write_text("no image")


def _extra_class(root: Path) -> None:
    (root / "train" / "c").mkdir()
    Image.new("RGB", (6, 6)).save(root / "train" / "c" / "0.png")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: shutil.rmtree(root / "test"), "there is no .*test"),
        (_without_test, "class folders without images"),
        (_damaged, r"1\.png"),
        (_broken_link, r"a/link\.png is broken"),
        (_broken_class, "train/c is broken"),
        (_nested, "b/more is a folder"),
        (_text, r"1\.png"),
        (_extra_class, "in one of them only: c"),
    ],
)
def test_bad_folders_are_named(tmp_path: Path, spoil, message: str):
    root = make_folder(tmp_path / "mine")
    spoil(root)
    with pytest.raises(UsageError, match=message):
        image_folder(root=str(root), cache_dir=str(tmp_path / "cache"), image_size=6)


@pytest.mark.parametrize(("root", "message"), [(None, "data.root=FOLDER"), ("/no/where", "no /no")])
def test_missing_folders_are_named(tmp_path: Path, root: str | None, message: str):
    with pytest.raises(UsageError, match=message):
        image_folder(root=root, cache_dir=str(tmp_path), image_size=8)


def test_official_root_without_the_data_says_what_was_looked_for(tmp_path: Path):
    with pytest.raises(UsageError, match="Found neither"):
        official(name="cifar10", cache_dir=str(tmp_path / "cache"), root=str(tmp_path))


def make_cifar10(root: Path) -> dict[str, NDArray[np.uint8]]:
    """Write a tiny archive in the format of the official one, in torchvision's own layout."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    pixels = {}
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        pixels[name] = rng.integers(0, 256, (20, 3072), dtype=np.uint8)
        batch = {"data": pixels[name], "labels": list(range(10)) * 2}
        (folder / name).write_bytes(pickle.dumps(batch))
    meta = {"label_names": [f"c{i}" for i in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta))
    return pixels


def test_cifar10_in_its_official_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pixels = make_cifar10(tmp_path)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    data = official(name="cifar10", cache_dir=str(tmp_path / "cache"), root=str(tmp_path))
    assert (len(data.train), len(data.test), data.num_classes) == (100, 20, 10)
    expected = pixels["data_batch_1"][3].reshape(3, 32, 32).transpose(1, 2, 0)
    np.testing.assert_array_equal(data.train.images_NHWC[3], expected)


def test_files_with_another_checksum_are_refused(tmp_path: Path):
    make_cifar10(tmp_path)
    with pytest.raises(UsageError, match="checksum"):
        official(name="cifar10", cache_dir=str(tmp_path / "cache"), root=str(tmp_path))


def make_tiny_imagenet(root: Path, *lines: str) -> Path:
    for name in ("n01", "n02"):
        folder = root / "train" / name / "images"
        folder.mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (64, 64), (index, 0, 0)).save(folder / f"{name}_{index}.JPEG")
    val = root / "val"
    (val / "images").mkdir(parents=True)
    for index in range(2):
        Image.new("L", (64, 64)).save(val / "images" / f"val_{index}.JPEG")
    (val / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    return root


_ANNOTATIONS = ("val_0.JPEG\tn02\t0\t0\t62\t62", "val_1.JPEG\tn01\t0\t0\t62\t62")


def test_tiny_imagenet_in_its_official_files(tmp_path: Path):
    make_tiny_imagenet(tmp_path / "tiny-imagenet-200", *_ANNOTATIONS)
    data = official(name="tiny_imagenet", cache_dir=str(tmp_path / "cache"), root=str(tmp_path))
    assert data.train.images_NHWC.shape == (6, 64, 64, 3)
    assert (data.class_names, data.test.labels_N.tolist()) == (("n01", "n02"), [0, 1])


@pytest.mark.parametrize("line", ["val_2.JPEG\tn03\t0\t0\t62\t62", "val_2.JPEG", ""])
def test_an_annotation_of_no_class_is_named(tmp_path: Path, line: str):
    root = make_tiny_imagenet(tmp_path / "tiny", *_ANNOTATIONS, line, *_ANNOTATIONS)
    with pytest.raises(UsageError, match=r"line 3 of .*val_annotations\.txt"):
        official(name="tiny_imagenet", cache_dir=str(tmp_path / "cache"), root=str(root))


@pytest.mark.parametrize(
    ("lost", "message"),
    [("train", "train part of Tiny ImageNet"), ("train/n01/images", "read the images of tiny_im")],
)
def test_lost_folders_of_tiny_imagenet_are_named(tmp_path: Path, lost: str, message: str):
    root = make_tiny_imagenet(tmp_path / "tiny", *_ANNOTATIONS)
    shutil.rmtree(root / lost)
    with pytest.raises(UsageError, match=message) as caught:
        official(name="tiny_imagenet", cache_dir=str(tmp_path / "cache"), root=str(root))
    assert str(root / lost) in str(caught.value)


def test_no_internet_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def unreachable(*_: object, **__: object) -> None:
        raise URLError("no route")

    monkeypatch.setattr("torchvision.datasets.CIFAR10.download", unreachable)
    with pytest.raises(UsageError, match="ORTHOUNLEARN_DATA"):
        official(name="cifar10", cache_dir=str(tmp_path / "cache"))


def test_fashion_mnist_in_its_official_files(tmp_path: Path):
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in (("train", 30), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        header = b"".join(n.to_bytes(4, "big") for n in (0x803, count, 28, 28))
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(
            gzip.compress(header + images.tobytes())
        )
        labels = (np.arange(count) % 10).astype(np.uint8)
        header = b"".join(n.to_bytes(4, "big") for n in (0x801, count))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(
            gzip.compress(header + labels.tobytes())
        )
    data = official(name="fashion_mnist", cache_dir=str(tmp_path / "cache"), root=str(tmp_path))
    assert data.test.images_NHWC.shape == (20, 28, 28, 1)
    np.testing.assert_array_equal(data.test.images_NHWC[..., 0], images)


def test_real_cifar10(cifar10_root: Path, cache_dir: Path):
    data = official(name="cifar10", cache_dir=str(cache_dir), root=str(cifar10_root))
    assert data.train.images_NHWC.shape == (50000, 32, 32, 3)
    assert np.bincount(data.test.labels_N).tolist() == [1000] * 10
    assert data.class_names[:4] == ("airplane", "automobile", "bird", "cat")
    # The published channel means of CIFAR-10.
    np.testing.assert_allclose(data.mean, (0.4914, 0.4822, 0.4465), atol=2e-4)
    np.testing.assert_allclose(data.std, (0.2470, 0.2435, 0.2616), atol=2e-4)
