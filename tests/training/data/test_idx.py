"""idx files become a set with the split that they have, or a DataError that names the file."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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


def parts(dataset: Dataset) -> tuple[Images, Images, Images]:
    return dataset.train, dataset.val, dataset.test


def levels(part: Images) -> list[int]:
    """The grey level of each of a part's plain images."""
    assert (part.images == part.images[:, :1, :1, :1]).all()
    return part.images[:, 0, 0, 0].tolist()


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
