"""A subject in, every figure with its spread and its floor out: what `limner evaluate` does."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np

from training.errors import EvaluationError
from training.evaluation import metrics
from training.evaluation.evaluate import figures, labels_for, samples_for, verdicts
from training.evaluation.figures import MEANINGS, Figure
from training.evaluation.reference import DESCRIBED, MOST, Reference, Side
from training.evaluation.subject import Subject
from training.evaluation.transfer import transfer_accuracy
from training.latents import SEEDS

REPEATS = 3
EXAM = 2_500  # real images that the classifier of the transfer accuracy is tested on
HONEST = 0.5  # the copying of unseen real images themselves, by definition

Observe = Callable[[str, float], None]
Found = dict[str, float]


@dataclass(frozen=True)
class Examined:
    """`figures` by the names and in the order of MEANINGS. Of the first block: its pictures uint8 [N, H, W, C], labels
    int64 [N] or None, each picture's distance [N] to its nearest training image and that image's row [N]; and the
    distances [M] of real images that were not trained on."""

    figures: dict[str, Figure]
    protocol: dict[str, Any]
    pictures: np.ndarray
    labels: np.ndarray | None
    distances: np.ndarray
    nearest: np.ndarray
    held_out: np.ndarray


def examine(
    subject: Subject,
    samples: int | None = None,
    repeats: int = REPEATS,
    seed: int = 0,
    observe: Observe = lambda stage, fraction: None,
) -> Examined:
    """`samples` pictures of the seeds from `seed` on, and again for each repeat of the seeds that follow.

    Default: as many pictures as the reference has, 1,000 to 10,000. Seeds wrap around at 2^63.

    Raises EvaluationError where there are fewer pictures than a figure needs, where judge and reference do not belong
    together or to the model, and where a figure is not finite; EngineError as the model does.
    """
    model, reference = subject.model, subject.reference
    _check(subject)
    samples = samples or samples_for(len(reference.real))
    conditional = model.classes > 0
    real = reference.real.known(conditional)
    trained = reference.real if reference.training is None else reference.training
    observe("looking at real images", 0.0)
    seeds = [(seed + repeat * samples) % SEEDS for repeat in range(repeats)]
    alone = reference.training is None
    held_out, _ = metrics.nearest(real.sight.features, trained.sight.features, apart=alone)
    floor_side, floor_real = (side.known(conditional) for side in reference.floor(samples))
    floor = _every_figure(floor_side, floor_real, conditional, reference)
    floor |= verdicts(real.sight, floor) | {"copying": HONEST, "copies": metrics.copies(held_out, held_out)}

    blocks: list[Found] = []
    first: Examined | None = None
    label = labels_for(reference, samples) if conditional else None
    observe("looking at real images", 1.0)
    for repeat, begin in enumerate(seeds):
        pictures = model.pictures(begin, samples, label, partial(_part, observe, repeat / repeats, 1 / repeats))
        observe("drawing pictures", (repeat + 1) / repeats)
        observe("measuring", repeat / repeats)
        side = Side.of(subject.judge, pictures, label, len(reference.class_names), thorough=True)
        distances, nearest = metrics.nearest(side.sight.features, trained.sight.features)
        copied = {
            "copying": metrics.copying(distances, held_out),
            "copies": metrics.copies(distances, held_out),
        }
        blocks.append(_every_figure(side, real, conditional, reference) | copied)
        first = first or Examined({}, {}, pictures, label, distances, nearest, held_out)
    observe("measuring", 1.0)
    assert first is not None
    found = {name: _figure(name, blocks, floor) for name in MEANINGS if name in blocks[0]}
    protocol = {
        "data": reference.data,
        "samples": samples,
        "repeats": repeats,
        "seed": seed,
        "split": reference.split,
        "reference": len(reference.real),
        "training": 0 if alone else len(trained),
        "judge_sha256": reference.judge_sha256,
        "limner": version("limner"),
    }
    return replace(first, figures=found, protocol=protocol)


def _part(observe: Observe, begin: float, share: float, fraction: float) -> None:
    observe("drawing pictures", begin + share * fraction)


def _check(subject: Subject) -> None:
    model, reference = subject.model, subject.reference
    found = subject.judge.sha256()
    if found != reference.judge_sha256:
        raise EvaluationError(
            f"the features of the real images are another judge's ({reference.judge_sha256[:12]}, not {found[:12]})",
            "Restore judge and judge.npz of one training, or train again.",
        )
    if model.class_names and model.class_names != reference.class_names:
        raise EvaluationError(
            f"the model's {model.classes} classes are not the {len(reference.class_names)} of {reference.data}",
            "Restore the files of one training, or train again.",
        )


def _every_figure(seen: Side, real: Side, conditional: bool, reference: Reference) -> Found:
    """Every figure of one side against the other."""
    if min(len(seen), len(real)) <= metrics.NEIGHBOURS:
        metrics.neighbourhood(seen.sight.features, real.sight.features)  # says how many it needs
    assert seen.pixels is not None
    assert real.pixels is not None
    found = figures(seen.sight, real.sight, conditional, reference.class_names)
    found["kid"] = metrics.kid(seen.sight.features, real.sight.features)
    found.setdefault("within_class_variance_ratio", float("nan"))
    found["within_class_similarity"] = seen.pixels.similarity
    with np.errstate(divide="ignore", invalid="ignore"):
        found["sharpness_ratio"] = float(np.divide(seen.pixels.sharpness.mean(), real.pixels.sharpness.mean()))
    if reference.class_names:
        found["inception_score"] = metrics.inception_score(seen.sight.logits)
    if conditional:
        lessons, exam = seen.pixels.descriptors[:DESCRIBED], real.pixels.descriptors[:EXAM]
        found["transfer_accuracy"] = transfer_accuracy(
            lessons, seen.sight.classes[: len(lessons)], exam, real.sight.classes[: len(exam)]
        )
    return found


def _figure(name: str, blocks: list[Found], floor: Found) -> Figure:
    values = np.array([block[name] for block in blocks])
    for value, whose in ((values.sum(), "the pictures"), (floor[name], "the real images")):
        if not np.isfinite(value):
            raise EvaluationError(
                f"{MEANINGS[name].title} of {whose} is not finite: they are too few, or all alike",
                f"Take more --samples (at most {MOST:,}), or another data set.",
            )
    spread = float(values.std(ddof=1)) if len(values) > 1 else None
    return Figure(float(values.mean()), spread, floor[name])
