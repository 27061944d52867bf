"""An engine in, the batch sizes out in which each row is left alone: those that give the same pixels, bit for bit.

Light enough for the server, which repeats the check at its warm-up: kernels differ from machine to machine.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from export.engines import Engine, NonFinite
from training.errors import LimnerError

BUCKETS: tuple[int, ...] = (
    1,
    2,
    4,
    8,
    16,
    32,
    64,
)  # that may be served; padding wastes at most half a batch
PROBE_KEY = 2  # of Philox: fixed latents, the same at every check
SHUFFLE_KEY = 3  # of Philox: the order in which rows meet mates that no rotation gives them


class GateError(LimnerError):
    """An engine's pictures are not the model's; the bundle stays as it was."""

    code = "gate"


def probe(count: int, latent: int, classes: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Fixed latents float32 [count, latent], labels int64 [count] over all classes (None if there are none)."""
    noise = np.random.Generator(np.random.Philox(key=PROBE_KEY))
    z = noise.standard_normal((count, latent), np.float32)
    return z, np.arange(count, dtype=np.int64) % classes if classes else None


def invariant_buckets(
    engine: Engine,
    z: np.ndarray,
    label: np.ndarray | None,
    buckets: Sequence[int] = BUCKETS,
    shifts: int | None = None,
) -> tuple[int, ...]:
    """The buckets, ascending, in which each row of z [N, latent] has one picture, and the same one in all of them.

    N is at least the largest bucket. In a bucket of b, the first b rows stand at every place by rotation; the others
    run once; then all run in another order, and a batch holds one row b times. A bucket that gives a row two pictures
    is dropped, and so is one whose pictures differ from those of the largest bucket that is left: where a kernel for
    single rows sums in another order, rows alone are padded to a larger bucket. A row that is not finite must be so
    wherever it stands.

    That is about b² + 2 N rows; with `shifts`, the quick check of a warm-up, at most 3 `shifts` + 1 batches a bucket.

    Raises GateError where no bucket gives a row one picture; EngineError as the engine does.
    """
    seen = {size: pictures for size in buckets if (pictures := _pictures(engine, z, label, size, shifts)) is not None}
    if not seen:
        raise GateError(
            f"{engine.artifact} gives other pixels for the same latent from run to run",
            "To serve it, try --engine-threads 1, or another engine or precision.",
        )
    largest = seen[max(seen)]
    return tuple(size for size in sorted(seen) if _agree(seen[size], largest))


Pictures = dict[int, np.ndarray]  # row of the probe -> its picture


def _pictures(
    engine: Engine, z: np.ndarray, label: np.ndarray | None, size: int, shifts: int | None
) -> Pictures | None:
    """What batches of that size make of each row; None where a row has two pictures."""
    found: Pictures = {}
    for order in _orders(size, len(z), shifts):
        for row, image in zip(order.tolist(), _run(engine, z, label, order), strict=True):
            if not np.array_equal(found.setdefault(row, image), image):
                return None
    return found


def _orders(size: int, rows: int, shifts: int | None) -> Iterator[np.ndarray]:
    """Batches as row numbers [size]."""
    first = np.arange(size)
    for shift in range(min(size, shifts or size)):
        yield np.roll(first, shift)
    shuffled = np.random.Generator(np.random.Philox(key=SHUFFLE_KEY)).permutation(rows)
    for order in (np.arange(size, rows), shuffled):
        batches = -(-len(order) // size)
        yield from np.resize(order, (batches, size))[: shifts or batches]
    yield np.zeros(size, np.int64)


def _run(engine: Engine, z: np.ndarray, label: np.ndarray | None, order: np.ndarray) -> np.ndarray:
    """uint8 [N, H, W, C], black where a picture is not finite: what the cast made of it may be anything."""
    try:
        return engine.run(z[order], None if label is None else label[order])
    except NonFinite as error:
        images = error.images.copy()
        images[error.rows] = 0
        return images


def _agree(one: Pictures, other: Pictures) -> bool:
    """Whether the rows that both have seen look the same."""
    return all(np.array_equal(one[row], other[row]) for row in one.keys() & other.keys())
