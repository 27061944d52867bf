"""Small synthetic images, a place for judges, a clock, and configs of small models for the tests of training/."""

import itertools
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from training import loop
from training.config import TrainConfig
from training.data import Dataset, Images


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Nets this small gain nothing from more, and on a busy machine the threads of a step wait for one another."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluations on the way need no more to tell one generator from another; the closing ones keep their number."""
    monkeypatch.setattr(loop, "SAMPLES", 100)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where judges go in these tests: never to the home folder."""
    return tmp_path_factory.mktemp("judges")


@pytest.fixture
def synthetic() -> Callable[..., Dataset]:
    """48 images to train with, `held` for val and test each, all different: a bright bar, whose place tells the class,
    on noise."""

    def build(size: int = 28, channels: int = 1, classes: int = 3, held: int = 6) -> Dataset:
        noise = np.random.default_rng(7)
        labels = np.arange(48 + 2 * held, dtype=np.int64) % max(1, classes)
        images = noise.integers(0, 60, (len(labels), size, size, channels), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[:, 4 + 6 * label : 8 + 6 * label] += 190
        whole = Images(images, labels if classes else None)
        train, val, test = (whole.take(part) for part in np.split(np.arange(len(labels)), [48, 48 + held]))
        return Dataset("bars", train, val, test, tuple("abcdefghij"[:classes]))

    return build


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., TrainConfig]:
    """The config of a model that trains in a moment: 3 steps an epoch."""

    def build(model: str = "gan", **settings: object) -> TrainConfig:
        given = {"out": tmp_path / "run", "epochs": 1, "batch": 16, "width": 4, "latent": 8, "device": "cpu"}
        return TrainConfig.model_validate({"model": model} | given | settings)

    return build


@pytest.fixture
def clock() -> Callable[..., Callable[[], float]]:
    """A clock for `loop.train` on which each step takes a second, and step `stop_at` is met by a signal."""

    def build(stop_at: int | None = None, number: signal.Signals = signal.SIGINT) -> Callable[[], float]:
        readings = itertools.count(1)  # two a step

        def read() -> float:
            reading = next(readings)
            if stop_at is not None and reading == 2 * stop_at:
                os.kill(os.getpid(), number)
            return float(reading)

        return read

    return build
