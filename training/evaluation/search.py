"""A picture and a folder in, its pictures ranked by nearness out, and a sheet of the nearest."""

import itertools
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from training.data.decoding import Unusable, decode
from training.data.decoding import measure as measured
from training.data.folders import PICTURES
from training.errors import DataError
from training.evaluation.ranking_sheet import ranking_sheet
from training.evaluation.similarity import SMALLEST, Measure, finite, with_channels

LEVELS = 2**22  # of a batch: 32 MB where a measure needs float64
MOST_PIXELS = 2**24  # of one picture: with them the measures need 4 GB
NAMED_SIZES = 3  # of those that an error lists

Observe = Callable[[float], None]


@dataclass(frozen=True)
class Found:
    """A picture of the folder, `file` as seen from there; `value` None: no figure, as of an equal picture."""

    file: Path
    value: float | None


@dataclass(frozen=True)
class Ranking:
    """All pictures that could be compared, nearest first; `left_out`: reason -> how many could not."""

    found: list[Found]
    left_out: dict[str, int]


def read(file: Path, size: int | None = None) -> np.ndarray:
    """A file -> uint8 [H, W, C] with C 1 or 3, upright, on white: its own size, or the middle square at size x size.

    Raises DataError.
    """
    if not file.exists():
        raise DataError(f"there is no '{file}'", "Give a picture, or a folder of pictures.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _read(file, size)
    except Unusable as reason:
        if str(reason) == "unreadable":
            mend = "Give a PNG, JPEG, WebP, BMP, GIF or TIFF file."
            raise DataError(f"'{file}' is no picture that can be read", mend) from reason
        mend = "Give a larger one." if size else "Bring it to another size: --size 64."
        raise DataError(f"'{file}' is {reason}", mend) from reason


def read_pair(first: Path, second: Path, size: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Two files of one size, read as `read` does. Raises DataError, also for two sizes."""
    one, other = read(first, size), read(second, size)
    if one.shape[:2] != other.shape[:2]:
        (height, width), (high, wide) = one.shape[:2], other.shape[:2]
        fitting = max(SMALLEST, min(height, width, high, wide))
        raise DataError(
            f"'{first}' is {width}x{height} and '{second}' {wide}x{high}",
            f"Bring both to one size: --size {fitting}.",
        )
    return one, other


def rank(
    query: Path,
    folder: Path,
    measure: Measure,
    size: int | None = None,
    without: Sequence[Path] = (),
    observe: Observe = lambda fraction: None,
) -> Ranking:
    """Compare a picture with all in a folder and its sub-folders; ties go by name.

    The query itself and the files in `without` are not among them, nor are hidden ones. Pictures of another size than
    the query's are left out, so `size` brings all to size x size. If one of them is in colour, grey ones are compared
    in colour too: figures of one ranking are of one kind. `observe` hears the share that is done.
    Raises DataError where no picture is left, EvaluationError where a measure fails.
    """
    image = read(query, size)
    files = _files(folder, (query, *without))
    try:
        return _ranked(image, folder, files, measure, size, observe)
    except _ColourError:
        return _ranked(with_channels(image, 3), folder, files, measure, size, observe)


def draw(
    query: Path, folder: Path, ranking: Ranking, measure: Measure, size: int | None = None, top: int = 24
) -> Image.Image:
    """The sheet of the nearest `top`, with rank, figure and name below each. Raises DataError."""
    nearest = ranking.found[:top]
    rows = [(measure.text(found.value), str(found.file), read(folder / found.file, size)) for found in nearest]
    title = f"the nearest {len(nearest):,} of {len(ranking.found):,} in {folder}"
    return ranking_sheet((str(query), read(query, size)), rows, title, f"by {measure.title}, {measure.scale()}")


class _ColourError(Exception):
    """A colour picture came up where all had been grey."""


def _ranked(
    image: np.ndarray, folder: Path, files: list[Path], measure: Measure, size: int | None, observe: Observe
) -> Ranking:
    height, width, channels = image.shape
    described = measure.describe(image[None])
    values: dict[Path, float] = {}
    unusable: Counter[str] = Counter()
    sizes: Counter[tuple[int, int]] = Counter()
    done = 0
    for part in _parts(folder, files, max(1, min(256, LEVELS // image.size)), size):
        fitting: dict[Path, np.ndarray] = {}
        for file, other in part.items():
            if isinstance(other, Unusable):
                unusable[str(other)] += 1
            elif other.shape[:2] != image.shape[:2]:
                sizes[other.shape[1], other.shape[0]] += 1
            elif other.shape[2] > channels:
                raise _ColourError
            else:
                fitting[file] = with_channels(other, channels)
        if fitting:
            figures = measure(described, measure.describe(np.stack(list(fitting.values()))))
            values |= dict(zip(fitting, figures.tolist(), strict=True))
        done += len(part)
        observe(done / len(files))
    if not values:
        raise _nothing_left(folder, len(files), (width, height), unusable, sizes)
    sign = -1 if measure.nearer == "high" else 1
    order = sorted(values, key=lambda file: (sign * values[file], file))
    left_out = dict(unusable) | ({f"of another size than {width}x{height}": sizes.total()} if sizes else {})
    return Ranking([Found(file, finite(values[file])) for file in order], left_out)


def _nothing_left(
    folder: Path, count: int, wanted: tuple[int, int], unusable: Counter[str], sizes: Counter[tuple[int, int]]
) -> DataError:
    if not count:
        return DataError(f"'{folder}' holds no picture to compare with", "At least one is needed beside the query.")
    common = sizes.most_common(NAMED_SIZES)
    said = [f"{number:,} {'is' if number == 1 else 'are'} {width}x{height}" for (width, height), number in common]
    rest = sizes.total() - sum(number for _, number in common)
    said += [f"{rest:,} of other sizes"] if rest else []
    said += [f"{number:,} {reason}" for reason, number in unusable.most_common()]
    fitting = max(SMALLEST, min([*wanted, *(min(pair) for pair, _ in common)]))
    mend = f"Bring all to one size: --size {fitting}." if sizes else "Put pictures into it that can be opened."
    what = f"is {wanted[0]}x{wanted[1]} as the query is" if sizes else "can be used"
    return DataError(f"none of the {count:,} pictures in '{folder}' {what}: {', '.join(said)}", mend)


def _parts(
    folder: Path, files: list[Path], count: int, size: int | None
) -> Iterator[dict[Path, np.ndarray | Unusable]]:
    """`count` files at a time, decoded side by side: what each shows, or why it cannot be used.

    Filters of warnings belong to the process, so they are set here and not in the threads.
    """

    def one(file: Path) -> np.ndarray | Unusable:
        try:
            return _read(folder / file, size)
        except Unusable as reason:
            return reason

    waiting = iter(files)
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")  # what Pillow finds odd about a file that it reads all the same
        while part := list(itertools.islice(waiting, count)):
            yield dict(zip(part, pool.map(one, part), strict=True))


def _read(file: Path, size: int | None) -> np.ndarray:
    """Raises Unusable."""
    pixels = np.array(decode(file, size) if size else _as_it_is(file))  # Pillow's are read-only, which torch dislikes
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _as_it_is(file: Path) -> np.ndarray:
    """-> uint8 [H, W] or [H, W, 3]. Raises Unusable."""
    sides = measured(file)
    if sides is None:
        raise Unusable("unreadable")
    if min(sides) < SMALLEST:
        raise Unusable(f"under {SMALLEST} px")
    if sides[0] * sides[1] > MOST_PIXELS:
        raise Unusable(f"over {MOST_PIXELS / 1e6:.0f} million px")
    return decode(file, None)


def _files(folder: Path, without: Sequence[Path]) -> list[Path]:
    """As seen from the folder, sorted by name, so that a ranking is the same on every machine. Raises DataError."""
    kept_out = {file.resolve() for file in without}
    found = []

    def unreadable(error: OSError) -> None:
        raise DataError(f"cannot read {error.filename} ({error.strerror})", "Check its permissions.") from error

    for path, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]  # an operating system's or an editor's
        shown = (name for name in names if not name.startswith(".") and Path(name).suffix.lower() in PICTURES)
        files = (Path(path, name) for name in shown)
        found += [file.relative_to(folder) for file in files if file.resolve() not in kept_out]
    return sorted(found)
