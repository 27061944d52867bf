"""What a report shows, as plain data: gathered elsewhere, drawn by `training.evaluation.report.render`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from training.alarms import Alarm
from training.evaluation.figures import Figure

Rows = Sequence[tuple[str, np.ndarray]]  # (name, uint8 [N, H, W, C]) of each row; the name may be ""


@dataclass(frozen=True)
class Reconstructions:
    """Real images and what the encoder and decoder make of them, in the same order: uint8 [N, H, W, C] each."""

    originals: np.ndarray
    reconstructions: np.ndarray


@dataclass(frozen=True)
class Neighbours:
    """The generated pictures nearest to a training image, nearest first, and that image.

    `generated`, `training`: uint8 [N, H, W, C]; `distances`: float [N] of the judge's features. `all_generated` and
    `held_out` are the distances to the nearest training image of all generated pictures and of real images that the
    model never saw: float [M], [K].
    """

    generated: np.ndarray
    training: np.ndarray
    distances: np.ndarray
    all_generated: np.ndarray
    held_out: np.ndarray


@dataclass(frozen=True)
class Blind:
    """Pictures for a person to judge, mixed: uint8 [N, H, W, C]; `real` bool [N] is the answer."""

    images: np.ndarray
    real: np.ndarray


@dataclass(frozen=True)
class Contents:
    """One model's report. What is None is not shown, and `missing` says why, one line for each thing."""

    title: str  # "digits" or "digits@3"
    subject: dict[str, str]  # kind, data, images seen, engine, ...: shown under the title
    figures: dict[str, Figure]  # in the order and by the names of figures.MEANINGS
    protocol: dict[str, Any]  # samples, repeats, seed, split, reference, training, judge_sha256, data, limner
    alarms: Sequence[Alarm]
    generated: Rows  # a row for each class
    real: Rows | None
    interpolations: Rows
    reconstructions: Reconstructions | None = None
    records: Sequence[dict[str, Any]] | None = None  # the lines of metrics.jsonl
    neighbours: Neighbours | None = None
    blind: Blind | None = None
    config: dict[str, Any] | None = None  # of the training
    inception: dict[str, Any] | None = None  # Inception-FID and its own protocol; never among `figures`
    missing: Sequence[str] = field(default_factory=tuple)
