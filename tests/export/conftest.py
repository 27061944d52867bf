"""Runs of every kind, trained a few steps, and where exports of them go."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from training.config import Kind, TrainConfig
from training.data import Dataset, Images
from training.loop import train

SHAPES: dict[Kind, tuple[int, int]] = {"gan": (28, 1), "cgan": (32, 3), "vae": (64, 1), "cvae": (28, 3)}


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Nets this small gain nothing from more, and on a busy machine the threads of a step wait for one another."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`trained("cgan", seed=1)`: a run folder, made once. Sizes and channels differ from kind to kind."""
    home = tmp_path_factory.mktemp("runs")

    def make(kind: Kind, seed: int = 0) -> Path:
        out = home / f"{kind}-{seed}"
        if not out.exists():
            size, channels = SHAPES[kind]
            images = np.random.default_rng(seed).integers(0, 256, (60, size, size, channels), dtype=np.uint8)
            labels = np.arange(60, dtype=np.int64) % 3
            images[labels == 1, : size // 2] //= 4
            whole = Images(images, labels)
            train_part, val, test = (whole.take(part) for part in np.split(np.arange(60), [48, 54]))
            config = TrainConfig(
                model=kind, out=out, epochs=2, batch=16, width=4, latent=8, seed=seed, device="cpu",
                evaluate_every=96,  # once, at the end: the last weights are the best
            )  # fmt: skip
            dataset = Dataset("noise", train_part, val, test, ("sky", "sea", "sand"))
            train(config, dataset, cache=home / "judges")
        return out

    return make
