"""Latents in, pictures out: the generator of a checkpoint, its samples, and the grids that follow a training."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training import checkpoint
from training.config import ModelSpec
from training.data import Dataset, Images
from training.errors import EvaluationError, RunError
from training.evaluation.subject import Model
from training.networks import Generator
from training.pictures import labelled_rows
from training.pixels import to_levels
from training.prior import Prior
from training.run import RunFolder

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


def model_of(generator: Generator, spec: ModelSpec, prior: Prior | None) -> Model:
    """What evaluation and grids ask for pictures."""
    return Model(spec.latent, spec.class_names, prior, partial(sample, generator))


@torch.inference_mode()
def sample(generator: Generator, z: np.ndarray, label: np.ndarray | None, finite: bool = False) -> np.ndarray:
    """z float32 [N, latent], label int64 [N] or None -> uint8 [N, H, W, C], as the served graph gives them.

    With `finite`, raises EvaluationError where a picture is not: as levels it would be black.
    """
    device = next(generator.parameters()).device
    given = None if label is None else torch.as_tensor(label).to(device)
    image = generator(torch.as_tensor(z).to(device), given)
    bad = int((~torch.isfinite(image)).flatten(1).any(1).sum()) if finite else 0
    if bad:
        raise EvaluationError(
            f"the generator gives pictures that are not finite, {bad} of {len(z)}",
            "Train again with lower rates, or go back to an earlier checkpoint.",
        )
    return to_levels(image).cpu().numpy()


class Grid:
    """Pictures of fixed latents over time, beside real.png of the same shape: a row for each class."""

    def __init__(self, spec: ModelSpec, dataset: Dataset, folder: RunFolder, seed: int) -> None:
        self._spec, self._folder, self._seed = spec, folder, seed
        self._names = list(spec.class_names[:ROWS]) or [""] * ROWS
        self._label = np.arange(len(self._names)).repeat(COLUMNS) if spec.classes else None
        self._save("real", _real_rows(dataset.train, len(self._names), bool(spec.classes)))

    def draw(self, generator: Generator, prior: Prior | None, step: int) -> None:
        """Draw samples/<step>.png."""
        drawn = model_of(generator, self._spec, prior).pictures(self._seed, len(self._names) * COLUMNS, self._label)
        self._save(f"{step:07d}", np.split(drawn, len(self._names)))

    def _save(self, stem: str, rows: list[np.ndarray]) -> None:
        labelled_rows(list(zip(self._names, rows, strict=True)), scale=2).save(self._folder.samples / f"{stem}.png")


def _real_rows(images: Images, rows: int, by_class: bool) -> list[np.ndarray]:
    if by_class and images.labels is not None:
        return [images.images[np.flatnonzero(images.labels == label)[:COLUMNS]] for label in range(rows)]
    return np.array_split(images.images[: rows * COLUMNS], rows)
