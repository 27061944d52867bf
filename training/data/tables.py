"""Tables with a column of images in, a Source out: the schema of Hugging Face sets, in memory or in parquet files."""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.data.decoding import measure
from training.data.images import Part, Raw, Source
from training.errors import DataError

TRAIN = ("train", "training")
TEST = ("test", "testing", "validation", "valid", "val", "dev")  # the first that has labels is the test split
IMAGE_COLUMNS = ("image", "img", "picture", "png", "jpg")
LABEL_COLUMNS = ("label", "labels", "class", "classes", "category", "target", "fine_label")
PEEK = 32  # pictures whose size tells the set's own
CHUNK = 64  # rows at a time: they may be megabytes each


@dataclass(frozen=True)
class Rows:
    """One split: `count` rows, the `datasets.Features` of their columns, and a way to read them.

    `chunks(column, rows)` gives (first row, pyarrow array), ascending, and may leave out what holds none of `rows`.
    """

    count: int
    features: Any
    chunks: Callable[[str, np.ndarray], Iterator[tuple[int, Any]]]


def table_set(name: str, splits: dict[str, Rows], key: str, where: str) -> Source:
    """Its own train and test where it has them, else one part. Raises DataError."""
    known = [split for split in (*TRAIN, *TEST) if split in splits]
    train = known[0] if known and known[0] in TRAIN else next(iter(splits))
    image = _image_column(splits[train].features, where)
    labels = _label_column(splits[train].features)
    found = {train: _labels(splits[train], labels)}
    test = None
    for split in known:
        has_images = split not in TRAIN and split != train and image in splits[split].features
        if has_images and (labels is None or labels in splits[split].features):
            found[split] = _labels(splits[split], labels)
            if labels is None or any(label is not None for label in found[split]):
                test = split
                break
            del found[split]
    used = [split for split in (train, test) if split is not None]
    names, numbers = _classes(splits[train].features.get(labels), [found[split] for split in used], where)
    parts = tuple(_part(splits[split], image, of) for split, of in zip(used, numbers, strict=True))
    unlabelled = sum(int((of < 0).sum()) for of in numbers if of is not None)
    unused = [split for split in splits if split not in used]
    peeked = np.arange(min(PEEK, parts[0].count))
    sizes = {measure(raw) for raw in parts[0].read(peeked)}
    width, height = next(iter(sizes)) or (0, 0) if len(sizes) == 1 else (0, 0)
    return Source(
        name,
        parts,
        names,
        key,
        where,
        size=width if width == height and width else None,
        tidy=test is None,
        left_out={"without a label": unlabelled} if unlabelled else {},
        remark=f"not used: split {', '.join(unused)}" if unused else "",
    )


def _image_column(features: Any, where: str) -> str:
    from datasets import Image, Value

    pictures = [column for column, feature in features.items() if isinstance(feature, Image)]
    pictures = pictures or [  # written without Hugging Face's own description
        column
        for column, feature in features.items()
        if (isinstance(feature, dict) and "bytes" in feature)
        or (isinstance(feature, Value) and feature.dtype in ("binary", "large_binary"))
    ]
    if not pictures:
        raise DataError(
            f"{where} has no column of images, only {', '.join(list(features)[:8])}", "Take a set of images."
        )
    return next((column for column in IMAGE_COLUMNS if column in pictures), pictures[0])


def _label_column(features: Any) -> str | None:
    from datasets import ClassLabel, Value

    of_classes = [column for column, feature in features.items() if isinstance(feature, ClassLabel)]
    plain = [
        column
        for column, feature in features.items()
        if isinstance(feature, Value) and re.match(r"u?int|(large_)?string|bool", feature.dtype)
    ]
    named = next((column for column in LABEL_COLUMNS if column in of_classes), None)
    if of_classes:
        return named or of_classes[0]
    return next((column for column in LABEL_COLUMNS if column in plain), None)


