"""A run folder in, a Subject for evaluation out: its best generator, its judge, its features of real images."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from training import checkpoint
from training.config import ModelSpec, TrainConfig
from training.errors import RunError
from training.evaluation.reference import Reference
from training.evaluation.subject import Reconstruct, Subject
from training.judge import Judge
from training.objectives import objective_for
from training.pixels import to_levels
from training.run import RunFolder
from training.sampling import load_generator, load_weights, model_of, sample, stored_prior


def run_subject(run: Path) -> Subject:
    """What export takes of a run: best.pt, else checkpoint.pt. Raises RunError, EvaluationError."""
    folder = RunFolder(run)
    path = folder.exported_checkpoint()
    generator, spec, state = load_generator(path)
    try:
        prior = stored_prior(state)
    except ValueError as error:
        raise RunError(f"{path} holds a damaged prior ({error})", "Train again, or restore the file.") from error
    config = folder.settings()
    return Subject(
        title=folder.name,
        about={
            "kind": spec.kind,
            "data": state["data"],
            "images": f"{spec.size}x{spec.size}x{spec.channels}",
            "images seen": f"{state['images']:,}",
            "weights": path.name,
        },
        model=replace(model_of(generator, spec, prior), run=partial(sample, generator, finite=True)),
        judge=Judge.load(folder.judge),
        reference=Reference.load(folder.reference),
        reconstruct=None if config is None else _reconstruct(folder, spec, config),
        config=None if config is None else config.model_dump(mode="json"),
        records=folder.records(),
    )


def _reconstruct(folder: RunFolder, spec: ModelSpec, config: TrainConfig) -> Reconstruct | None:
    """The last encoder and the averaged decoder of the same checkpoint; None for a kind without an encoder."""
    if config.adversarial or not folder.checkpoint.is_file():
        return None
    state = checkpoint.load(folder.checkpoint)
    objective = objective_for(spec, config, torch.device("cpu"))
    try:
        for name, network in objective.networks.items():
            network.load_state_dict(state["networks"][name])
        decoder = load_weights(spec, state["ema"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise RunError(f"{folder.checkpoint} is no checkpoint of this run", "Train again, or restore it.") from error

    @torch.inference_mode()
    def reconstruct(images: np.ndarray, labels: np.ndarray | None) -> np.ndarray:
        posterior = objective.posterior(images, labels)
        assert posterior is not None
        given = None if labels is None else torch.from_numpy(labels)
        return to_levels(decoder(torch.as_tensor(posterior.mean, dtype=torch.float32), given)).numpy()

    return reconstruct
