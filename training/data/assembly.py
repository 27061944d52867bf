"""A Source in, its Dataset out: decoded once, straight into place, in memory or in a mapped file."""

import hashlib
import itertools
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from training.data import mapped
from training.data.decoding import Unusable, decode
from training.data.images import Dataset, Images, Raw, Source
from training.data.splits import permutation, split
from training.errors import DataError

FEWEST = 20  # images: fewer leave val and test empty
MAPPED_OVER = 2 * 10**9  # bytes: larger sets are kept in a file, which needs no memory and is there for the next run
OBSERVED_FROM = 2000  # images: fewer are there before a bar could be read
_BATCH = 256  # pictures decoded side by side

Observe = Callable[[float], None]
Allocate = Callable[[tuple[int, ...]], np.ndarray]


class _Built(NamedTuple):
    """images uint8 [N, H, W, C]: `counts` of train, then val, then test, then what was dropped."""

    images: np.ndarray
    labels: np.ndarray | None
    counts: list[int]
    class_names: list[str]
    note: str


class _ColourError(Exception):
    """A colour picture came up in what had been grey."""


def assemble(source: Source, size: int, limit: int | None, observe: Observe) -> Dataset:
    """Take, decode, resize and split; `limit` and `observe` as `data.load` has them. Raises DataError."""
    rows = _taken(source, limit)
    most = sum(map(len, rows)) * size * size * 3
    if most <= MAPPED_OVER:
        return _dataset(source.name, _built(source, size, rows, observe, _in_memory))
    with mapped.opened(source.key, size, limit) as slot:
        kept = slot.read()
        if kept is None:
            built = _built(source, size, rows, observe, lambda s: (slot.allocate if _large(s) else _in_memory)(s))
            if not isinstance(built.images, np.memmap):
                return _dataset(source.name, built)
            slot.keep(built.images, built.labels, built._asdict() | {"images": None, "labels": None})
            kept = slot.read()
            assert kept is not None
    images, labels, rest = kept
    return _dataset(source.name, _Built(**(rest | {"images": images, "labels": labels})))


def _in_memory(shape: tuple[int, ...]) -> np.ndarray:
    return np.empty(shape, np.uint8)


def _large(shape: tuple[int, ...]) -> bool:
    return int(np.prod(shape)) > MAPPED_OVER


def _dataset(name: str, built: _Built) -> Dataset:
    """Views, no copies."""
    ends = itertools.pairwise([0, *itertools.accumulate(built.counts)])
    train, val, test = (
        Images(built.images[start:end], None if built.labels is None else built.labels[start:end])
        for start, end in ends
    )
    return Dataset(name, train, val, test, tuple(built.class_names), built.note)