def _labels(rows: Rows, column: str | None) -> list[Any]:
    """One of each row; None for none, which Hugging Face writes as -1."""
    from datasets import ClassLabel

    if column is None:
        return []
    labels = [label for _, chunk in rows.chunks(column, np.arange(rows.count)) for label in chunk.to_pylist()]
    return (
        [None if label == -1 else label for label in labels]
        if isinstance(rows.features[column], ClassLabel)
        else labels
    )


def _classes(feature: Any, splits: list[list[Any]], where: str) -> tuple[tuple[str, ...], Sequence[np.ndarray | None]]:
    """Class names, and int64 labels of each split, -1 for none."""
    from datasets import ClassLabel

    if feature is None:
        return (), [None] * len(splits)
    if isinstance(feature, ClassLabel):
        numbers = [np.array([-1 if label is None else label for label in split], np.int64) for split in splits]
        highest = max(int(of.max(initial=-1)) for of in numbers)
        if highest >= len(feature.names):
            raise DataError(
                f"the labels of {where} go up to {highest}, it names {len(feature.names)} classes", "Take another set."
            )
        return tuple(feature.names), numbers
    values = sorted({label for split in splits for label in split if label is not None})
    if 2 * len(values) > sum(map(len, splits)):  # titles or numbers of the pictures: no classes
        return (), [None] * len(splits)
    number = {value: index for index, value in enumerate(values)}
    return tuple(map(str, values)), [np.array([number.get(label, -1) for label in split], np.int64) for split in splits]


def _part(rows: Rows, column: str, labels: np.ndarray | None) -> Part:
    def read(wanted: np.ndarray) -> Iterator[Raw]:
        for start, chunk in rows.chunks(column, wanted):
            first, last = np.searchsorted(wanted, (start, start + len(chunk)))
            for row in wanted[first:last].tolist():
                value = chunk[row - start].as_py()
                if isinstance(value, dict):  # {bytes, path}: one of them is there
                    value = value.get("bytes") or (Path(value["path"]) if value.get("path") else None)
                yield value

    return Part(rows.count, labels, read)


# parquet files


def parquet_files(folder: Path) -> list[Path]:
    """In the folder, else in its sub-folders; without the table that a folder of pictures may have beside them."""
    for pattern in ("*.parquet", "*/*.parquet"):
        found = sorted(path for path in folder.glob(pattern) if path.stem != "metadata")
        if found:
            return found
    return []


def parquet_set(name: str, folder: Path) -> Source:
    """The parquet files of a folder; a file's path says which split it belongs to. Raises DataError."""
    splits: dict[str, list[Path]] = {}
    files = parquet_files(folder)
    for path in files:
        words = re.split(r"[^a-z]+", str(path.relative_to(folder)).lower())
        splits.setdefault(next((word for word in words if word in TRAIN + TEST), TRAIN[0]), []).append(path)
    stamps = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    rows = {split: _file_rows(paths) for split, paths in splits.items()}
    return table_set(name, rows, f"parquet {folder.resolve()} {stamps}", str(folder))


def _file_rows(paths: list[Path]) -> Rows:
    from datasets import Features
    from pyarrow.parquet import ParquetFile

    groups: list[tuple[Path, int, int]] = []  # file, row group, rows
    features = None
    for path in paths:
        with _damage(path), ParquetFile(path) as file:
            mine = Features.from_arrow_schema(file.schema_arrow)
            groups += [(path, group, file.metadata.row_group(group).num_rows) for group in range(file.num_row_groups)]
        if features is not None and mine != features:
            raise DataError(f"{path} has other columns than {paths[0]}", "Put each set into a folder of its own.")
        features = mine

    def chunks(column: str, wanted: np.ndarray) -> Iterator[tuple[int, Any]]:
        start = 0
        for path, group, count in groups:
            first, last = np.searchsorted(wanted, (start, start + count))
            if first < last:
                with _damage(path), ParquetFile(path) as file:
                    at = start
                    for batch in file.iter_batches(CHUNK, [group], [column]):
                        yield at, batch.column(0)
                        at += len(batch)
            start += count

    return Rows(sum(count for _, _, count in groups), features, chunks)


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except MemoryError:
        raise
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path} is damaged ({str(error).partition('. ')[0]})", "Fetch the file again.") from error
