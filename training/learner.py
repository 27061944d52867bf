"""Batches of one data set in, weights that get better out: all that a step depends on, and can be taken back to."""

import copy
from typing import Any

import numpy as np
import torch

from training import checkpoint
from training.config import ModelSpec, TrainConfig
from training.data import Dataset, Images
from training.errors import RunError
from training.objectives import Posterior, Step, objective_for
from training.pixels import to_unit
from training.prior import Prior
from training.sampler import Sampler, is_balanced

POSTERIORS = 10_000  # training images behind a fitted prior
ACTIVE = 0.01  # variance of a latent's posterior mean over images from which on it says something (Burda et al. 2016)
BY_CLASS = ("embedding.", "projection.")  # weights that mean one class each

State = dict[str, Any]


class Learner:
    """An objective, the average of its generator's weights, the order of images and the noise.

    Two learners of equal state take equal steps, bit for bit on a CPU.
    """

    def __init__(self, config: TrainConfig, spec: ModelSpec, dataset: Dataset, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.objective = objective_for(spec, config, device)
        self.average = copy.deepcopy(self.objective.generator).eval().requires_grad_(False)
        self.step = self.images = 0  # taken and seen
        self._config, self._spec, self._dataset, self._device = config, spec, dataset, device
        self._options = {
            name: {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
            for name, optimizer in self.objective.optimizers.items()
        }
        self._images = torch.from_numpy(dataset.train.images)
        self._labels = torch.from_numpy(dataset.train.labels) if config.conditional else None
        self._sampler = Sampler(len(dataset.train), config.batch, config.seed, _balance(config, dataset))

    @property
    def batch(self) -> int:
        """Images a step: those of the config, or the whole of a smaller set."""
        return self._sampler.batch

    def take(self, fraction: float, factor: float) -> Step:
        """The next step, at that share of the budget, with the rates times `factor`.

        Raises NonFinite, with all weights but those of a discriminator that went first as they were.
        """
        fall = 1 - self._config.decay_from
        share = min(1.0, (1 - fraction) / fall) if fall else 1.0
        for name, optimizer in self.objective.optimizers.items():
            optimizer.param_groups[0]["lr"] = self._options[name]["lr"] * share * factor
        rows = next(self._sampler)
        image = to_unit(self._images[rows].to(self._device))
        label = None if self._labels is None else self._labels[rows].to(self._device)
        step = self.objective.step(image, label, fraction)
        self._follow()
        return step

    def count(self) -> None:
        """A step is over, taken or skipped."""
        self.step += 1
        self.images += self.batch

    def _follow(self) -> None:
        """average <- decay * average + (1 - decay) * weights, batch statistics included."""
        done = self.step + 1
        decay = min(self._config.ema_decay, done / (done + self._config.ema_ramp))
        with torch.no_grad():
            pairs = zip(self.average.state_dict().values(), self.objective.generator.state_dict().values(), strict=True)
            means, nows = zip(*((mean, now) for mean, now in pairs if mean.is_floating_point()), strict=True)
            torch._foreach_lerp_(means, nows, 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    # state

    def state_dict(self) -> State:
        """All that the next step depends on, but for the config and the data."""
        return {
            "step": self.step,
            "images": self.images,
            "ema": self.average.state_dict(),
            "networks": {name: network.state_dict() for name, network in self.objective.networks.items()},
            "optimizers": {name: optimizer.state_dict() for name, optimizer in self.objective.optimizers.items()},
            "sampler": self._sampler.state_dict(),
            "noise": {
                "cpu": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state(self._device) if self._device.type == "cuda" else None,
            },
        }

    def load_state_dict(self, state: State) -> None:
        """Go back, or on, to that state; rates and the like stay those of the config."""
        self.step, self.images = state["step"], state["images"]
        self.average.load_state_dict(state["ema"])
        for name, network in self.objective.networks.items():
            network.load_state_dict(state["networks"][name])
        for name, optimizer in self.objective.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
            optimizer.param_groups[0].update(self._options[name])
        self._sampler.load_state_dict(state["sampler"])
        torch.set_rng_state(state["noise"]["cpu"])
        if self._device.type == "cuda" and state["noise"]["cuda"] is not None:
            torch.cuda.set_rng_state(state["noise"]["cuda"], self._device)

    def begin_from(self, state: State) -> tuple[int, list[str]]:
        """Take the weights of another run that fit: how many tensors, and those that did not, with their reasons.

        Raises RunError where none fits.
        """
        source = self._config.init_from
        taken, left = 0, []
        try:
            networks = dict(state.get("networks") or {})
            networks["generator"] = state.get("ema") or {}  # the averaged weights: those of its pictures
            others = list(state["spec"]["class_names"]) != list(self._spec.class_names)
            for name, network in self.objective.networks.items():
                weights = {
                    key: weight
                    for key, weight in networks.get(name, {}).items()
                    if not (others and key.startswith(BY_CLASS))  # digits are no clothes, though both are ten
                }
                fits, unfit = checkpoint.transfer(network, weights)
                taken, left = taken + fits, left + [f"{name}.{_reason(reason, others)}" for reason in unfit]
        except (
            AttributeError,
            KeyError,
            TypeError,
            ValueError,
        ) as error:  # of another program
            raise RunError(f"{source} is no limner checkpoint", "Leave out --init-from.") from error
        if not taken:
            raise RunError(f"nothing in {source} fits this model", "Leave out --init-from.")
        self.average.load_state_dict(self.objective.generator.state_dict())
        return taken, left

    # posteriors

    def fit_prior(self) -> Prior | None:
        """The aggregated posterior of the first training images, fitted; None for a model that draws from N(0, I).

        Raises ValueError where the encoder's latents are out of bounds.
        """
        posterior = self._posterior(self._dataset.train)
        if posterior is None:
            return None
        labels = self._dataset.train.labels
        labels = labels[: len(posterior.mean)] if self._config.conditional and labels is not None else None
        with np.errstate(over="ignore", invalid="ignore"):  # the fit refuses what is not finite
            drawn = posterior.draw(self._config.seed)
        return Prior.fit(drawn, labels, self._spec.classes, self._config.components, self._config.seed)

    def active_units(self) -> float | None:
        """Share of the latents whose posterior mean varies over the images of val; None without an encoder."""
        posterior = self._posterior(self._dataset.val)
        return None if posterior is None else float((posterior.mean.var(0) > ACTIVE).mean())

    def _posterior(self, images: Images) -> Posterior | None:
        first = images.take(slice(None, POSTERIORS))
        return self.objective.posterior(first.images, first.labels if self._config.conditional else None)


def _balance(config: TrainConfig, dataset: Dataset) -> np.ndarray | None:
    labels = dataset.train.labels
    if labels is None or not config.conditional:
        return None
    wanted = not is_balanced(labels) if config.balance is None else config.balance
    return labels if wanted else None


def _reason(unfit: str, others: bool) -> str:
    key = unfit.partition(" ")[0]
    return f"{key} (of other classes)" if others and key.startswith(BY_CLASS) else unfit
