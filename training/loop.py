"""A config and a data set in, a trained run folder out: one loop for every kind of model."""

import copy
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training import checkpoint
from training.config import ModelSpec, TrainConfig
from training.data import Dataset
from training.errors import ConfigError, DataError, Interrupted, RunError
from training.judge import Judge, default_cache, judge_for, judged
from training.networks import Generator
from training.objectives import Objective, objective_for
from training.pixels import to_unit
from training.run import RunFolder
from training.sampling import Grid

RECORD_EVERY = 50  # steps between two lines of metrics.jsonl
DECAY_FROM = 0.5  # share of the budget after which the rates fall linearly to 0


@dataclass(frozen=True)
class Progress:
    """Where training is: `fraction` of its budget in [0, 1], mean losses since the last report."""

    step: int
    images: int
    seconds: float
    fraction: float
    losses: dict[str, float]


def train(
    config: TrainConfig,
    dataset: Dataset,
    observe: Callable[[Progress], None] = lambda progress: None,
    cache: Path | None = None,
    observe_judge: Callable[[float], None] = lambda fraction: None,
) -> dict[str, Any]:
    """Train into `config.out`, replacing the run that it may hold, and return the closing figures.

    The judge comes out of `cache` (default: the user's), or is trained first. What can be refused is refused, and the
    judge is there, before an older run is touched: DataError, ConfigError. Raises Interrupted after SIGINT or SIGTERM,
    with the checkpoint saved; RunError where the losses leave the finite.
    """
    device = _device(config)
    folder = RunFolder(config.out)
    spec = spec_for(config, dataset)
    judge = _judge(dataset, cache or default_cache(), observe_judge)
    folder.create(config)
    torch.manual_seed(config.seed)
    objective = objective_for(spec, config, device)
    average = copy.deepcopy(objective.generator).eval().requires_grad_(False)
    if judge is not None:
        checkpoint.save(folder.judge, {"weights": judge.state_dict(), "sha256": judge.sha256()})

    grid = Grid(spec, dataset, folder, config.seed)
    counts = Progress(0, 0, 0.0, 0.0, {})

    def state(finished: bool, quality: dict[str, Any] | None = None) -> dict[str, Any]:
        return {
            "schema": checkpoint.SCHEMA,
            "spec": spec.model_dump(mode="json"),
            "config": config.model_dump(mode="json"),
            "data": dataset.name,
            "step": counts.step,
            "images": counts.images,
            "seconds": counts.seconds,
            "finished": finished,
            "quality": quality,
            "ema": average.state_dict(),
            "networks": {name: network.state_dict() for name, network in objective.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in objective.optimizers.items()},
        }

    with _signals() as stopped:
        for counts in _steps(config, dataset, objective, average, device):
            if counts.losses:
                _report(counts, folder, observe)
            if grid.due(counts.fraction):
                grid.draw(average, counts.step)
                checkpoint.save(folder.checkpoint, state(finished=False))
            if stopped.is_set():
                checkpoint.save(folder.checkpoint, state(finished=False))
                raise Interrupted(f"stopped at step {counts.step}", f"The checkpoint is saved: {folder.checkpoint}.")
        grid.draw(average, counts.step)
        quality = judged(average, spec, judge, dataset, config.seed) if judge is not None else None
        checkpoint.save(folder.checkpoint, state(finished=True, quality=quality))
    closing = {"step": counts.step, "images": counts.images, "seconds": round(counts.seconds, 3), "quality": quality}
    folder.record(finished=True, **closing)
    return closing


def _judge(dataset: Dataset, cache: Path, observe: Callable[[float], None]) -> Judge | None:
    if dataset.train.labels is None:
        return None
    try:
        return judge_for(dataset, cache, observe)
    except KeyboardInterrupt:
        raise Interrupted("stopped before the training began", "Nothing was replaced.") from None


def spec_for(config: TrainConfig, dataset: Dataset) -> ModelSpec:
    """The model that a config makes of a data set. Raises DataError for a conditional kind without classes."""
    names = dataset.class_names if config.conditional else ()
    if config.conditional and len(names) < 2:
        plain = config.model.removeprefix("c")
        raise DataError(
            f"{config.model} needs at least two classes, {dataset.name} has {len(names)}",
            f"Put the images into one sub-folder for each class, or train --model {plain}.",
        )
    return ModelSpec.model_validate(
        {
            "kind": config.model,
            "latent": config.latent or (100 if config.adversarial else 32),
            "size": dataset.size,
            "channels": dataset.channels,
            "class_names": names,
            "width": config.width,
        }
    )


def _steps(
    config: TrainConfig, dataset: Dataset, objective: Objective, average: Generator, device: torch.device
) -> Iterator[Progress]:
    """Take steps until the budget is spent; yields after each, with losses every RECORD_EVERY steps."""
    images = torch.from_numpy(dataset.train.images)
    labels = torch.from_numpy(dataset.train.labels) if config.conditional else None
    batch = min(config.batch, len(images))
    budget = None if config.budget_epochs is None else max(batch, round(config.budget_epochs * len(images)))
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in objective.optimizers.items()}
    sums: dict[str, Tensor] = {}
    step, start, fraction = 0, time.monotonic(), 0.0
    rows = _rows(len(images), batch)
    while fraction < 1:
        for name, optimizer in objective.optimizers.items():
            optimizer.param_groups[0]["lr"] = rates[name] * min(1.0, (1 - fraction) / (1 - DECAY_FROM))
        index = next(rows)
        image = to_unit(images[index]).to(device)
        label = None if labels is None else labels[index].to(device)
        for name, loss in objective.step(image, label).items():
            sums[name] = sums.get(name, 0) + loss
        step += 1
        _follow(average, objective.generator, min(config.ema_decay, step / (step + config.ema_ramp)))
        seconds = time.monotonic() - start
        fraction = seconds / config.seconds if config.seconds else step * batch / (budget or 1)
        losses: dict[str, float] = {}
        if step % RECORD_EVERY == 0 or fraction >= 1:
            past = (step - 1) % RECORD_EVERY + 1
            losses = {name: float(total) / past for name, total in sums.items()}
            sums = {}
        yield Progress(step, step * batch, seconds, min(1.0, fraction), losses)


def _rows(count: int, batch: int) -> Iterator[Tensor]:
    """Row numbers, batch by batch: every image once an epoch, in a new order each time; the remainder is left out."""
    while True:
        yield from torch.randperm(count)[: count - count % batch].split(batch)


@torch.no_grad()
def _follow(average: nn.Module, live: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * live, batch statistics included."""
    pairs = zip(average.state_dict().values(), live.state_dict().values(), strict=True)
    floats = [(mean, now) for mean, now in pairs if mean.is_floating_point()]
    means, nows = zip(*floats, strict=True)
    torch._foreach_lerp_(means, nows, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]


def _report(progress: Progress, folder: RunFolder, observe: Callable[[Progress], None]) -> None:
    if not all(isfinite(loss) for loss in progress.losses.values()):
        raise RunError(
            f"the losses of {folder.path} are no longer finite at step {progress.step}",
            "Train again with lower rates (--config), or look at the images.",
        )
    folder.record(
        step=progress.step, images=progress.images, seconds=round(progress.seconds, 3), losses=progress.losses
    )
    observe(progress)


def _device(config: TrainConfig) -> torch.device:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no CUDA device answers", "Train with --device cpu, or install a CUDA build of torch.")
    if config.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(config.device)


@contextmanager
def _signals() -> Iterator[threading.Event]:
    """While inside, SIGINT and SIGTERM set an event instead of tearing a step apart (main thread only)."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
