"""An engine in, figures or a refusal out: are its pictures the model's pictures, and does the batch leave them alone?

No torch here: the reference is any function from latents to pictures, so the server repeats the checks at warm-up.
"""

from collections.abc import Callable, Sequence

import numpy as np

from export.bundle import Parity
from export.engines import Engine, NonFinite
from training.errors import LimnerError
from training.evaluation.sight import Sees

Pictures = Callable[[np.ndarray, np.ndarray | None], np.ndarray]

BUCKETS = (1, 2, 4, 8, 16, 32, 64)  # batch sizes that may be served; powers of two waste at most half a batch
PARITY_BATCHES = (1, 5, 64)
ALLOWED_LEVELS = 1  # of 255: float sums in another order may round to the neighbouring grey level, no further
ALLOWED_SIGHT = 1e-3  # of the largest feature: float sums in another order differ by less
PROBE_KEY = 2  # of Philox: fixed latents, the same at every check


class GateError(LimnerError):
    """An engine's pictures are not the model's; the bundle stays as it was."""

    code = "gate"


def probe(count: int, latent: int, classes: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Fixed latents float32 [count, latent], labels int64 [count] over all classes (None if there are none)."""
    noise = np.random.Generator(np.random.Philox(key=PROBE_KEY))
    z = noise.standard_normal((count, latent), np.float32)
    return z, np.arange(count, dtype=np.int64) % classes if classes else None


def parity(engine: Engine, reference: Pictures, name: str, z: np.ndarray, label: np.ndarray | None) -> Parity:
    """Compare with `reference` at N = 1, 5, 64. Raises GateError past ALLOWED_LEVELS or where values are not finite."""
    worst = 0
    for size in PARITY_BATCHES:
        rows = _rows(z, label, range(size))
        try:
            difference = engine.run(*rows).astype(np.int16) - reference(*rows)
        except NonFinite as error:
            raise GateError(
                f"{engine.artifact} gives pictures that are not finite in {len(error.rows)} of {size} rows",
                "Look at the run's samples, and train again with lower rates.",
            ) from error
        worst = max(worst, int(np.abs(difference).max()))
    if worst > ALLOWED_LEVELS:
        raise GateError(
            f"{engine.artifact} differs from {name} by {worst} grey levels of 255, {ALLOWED_LEVELS} allowed",
            "Nothing was written. Please report this model: the export is wrong.",
        )
    return Parity(reference=name, batches=PARITY_BATCHES, max_levels=worst, allowed_levels=ALLOWED_LEVELS)


def invariant_buckets(
    engine: Engine,
    z: np.ndarray,
    label: np.ndarray | None,
    buckets: Sequence[int] = BUCKETS,
    shifts: int | None = None,
) -> tuple[int, ...]:
    """The buckets in which every row equals, bit for bit, the same row run alone.

    The first b rows of the probe are rotated through the batch, so that with `shifts` None each of them stands at every
    place beside other mates; a small number of shifts makes the quick check of a warm-up. Raises GateError where not
    even bucket 1 repeats itself.
    """
    alone = np.concatenate([engine.run(*_rows(z, label, [row])) for row in range(max(buckets))])
    agreed = tuple(
        size
        for size in buckets
        if all(
            np.array_equal(engine.run(*_rows(z, label, order)), alone[order])
            for order in (np.roll(np.arange(size), shift) for shift in range(min(size, shifts or size)))
        )
    )
    if 1 in buckets and 1 not in agreed:
        raise GateError(
            f"{engine.artifact} gives other pixels for the same latent from run to run",
            "To serve it, try --engine-threads 1.",
        )
    return agreed


def same_sight(judge: Sees, reference: Sees, images: np.ndarray) -> None:
    """An exported judge must see what its reference sees in uint8 [N, H, W, C]. Raises GateError."""
    for found, expected in zip(judge.look(images), reference.look(images), strict=True):
        apart = float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-6))
        if not apart <= ALLOWED_SIGHT:
            raise GateError(
                f"the exported judge sees other things than the trained one ({apart:.2g} of the largest apart)",
                "Nothing was written. Please report this model: the export is wrong.",
            )


def _rows(z: np.ndarray, label: np.ndarray | None, index: Sequence[int] | np.ndarray) -> tuple:
    index = np.asarray(index)
    return z[index], None if label is None else label[index]
