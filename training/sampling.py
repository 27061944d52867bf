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
from training.run import RunFolder

GRIDS = 10  # over a run, beside the first and the last
ROWS, COLUMNS = 10, 10  # of a grid


def load_generator(path: Path) -> tuple[Generator, ModelSpec, dict[str, Any]]:
    """A checkpoint file -> its averaged generator in eval mode, its shape, and the whole state. Raises RunError."""
    state = checkpoint.load(path)
    try:
        if state["schema"] != checkpoint.SCHEMA or not {"data", "images", "quality"} <= state.keys():
            raise ValueError("another schema")
        spec = ModelSpec.model_validate(state["spec"])
        generator = Generator(spec)
        generator.load_state_dict(state["ema"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(f"{path} is no limner checkpoint", "Train again with this version of limner.") from error
    return generator.eval(), spec, state


@torch.inference_mode()
def sample(generator: Generator, z: Tensor, label: Tensor | None) -> np.ndarray:
    """z float32 [N, latent], label int64 [N] or None -> uint8 [N, H, W, C], as the served graph gives them."""
    device = next(generator.parameters()).device
    image = generator(z.to(device), None if label is None else label.to(device))
    return to_levels(image).cpu().numpy()


class Grid:
    """Pictures of fixed latents over time, beside real.png of the same shape: a row for each class."""

    def __init__(self, spec: ModelSpec, dataset: Dataset, folder: RunFolder, seed: int) -> None:
        self.folder = folder
        self.next = 0.0
        self.names = list(spec.class_names[:ROWS]) or [""] * ROWS
        noise = torch.Generator().manual_seed(seed + 1)
        self.z = torch.randn(len(self.names) * COLUMNS, spec.latent, generator=noise)
        self.label = torch.arange(len(self.names)).repeat_interleave(COLUMNS) if spec.classes else None
        self._save("real", _real_rows(dataset.train, len(self.names), bool(spec.classes)))

    def due(self, fraction: float) -> bool:
        """Whether at that share of the budget another grid is to be drawn."""
        return fraction >= self.next

    def draw(self, generator: Generator, step: int) -> None:
        self.next += 1 / GRIDS
        images = sample(generator, self.z, self.label)
        self._save(f"{step:07d}", np.split(images, len(self.names)))

    def _save(self, stem: str, rows: list[np.ndarray]) -> None:
        labelled_rows(list(zip(self.names, rows, strict=True)), scale=2).save(self.folder.samples / f"{stem}.png")


def _real_rows(images: Images, rows: int, by_class: bool) -> list[np.ndarray]:
    if by_class and images.labels is not None:
        return [images.images[images.labels == label][:COLUMNS] for label in range(rows)]
    return np.array_split(images.images[: rows * COLUMNS], rows)
