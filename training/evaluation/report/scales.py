"""Figures in, their places on scales out, so that the eye sees how far a model is from real images."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from training.evaluation.figures import MEANINGS, Figure

# What a glance answers, in this order; of each line the first figure that there is.
HEADLINES = (
    ("fid", "kid"),
    ("precision", "density"),
    ("recall", "coverage"),
    ("agreement", "class_histogram_distance", "within_class_variance_ratio"),
    ("sharpness_ratio",),
    ("copying", "transfer_accuracy"),
)
QUESTIONS = {
    "fid": "How far from real, all in all?",
    "kid": "How far from real, all in all?",
    "precision": "Do they lie among real ones?",
    "density": "Do they lie among real ones?",
    "recall": "Are they as varied?",
    "coverage": "Are they as varied?",
    "sharpness_ratio": "Are they as sharp?",
    "agreement": "Are they what was asked for?",
    "class_histogram_distance": "Do all classes come?",
    "within_class_variance_ratio": "Do they vary within a class?",
    "copying": "Are they copies?",
    "transfer_accuracy": "Can one learn from them?",
}
SHARES = frozenset(
    (
        "precision", "recall", "coverage", "agreement", "class_histogram_distance", "within_class_similarity",
        "copying", "transfer_accuracy",
    )
)  # fmt: skip
LOGARITHMIC = frozenset(("fid", "kid"))  # distances without an upper bound: what counts is how many times the floor
DECADES = 100.0  # a log axis reaches at least from the floor to so many times the floor


@dataclass(frozen=True)
class Scale:
    """Places from 0 (left) to 1 (right): of the value, of the ends of its spread, of real images. Where less is better
    the axis runs from right to left, so that the better end is always on the right, or real images in the middle."""

    left: str
    right: str
    value: float
    low: float
    high: float
    floor: float | None


def headlines(figures: Mapping[str, Figure]) -> list[str]:
    """The names of at most six figures that answer a question each."""
    found = (next((name for name in names if name in figures), None) for names in HEADLINES)
    return [name for name in found if name is not None]


def scale(name: str, figure: Figure) -> Scale | None:
    """None where the figure is not finite: there is no place for it."""
    if not math.isfinite(figure.value):
        return None
    floor = figure.floor if figure.floor is not None and math.isfinite(figure.floor) else None
    spread = figure.spread if figure.spread is not None and math.isfinite(figure.spread) else 0.0
    known = [figure.value] if floor is None else [figure.value, floor]
    positive = [part for part in known if part > 0]  # KID has no bias, so that it may be below 0
    logarithmic = name in LOGARITHMIC and bool(positive)
    if logarithmic:
        least = 10.0 ** math.floor(math.log10(min(positive)))
        most = 10.0 ** math.ceil(math.log10(max(*positive, min(positive) * DECADES)))
    else:
        least, most = 0.0, 1.0 if name in LOGARITHMIC else _most(name, known, spread)
    reversed_ = MEANINGS[name].best == "low"

    def place(value: float) -> float:
        if logarithmic:
            share = math.log(max(value, least) / least) / math.log(most / least)
        else:
            share = (value - least) / (most - least)
        share = min(1.0, max(0.0, share))
        return round(1 - share if reversed_ else share, 4)

    ends = (f"{least:g}", f"{most:g}")
    low, high = sorted((place(figure.value - spread), place(figure.value + spread)))
    left, right = reversed(ends) if reversed_ else ends
    return Scale(left, right, place(figure.value), low, high, None if floor is None else place(floor))


def _most(name: str, known: list[float], spread: float) -> float:
    """The far end of a linear axis from 0: 1 for a share, else a round number beyond the figures."""
    if name in SHARES and max(known) <= 1:
        return 1.0
    reach = known[0] + spread
    if MEANINGS[name].best == "real":
        reach = max(reach, 2 * known[-1])  # real images in the middle, unless the model is far beyond
    return _round_up(max(reach, *known, 1e-9))


def _round_up(value: float) -> float:
    power = 10.0 ** math.floor(math.log10(value))
    return next(power * step for step in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10) if power * step >= value * (1 - 1e-9))
