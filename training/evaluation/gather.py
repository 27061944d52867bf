"""An examined subject and, where they are at hand, its images in, the contents of a report out."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from training.alarms import alarms
from training.data.images import Dataset, Images
from training.errors import EvaluationError
from training.evaluation.examine import Examined
from training.evaluation.reference import Side, reference_images, training_images
from training.evaluation.report.contents import Blind, Contents, Neighbours, Reconstructions, Rows
from training.evaluation.subject import Model, Subject
from training.latents import draw
from training.path import arc

ROWS, COLUMNS = 10, 10  # of the sheet of pictures: a row for each class
PATHS, STEPS = 5, 10  # of interpolations
REBUILT = 20
NEAREST = 12
BLIND = 40  # pictures of the blind test, half of them real
PATH_SEED = 1_000_000  # of the first end of a path: not among the pictures of the sheet
SHUFFLE_KEY = 3  # of Philox
PROBE, TOLERANCE = 64, 1e-2  # images looked at again, and how far (of the largest feature) runtimes may differ


def gather(
    subject: Subject,
    examined: Examined,
    dataset: Dataset | None,
    missing: Sequence[str] = (),
    inception: dict[str, Any] | None = None,
) -> Contents:
    """`dataset` None: what needs real pictures is left out, and `missing` says why.

    Raises EvaluationError where the images are not those that the features of the reference were taken from.
    """
    real = None if dataset is None else same_images(subject, dataset)
    names = list(subject.model.class_names[:ROWS]) or [""] * ROWS
    seed = examined.protocol["seed"]
    return Contents(
        title=subject.title,
        subject=subject.about,
        figures=examined.figures,
        protocol=examined.protocol,
        alarms=alarms({name: figure.value for name, figure in examined.figures.items()}),
        generated=_generated(subject.model, names, seed),
        real=None if real is None else _real(real, names, subject.model.classes > 0),
        interpolations=_paths(subject.model, names),
        reconstructions=None if real is None else _rebuilt(subject, real),
        records=subject.records,
        neighbours=None if dataset is None or real is None else _neighbours(subject, examined, dataset, real),
        blind=None if real is None else _blind(examined, real),
        config=subject.config,
        missing=missing,
        inception=inception,
    )


def same_images(subject: Subject, dataset: Dataset) -> Images:
    """The images of the reference, if they and those of training are the ones that its features were taken from.

    Raises EvaluationError.
    """
    reference = subject.reference
    split, real = reference_images(dataset, reference.split)
    pairs = [(real, reference.real)]
    if reference.training is not None:
        pairs.append((training_images(dataset), reference.training))
    shape = (dataset.size, dataset.channels, split) == (reference.size, reference.channels, reference.split)
    if shape and all(len(images) == len(side) and _seen(subject, images, side) for images, side in pairs):
        return real
    raise EvaluationError(
        f"the images of {dataset.name}, {len(real):,} of {split}, are not those that {subject.title} is judged by, "
        f"{len(reference.real):,} of {reference.split} of {reference.data}",
        "Give --data as in its training, or leave out the report.",
    )


def _seen(subject: Subject, images: Images, side: Side) -> bool:
    """Whether the judge sees in the first and the last images what it saw before."""
    rows = np.unique(np.r_[:PROBE, len(images) - PROBE : len(images)].clip(0, len(images) - 1))
    seen, known = subject.judge.look(images.images[rows])[1], side.sight.features[rows]
    return float(np.abs(seen - known).max()) <= TOLERANCE * max(1.0, float(np.abs(known).max()))


def _generated(model: Model, names: list[str], seed: int) -> Rows:
    label = np.arange(len(names)).repeat(COLUMNS) if model.classes else None
    drawn = model.pictures(seed, len(names) * COLUMNS, label)
    return list(zip(names, np.split(drawn, len(names)), strict=True))


def _real(real: Images, names: list[str], by_class: bool) -> Rows:
    if by_class and real.labels is not None:
        rows = [real.images[np.flatnonzero(real.labels == label)[:COLUMNS]] for label in range(len(names))]
    else:
        rows = np.array_split(real.images[: len(names) * COLUMNS], len(names))
    return list(zip(names, rows, strict=True))


def _paths(model: Model, names: list[str]) -> Rows:
    """From one latent to another, as `/interpolate` goes, a class for each path."""
    rows = []
    for path, name in enumerate(names[:PATHS]):
        label = np.full(2, path) if model.classes else None
        ends, _ = draw(PATH_SEED + 2 * path, 2, model.latent, model.classes, label, prior=model.prior)
        z = arc(ends[0], ends[1], STEPS)
        rows.append((name, model.of_latents(z, None if label is None else np.full(STEPS, path))))
    return rows


def _rebuilt(subject: Subject, real: Images) -> Reconstructions | None:
    if subject.reconstruct is None:
        return None
    some = real.take(slice(None, REBUILT))
    labels = some.labels if subject.model.classes else None
    return Reconstructions(some.images, subject.reconstruct(some.images, labels))


def _neighbours(subject: Subject, examined: Examined, dataset: Dataset, real: Images) -> Neighbours:
    """The generated pictures nearest to a training image, each training image once, and no class more than its share.

    The plainest class is nearest to its training images in any model, and would fill the page.
    """
    trained = real if subject.reference.training is None else training_images(dataset)
    share = -(-NEAREST // max(1, subject.model.classes))
    left = dict.fromkeys(range(max(1, subject.model.classes)), share)
    rows: list[int] = []
    for row in np.argsort(examined.distances, kind="stable").tolist():
        label = 0 if examined.labels is None else int(examined.labels[row])
        if left[label] and examined.nearest[row] not in examined.nearest[rows]:
            left[label] -= 1
            rows.append(row)
        if len(rows) == NEAREST or not any(left.values()):
            break
    return Neighbours(
        generated=examined.pictures[rows],
        training=trained.images[examined.nearest[rows]],
        distances=examined.distances[rows],
        all_generated=examined.distances,
        held_out=examined.held_out,
    )


def _blind(examined: Examined, real: Images) -> Blind:
    """Half real, half generated, mixed."""
    half = min(BLIND // 2, len(real), len(examined.pictures))
    noise = np.random.Generator(np.random.Philox(key=SHUFFLE_KEY))
    sides = [side[noise.permutation(len(side))[:half]] for side in (real.images, examined.pictures)]
    order = noise.permutation(2 * half)
    return Blind(np.concatenate(sides)[order], (np.arange(2 * half) < half)[order])
