"""A folder of idx files in, a Source out: the format of MNIST and its successors (http://yann.lecun.com/exdb/mnist/)."""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np

from training.data.assembly import FEWEST
from training.data.images import Source, array_part
from training.errors import DataError


def has_idx(folder: Path) -> bool:
    return _file(folder, "train-images-idx3-ubyte") is not None


def idx_set(name: str, folder: Path, class_names: tuple[str, ...] | None = None) -> Source:
    """The set's own train and test. Raises DataError."""
    pairs = [
        (_read(folder, f"{part}-images-idx3-ubyte"), _read(folder, f"{part}-labels-idx1-ubyte").astype(np.int64))
        for part in ("train", "t10k")
    ]
    sides = pairs[0][0].shape[1:]
    for images, labels in pairs:
        alike = images.ndim == 3 and images.shape[1:] == sides and images.size
        if not alike or labels.shape != (len(images),) or len(images) < FEWEST:
            raise DataError(f"the idx files in {folder} do not belong together", "Fetch the four files again.")
    highest = int(max(labels.max() for _, labels in pairs))
    names = class_names or tuple(str(label) for label in range(highest + 1))
    if highest >= len(names):
        raise DataError(
            f"the labels in {folder} go up to {highest}, {name} has {len(names)} classes", f"Try --data {folder}."
        )
    parts = tuple(array_part(images, labels) for images, labels in pairs)
    stamps = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.glob("*-ubyte*"))]
    return Source(
        name, parts, names, f"idx {folder.resolve()} {stamps}", str(folder), size=sides[0]
    )  # the height, as ever


def _file(folder: Path, stem: str) -> Path | None:
    return next((path for path in (folder / stem, folder / f"{stem}.gz") if path.is_file()), None)


def _read(folder: Path, stem: str) -> np.ndarray:
    path = _file(folder, stem)
    if path is None:
        raise DataError(f"{folder} has no {stem}[.gz]", "Put the four idx files of the set into one folder.")
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        zeros, kind, dimensions = struct.unpack(">HBB", raw[:4])
        shape = struct.unpack(f">{dimensions}I", raw[4 : 4 + 4 * dimensions])
        if zeros != 0 or kind != 8:  # 8 = unsigned byte
            raise ValueError("not an idx file of unsigned bytes")
        return np.frombuffer(raw, np.uint8, offset=4 + 4 * dimensions).reshape(shape)
    except (OSError, EOFError, ValueError, struct.error, zlib.error) as error:
        raise DataError(f"{path} is damaged ({error})", "Fetch the file again.") from error
