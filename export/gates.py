"""An engine and the model's own pictures in, what four gates found out: Gates for the manifest, and whom they refuse.

Finite, parity, batch invariance, drift. No torch here: the original is whatever makes the model's pictures.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np

from export.bundle import Drift, Gates, Parity
from export.engines import Engine, NonFinite
from export.invariance import BUCKETS, GateError, invariant_buckets
from export.original import Drawn, Original
from training.evaluation.evaluate import figures
from training.evaluation.sight import Sees, Sight

ALONE = (1,)  # buckets of which no batch can be served

# The limits. Levels: float sums in another order may round to the neighbouring level, no further; fewer bits may do
# what no eye sees. Drift, either way, for better pictures are another model's too: sound engines of 16 bits moved a
# figure by a quarter of this at most, mostly far less; a collapsed class and weights of 3 bits moved some far past it.


@dataclass(frozen=True)
class Limits:
    """What a precision may do to pictures.

    Grey levels of 255 that all values but `share` may be apart, and those that none may; dB over all at least.
    """

    levels: int
    share: float
    most: int
    psnr_db: float | None


EXACT = Limits(levels=1, share=0.0, most=1, psnr_db=None)
REDUCED = Limits(levels=8, share=1e-4, most=32, psnr_db=40.0)
FID, FID_SHARE = 0.2, 0.02  # and this share of the original's own: far from the images all distances wobble
DRIFT = {
    "agreement": 0.01,
    "class_histogram_distance": 0.01,
    "recall": 0.02,
    "coverage": 0.02,
    "within_class_variance_ratio": 0.05,
    "class_variance": 0.1,
}
REAL_IMAGES = 2  # by which recall and coverage may move in any case, where the reference is small
SIGHT = 1e-3  # of a judge's largest feature: float sums in another order differ by less

Observe = Callable[[str, float], None]


def hold(
    engine: Engine, original: Original, precision: str, observe: Observe = lambda gate, fraction: None
) -> tuple[Gates, tuple[int, ...]]:
    """Run every gate on an engine that was opened with BUCKETS -> what they found, and the buckets to serve.

    Batch invariance comes first, for the others look at pictures of the buckets that will be served.

    `failed` names "finite", "parity", "batch invariance" and "drift", in that order, if they failed. Pictures that are
    not finite fail the first and are left out of the others. Batch invariance fails where rows have pictures of their
    own only alone, or not even then: the buckets are (1,).

    Raises GateError where the original fails or nothing finite is left to compare; EngineError where a batch fails as
    a whole: such an engine gives no figures, so there is nothing that could be published by force.
    """
    z, label, _ = original.fixed
    observe("batch invariance", 0.0)
    rows = slice(max(BUCKETS))
    try:
        buckets = invariant_buckets(engine, z[rows], None if label is None else label[rows])
    except GateError:
        buckets = ALONE

    sizes = _sizes(BUCKETS if buckets == ALONE else buckets)
    images, finite = _pictures(engine, original.fixed, sizes, lambda share: observe("parity", share))
    parity = _parity(original, precision, images, finite)
    bad = int((~finite).sum())

    drift = None
    if original.judge is not None and original.reference is not None:
        images, finite = _pictures(engine, original.seeds, sizes[:1], lambda share: observe("drift", share))
        drift = _drift(original, images, finite)
        bad += int((~finite).sum())
    observe("drift", 1.0)
    found = Gates(parity=parity, not_finite=bad, drift=drift)
    failed = tuple(dict.fromkeys(gate for gate, _, _ in findings(found, buckets)))
    return found.model_copy(update={"failed": failed}), buckets


def _sizes(buckets: tuple[int, ...]) -> tuple[int, int, int]:
    """Batches that run the largest bucket, the smallest, and a middle one, padded: in turn, what is served."""
    return buckets[-1], buckets[0], buckets[len(buckets) // 2] // 2 + 1


def _pictures(
    engine: Engine, drawn: Drawn, sizes: Sequence[int], observe: Callable[[float], None]
) -> tuple[np.ndarray, np.ndarray]:
    """The engine's uint8 [N, H, W, C] in batches of `sizes` in turn, and which rows are finite, bool [N]."""
    images, finite = np.empty_like(drawn.images), np.ones(len(drawn.z), bool)
    start, size = 0, cycle(sizes)
    while start < len(finite):
        observe(start / len(finite))
        rows = slice(start, start + next(size))
        try:
            images[rows] = engine.run(drawn.z[rows], None if drawn.label is None else drawn.label[rows])
        except NonFinite as error:
            images[rows] = error.images
            finite[start + np.array(error.rows)] = False
        start = rows.stop
    if finite.sum() < 2:  # a variance needs two
        raise GateError(
            f"{engine.artifact} gives no pictures that are finite", "Take another engine, or another precision."
        )
    return images, finite


