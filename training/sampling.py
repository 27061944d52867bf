"""Latents in, pictures out: the generator of a checkpoint, its samples, and the grids that follow a training."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training import checkpoint
from training.config import ModelSpec
from training.data import Dataset, Images
from training.errors import RunError
from training.networks import Generator
from training.pictures import labelled_rows
from training.pixels import to_levels
from training.prior import Prior
from training.run import RunFolder

BATCH = 512  # pictures made at once
ROWS, COLUMNS = 10, 10  # of a grid


def load_generator(path: Path) -> tuple[Generator, ModelSpec, dict[str, Any]]:
    """A checkpoint file -> its averaged generator in eval mode, its shape, and the whole state. Raises RunError."""
    state = checkpoint.load(path)
    try:
        if state["schema"] != checkpoint.SCHEMA or not {"data", "images", "quality", "prior"} <= state.keys():
            raise ValueError("another schema")
        spec = ModelSpec.model_validate(state["spec"])
        generator = load_weights(spec, state["ema"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(f"{path} is no limner checkpoint", "Train again with this version of limner.") from error
    return generator, spec, state


def load_weights(spec: ModelSpec, weights: dict[str, Tensor]) -> Generator:
    """A generator of that shape in eval mode with these weights."""
    generator = Generator(spec)
    generator.load_state_dict(weights)
    return generator.eval()


def stored_prior(state: dict[str, Any]) -> Prior | None:
    """The prior of a checkpoint; None where latents are N(0, I). Raises ValueError where it is damaged."""
    return None if state["prior"] is None else Prior.from_state(state["prior"])


def latents(
    count: int, spec: ModelSpec, prior: Prior | None, label: np.ndarray | None, noise: torch.Generator
) -> np.ndarray:
    """z float32 [count, latent] for labels int64 [count] or None: N(0, I), or drawn from the prior."""
    epsilon = torch.randn(count, spec.latent, generator=noise).numpy()
    if prior is None:
        return epsilon
    u = torch.rand(count, dtype=torch.float64, generator=noise).numpy()
    return prior.place(epsilon.astype(np.float64), u, label).astype(np.float32)


@torch.inference_mode()
def sample(generator: Generator, z: np.ndarray, label: np.ndarray | None) -> np.ndarray:
    """z float32 [N, latent], label int64 [N] or None -> uint8 [N, H, W, C], as the served graph gives them."""
    device = next(generator.parameters()).device
    parts = []
    for rows in np.array_split(np.arange(len(z)), len(z) // BATCH + 1):
        given = None if label is None else torch.as_tensor(label[rows]).to(device)
        parts.append(to_levels(generator(torch.as_tensor(z[rows]).to(device), given)).cpu())
    return torch.cat(parts).numpy()


class Grid:
    """Pictures of fixed latents over time, beside real.png of the same shape: a row for each class."""

    def __init__(self, spec: ModelSpec, dataset: Dataset, folder: RunFolder, seed: int) -> None:
        self._spec, self._folder, self._seed = spec, folder, seed
        self._names = list(spec.class_names[:ROWS]) or [""] * ROWS
        self._label = np.arange(len(self._names)).repeat(COLUMNS) if spec.classes else None
        self._save("real", _real_rows(dataset.train, len(self._names), bool(spec.classes)))

    def draw(self, generator: Generator, prior: Prior | None, step: int) -> None:
        """Draw samples/<step>.png."""
        noise = torch.Generator().manual_seed(self._seed + 1)
        z = latents(len(self._names) * COLUMNS, self._spec, prior, self._label, noise)
        self._save(f"{step:07d}", np.split(sample(generator, z, self._label), len(self._names)))

    def _save(self, stem: str, rows: list[np.ndarray]) -> None:
        labelled_rows(list(zip(self._names, rows, strict=True)), scale=2).save(self._folder.samples / f"{stem}.png")


def _real_rows(images: Images, rows: int, by_class: bool) -> list[np.ndarray]:
    if by_class and images.labels is not None:
        return [images.images[np.flatnonzero(images.labels == label)[:COLUMNS]] for label in range(rows)]
    return np.array_split(images.images[: rows * COLUMNS], rows)