def _taken(source: Source, limit: int | None) -> list[np.ndarray]:
    """The rows of each part that will be read, in permuted order."""
    everything = sum(part.count for part in source.parts)
    taken = []
    for part in source.parts:
        rows = permutation(part.count)
        if part.labels is not None:
            rows = rows[part.labels[rows] >= 0]
        most = limit
        if limit is not None and len(source.parts) == 3:  # the three are one set, cut beforehand
            most = max(1, limit * part.count // everything)
        taken.append(rows[:most])
    if len(taken) == 2:
        taken[1].sort()  # a set's own test split stays in its order
    return taken


def _built(source: Source, size: int, rows: list[np.ndarray], observe: Observe, allocate: Allocate) -> _Built:
    """Decide every picture's place, fill the places, and move only where pictures had to be dropped."""
    count = sum(map(len, rows))
    of_parts = np.split(np.arange(count), np.cumsum([len(part) for part in rows])[:-1])
    labels = _labels(source, rows)
    planned = np.concatenate(split(of_parts, labels, source.tidy))
    place = np.full(count, -1)
    place[planned] = np.arange(len(planned))
    try:
        images = allocate((len(planned), size, size, 1))
        dropped = _fill(images, source, rows, place, observe)
    except _ColourError:
        images = allocate((len(planned), size, size, 3))
        dropped = _fill(images, source, rows, place, observe)

    sound = place >= 0
    sound[list(dropped)] = False
    parts = split([part[sound[part]] for part in of_parts], labels, source.tidy)
    order = np.concatenate(parts)
    skipped = Counter(dropped.values())
    skipped.update(source.left_out)
    usable = count - len(dropped)
    if usable >= FEWEST:  # else none of them is used
        skipped["of classes without a training image"] += usable - len(order)
    note = _note(+skipped, count + sum(source.left_out.values()))
    _check(source, images, usable, [place[part] for part in parts], note)
    _rearrange(images, place[order])
    names = list(source.class_names)
    if labels is not None:
        seen = np.unique(labels[parts[0]])
        labels = np.searchsorted(seen, labels[order])
        names = [names[label] for label in seen]
    return _Built(images, labels, [len(part) for part in parts], names, "; ".join(filter(None, (note, source.remark))))


def _labels(source: Source, rows: list[np.ndarray]) -> np.ndarray | None:
    """Of all that is taken, one part after the other."""
    if not source.class_names:
        return None
    labels = [part.labels[taken] for part, taken in zip(source.parts, rows, strict=True) if part.labels is not None]
    return np.concatenate(labels)


def _fill(
    images: np.ndarray, source: Source, rows: list[np.ndarray], place: np.ndarray, observe: Observe
) -> dict[int, str]:
    """Decode each picture into its place. -> why a picture was dropped, by its number. Raises _ColourError."""
    dropped: dict[int, str] = {}
    seen: set[bytes] = set()
    start, done, total = 0, 0, len(images)
    for part, taken in zip(source.parts, rows, strict=True):
        numbers = start + np.argsort(taken)  # ascending rows: a file is read once, from its start
        numbers = numbers[place[numbers] >= 0]
        raws = part.read(taken[numbers - start])
        for number, pixels in zip(numbers.tolist(), _decoded(raws, *images.shape[2:]), strict=True):
            done += 1
            if done % _BATCH == 0 and total >= OBSERVED_FROM:
                observe(done / total)
            if isinstance(pixels, Unusable):
                dropped[number] = str(pixels)
                continue
            if source.tidy:
                digest = hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()
                if digest in seen:  # it would sit in train and in test
                    dropped[number] = "repeated"
                    continue
                seen.add(digest)
            images[place[number]] = pixels
        start += len(taken)
    if total >= OBSERVED_FROM:
        observe(1.0)
    return dropped


def _decoded(raws: Iterable[Raw], size: int, channels: int) -> Iterator[np.ndarray | Unusable]:
    """uint8 [size, size, channels] of each, or why not."""

    def one(raw: Raw) -> np.ndarray | Unusable:
        try:
            pixels = decode(raw, size)
        except Unusable as reason:
            return reason
        return pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], channels, 2)

    waiting = iter(raws)
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")  # what Pillow finds odd about a file that it reads all the same
        while batch := list(itertools.islice(waiting, _BATCH)):
            side_by_side = not isinstance(batch[0], np.ndarray)  # Pillow decodes outside the interpreter's lock
            for pixels in pool.map(one, batch) if side_by_side else map(one, batch):
                if isinstance(pixels, np.ndarray) and pixels.shape[2] != channels:
                    raise _ColourError
                yield pixels


def _note(skipped: Counter[str], of: int) -> str:
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in skipped.most_common())
    return f"skipped {skipped.total():,} of {of:,} images: {reasons}" if skipped else ""


def _check(source: Source, images: np.ndarray, usable: int, parts: list[np.ndarray], note: str) -> None:
    """Refuse what cannot be trained on. parts: the places of train, val and test."""
    places = np.concatenate(parts)
    said = f" ({note})" if note else ""
    several = len(places) > 1 or (len(places) == 1 and "repeated" in note)
    if several and all(np.array_equal(images[places[0]], images[other]) for other in places[1:]):
        raise DataError(f"all images of {source.where} are the same picture{said}", source.mend)
    if usable < FEWEST:
        kind = "different" if source.tidy else "usable"
        raise DataError(f"{usable} {kind} images in {source.where}, at least {FEWEST} are needed{said}", source.mend)
    if min(map(len, parts)) == 0:
        raise DataError(f"{source.where} leaves no images to judge by{said}", source.mend)


def _rearrange(images: np.ndarray, source: np.ndarray) -> None:
    """In place: images[i] becomes what images[source[i]] was; what no i asks for ends up behind."""
    if np.array_equal(source, np.arange(len(source))):
        return
    rest = np.setdiff1d(np.arange(len(images)), source)
    origin = np.concatenate([source, rest]).tolist()
    done = [place == other for place, other in enumerate(origin)]
    for start in range(len(origin)):
        if done[start]:
            continue
        first, place = images[start].copy(), start
        while not done[place]:  # once round a cycle of the permutation
            done[place] = True
            images[place] = first if origin[place] == start else images[origin[place]]
            place = origin[place]
