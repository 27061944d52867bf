"""Contents with everything that a report can show, small and made up."""

from typing import Any

import numpy as np
import pytest

from training.alarms import alarms
from training.evaluation.figures import MEANINGS, Figure
from training.evaluation.report.contents import Blind, Contents, Neighbours, Reconstructions


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def lines() -> list[dict[str, Any]]:
    """What a resumed training leaves that went back once, raised an alarm and finished."""
    found: list[dict[str, Any]] = [{"init_from": "runs/older", "taken": 9, "left": []}]
    for step in range(50, 501, 50):
        losses = {"generator": 2 - step / 500, "discriminator": float("nan") if step == 100 else 1.0}
        found.append({"step": step, "images": 32 * step, "seconds": 0.1 * step, "losses": losses, "signals": {}})
        if step % 100 == 0:
            quality = {"fid": 9000 / step, "precision": 0.6, "recall": step / 600, "agreement": 0.9}
            quality |= {"within_class_variance_ratio": 0.5}
            found.append({"step": step, "images": 32 * step, "quality": quality, "best": step != 500})
        if step == 250:
            found.append({"step": 250, "rolled_back": 1, "skipped": 3})
            found.append({"step": 250, "alarm": "recall", "what": "The pictures cover 4%", "mend": "Usual mend: more."})
    floor = {"fid": 4.11, "precision": 0.963, "recall": 0.958, "agreement": 1.0, "within_class_variance_ratio": 0.965}
    protocol = {"samples": 1000, "reference": 500, "split": "test"}
    found.append({"finished": True, "step": 500, "images": 16000, "quality": {"floor": floor, "protocol": protocol}})
    return found


@pytest.fixture(scope="session")
def records() -> list[dict[str, Any]]:
    return lines()


@pytest.fixture(scope="session")
def contents() -> Contents:
    names = ["zero", "one <b>", "two"]
    figures = {name: Figure(0.5 + place / 100, 0.01, 0.31 + place / 100) for place, name in enumerate(MEANINGS)}
    figures["fid"] = Figure(12.25, 0.5, 4.5)
    figures["within_class_variance_ratio"] = Figure(0.25, 0.01, 0.97)
    return Contents(
        title="digits@3",
        subject={"kind": "cgan", "data": "mnist-5k"},
        figures=figures,
        protocol={
            "data": "mnist-5k", "samples": 1000, "repeats": 3, "seed": 7, "split": "test", "reference": 500,
            "training": 4000, "judge_sha256": "04ec8c2d" * 8, "limner": "0.1.0",
        },
        alarms=alarms({name: figure.value for name, figure in figures.items()}),
        generated=[(name, noise(place, 4, 28, 28, 1)) for place, name in enumerate(names)],
        real=[(name, noise(10 + place, 4 - place, 28, 28, 1)) for place, name in enumerate(names)],
        interpolations=[(name, noise(20 + place, 6, 28, 28, 1)) for place, name in enumerate(names)],
        reconstructions=Reconstructions(noise(30, 5, 28, 28, 1), noise(31, 5, 28, 28, 1)),
        records=lines(),
        neighbours=Neighbours(
            noise(40, 4, 28, 28, 1), noise(41, 4, 28, 28, 1), np.array([1.25, 1.5, 1.75, 2.0]),
            np.linspace(1, 9, 50), np.linspace(2, 9, 40),
        ),
        blind=Blind(noise(50, 12, 28, 28, 1), np.arange(12) % 3 == 0),
        config={"model": "cgan", "seed": 0, "generator_rate": 0.0016, "clip": None},
        inception={"fid": 23.41, "samples": 1000, "reference": 500, "features": "v3.onnx", "features_sha256": "ab" * 9},
        missing=["The moon is not at hand."],
    )  # fmt: skip