def _parity(original: Original, precision: str, images: np.ndarray, finite: np.ndarray) -> Parity:
    difference = np.subtract(images, original.fixed.images, dtype=np.int16)[finite]
    square = float(np.square(difference, dtype=np.float64).mean())
    limits = EXACT if precision == "fp32" else REDUCED
    apart = np.abs(difference)
    return Parity(
        reference=original.name,
        pictures=len(difference),
        max_levels=int(apart.max()),
        allowed_levels=limits.levels,
        share_over=float(f"{(apart > limits.levels).mean():.3g}"),
        allowed_share=limits.share,
        most_levels=limits.most,
        psnr_db=round(float(10 * np.log10(255**2 / square)), 2) if square else None,
        least_psnr_db=limits.psnr_db,
    )


def _drift(original: Original, images: np.ndarray, finite: np.ndarray) -> Drift:
    """The judge's figures of the engine's pictures minus those of the original's, of rows that are finite."""
    judge, reference, label = original.judge, original.reference, original.seeds.label
    assert judge is not None
    assert reference is not None
    conditional = label is not None
    real = reference.real.known(conditional).sight
    seen = Sight.of(judge, images[finite], None if label is None else label[finite])
    sight = original.sight
    expected = Sight(sight.logits[finite], sight.features[finite], sight.classes[finite])
    mine, theirs = (figures(side, real, conditional, reference.class_names) for side in (seen, expected))
    found = {name: mine[name] - theirs[name] for name in mine.keys() & theirs.keys()}
    if conditional:
        found["class_variance"] = _class_variance(seen, expected)
    allowed = {"fid": FID + FID_SHARE * theirs["fid"]} | DRIFT
    for name in ("recall", "coverage"):
        allowed[name] = max(allowed[name], REAL_IMAGES / len(real))
    kept = [name for name in allowed if name in found and np.isfinite(found[name])]
    return Drift(
        samples=len(seen),
        figures={name: round(found[name], 4) + 0.0 for name in kept},
        allowed={name: round(allowed[name], 4) for name in kept},
    )


def _class_variance(seen: Sight, expected: Sight) -> float:
    """How far the variance of one class's features moved, of the mean of all classes': the class that moved furthest.

    A mean over many classes hides one that collapsed. NaN where no class varies.
    """
    classes = [label for label in np.unique(expected.classes) if (expected.classes == label).sum() > 1]
    found, theirs = (
        np.array([side.features[side.classes == label].var(axis=0, dtype=np.float64).sum() for label in classes])
        for side in (seen, expected)
    )
    if not theirs.any():
        return float("nan")
    moved = (found - theirs) / theirs.mean()
    return float(moved[np.abs(moved).argmax()])


def findings(gates: Gates, buckets: tuple[int, ...]) -> list[tuple[str, str, str]]:
    """Gate, found, allowed: of all that failed, in the order of `failed`. `buckets`: those that `hold` returned."""
    parity, drift, rows = gates.parity, gates.drift, []
    if gates.not_finite:
        rows.append(("finite", f"{gates.not_finite:,} pictures that are not", "0"))
    if parity.max_levels > parity.most_levels:
        rows.append(("parity", f"{parity.max_levels} grey levels of 255", f"{parity.most_levels}"))
    if 0 < parity.allowed_share < parity.share_over:
        over = f"{parity.share_over:.2%} of values over {parity.allowed_levels} grey levels"
        rows.append(("parity", over, f"{parity.allowed_share:.2%}"))
    if parity.least_psnr_db is not None and parity.psnr_db is not None and parity.psnr_db < parity.least_psnr_db:
        rows.append(("parity", f"PSNR {parity.psnr_db:.1f} dB", f"{parity.least_psnr_db:g} dB or more"))
    if buckets == ALONE:
        rows.append(("batch invariance", "a row's picture changes with its batch", "not a bit"))
    if drift is not None:
        for name, moved in drift.figures.items():
            if not abs(moved) <= drift.allowed[name]:
                rows.append(("drift", f"{name.replace('_', ' ')} {moved:+.3g}", f"±{drift.allowed[name]:.3g}"))
    return rows


def same_sight(judge: Sees, reference: Sees, images: np.ndarray) -> None:
    """An exported judge must see what its reference sees in uint8 [N, H, W, C]. Raises GateError."""
    for found, expected in zip(judge.look(images), reference.look(images), strict=True):
        apart = float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-6))
        if not apart <= SIGHT:
            raise GateError(
                f"the exported judge sees other things than the trained one ({apart:.2g} of the largest apart)",
                "Nothing was written. Please report this model: the export is wrong.",
            )
