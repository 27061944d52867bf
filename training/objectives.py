"""A batch of real images in, one optimiser step with its losses and signals out: siblings with one call shape.

The loop knows only `Objective`, so GAN, CGAN, VAE and CVAE are one trainer.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from training import losses
from training.augment import augment
from training.config import ModelSpec, TrainConfig
from training.networks import Discriminator, Encoder, Generator
from training.pixels import to_unit

_Network = TypeVar("_Network", bound=nn.Module)


class NonFinite(Exception):
    """A loss or a gradient is not finite; the weights that it was to change are as they were."""


class Step(NamedTuple):
    """Losses; signals (norms of gradients before the clip, the share of pairs told apart): scalars, on the device."""

    losses: dict[str, Tensor]
    signals: dict[str, Tensor]


class Posterior(NamedTuple):
    """What the encoder makes of images: q(z|x) = N(mean, exp(log_variance)), both float32 [N, latent]."""

    mean: np.ndarray
    log_variance: np.ndarray

    def draw(self, seed: int) -> np.ndarray:
        """One z of each image's posterior."""
        noise = np.random.default_rng(seed).standard_normal(self.mean.shape, np.float32)
        return self.mean + np.exp(0.5 * self.log_variance) * noise


class Objective(Protocol):
    """What the loop drives. `networks` and `optimizers` are what a checkpoint keeps."""

    generator: Generator

    @property
    def networks(self) -> Mapping[str, nn.Module]: ...

    @property
    def optimizers(self) -> Mapping[str, Optimizer]: ...

    def step(self, image: Tensor, label: Tensor | None, fraction: float) -> Step:
        """Real images float32 [N, C, H, W] in [-1, 1], labels int64 [N] or None, the share of the budget that is spent.

        Raises NonFinite.
        """
        ...

    def posterior(self, images: np.ndarray, labels: np.ndarray | None) -> Posterior | None:
        """uint8 [N, H, W, C] (and labels) -> their latents; None for an objective without an encoder."""
        ...


class Critic:
    """The discriminator and its side of the game (Goodfellow et al. 2014): it judges (image, label) pairs."""

    def __init__(self, spec: ModelSpec, config: TrainConfig, device: torch.device) -> None:
        self.network = place(Discriminator(spec, config), device)
        self.optimizer = _adam([self.network], config.discriminator_rate, config, (config.beta1, config.beta2))
        self._config = config
        self._loss = losses.ADVERSARIAL[config.loss]
        self._see = augment if config.augment else lambda image: image

    def learn(self, image: Tensor, fake: Tensor, label: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        """One step; generated images have the labels of the real ones. -> loss, signals. Raises NonFinite."""
        config = self._config
        seen, seen_fake = self._see(image).detach(), self._see(fake.detach())
        seen.requires_grad_(config.r1 > 0)
        seen_fake.requires_grad_(config.r2 > 0)
        real_logit, fake_logit = self.network(seen, label), self.network(seen_fake, label)
        loss = self._loss.discriminator(real_logit, fake_logit)
        penalty = torch.zeros((), device=image.device)
        if config.r1:
            penalty = penalty + config.r1 * losses.gradient_penalty(real_logit, seen)
        if config.r2:
            penalty = penalty + config.r2 * losses.gradient_penalty(fake_logit, seen_fake)
        slope = _update(self.optimizer, loss + penalty, config.clip)
        told_apart = (real_logit > fake_logit).float().mean()
        return loss, {"told_apart": told_apart, "penalty": penalty, "discriminator_gradient": slope}

    @contextmanager
    def verdict(self, image: Tensor, fake: Tensor, label: Tensor | None) -> Iterator[Tensor]:
        """The generator's loss; while inside, what flows back through it leaves no gradient in the discriminator."""
        self.network.requires_grad_(False)
        try:
            paired = self._config.loss == "relativistic"
            real_logit = self.network(self._see(image), label) if paired else fake.new_empty(0)
            yield self._loss.generator(real_logit, self.network(self._see(fake), label))
        finally:
            self.network.requires_grad_(True)


class Adversarial:
    """Generator against discriminator, alternating steps on one batch of generated images."""

    def __init__(self, spec: ModelSpec, config: TrainConfig, device: torch.device) -> None:
        self.generator = place(Generator(spec), device)
        self.critic = Critic(spec, config, device)
        self.latent = spec.latent
        self.config = config
        optimizer = _adam([self.generator], config.generator_rate, config, (config.beta1, config.beta2))
        self.networks = {"generator": self.generator, "discriminator": self.critic.network}
        self.optimizers = {"generator": optimizer, "discriminator": self.critic.optimizer}

    def step(self, image: Tensor, label: Tensor | None, fraction: float) -> Step:
        fake = self.generator(torch.randn(len(image), self.latent, device=image.device), label)
        discriminator, signals = self.critic.learn(image, fake, label)
        with self.critic.verdict(image, fake, label) as loss:
            slope = _update(self.optimizers["generator"], loss, self.config.clip)
        return _step({"generator": loss, "discriminator": discriminator}, signals | {"generator_gradient": slope})

    def posterior(self, images: np.ndarray, labels: np.ndarray | None) -> None:
        return None


class Variational:
    """The evidence lower bound (Kingma & Welling 2014): likelihood of the pixels against divergence from N(0, I).

    With `critic` > 0 a discriminator judges the reconstructions as well, and encoder and decoder both hear it (after
    Larsen et al. 2016): pixels alone make blurs.
    """

    def __init__(self, spec: ModelSpec, config: TrainConfig, device: torch.device) -> None:
        self.generator = place(Generator(spec), device)
        self.encoder = place(Encoder(spec), device)
        self.critic = Critic(spec, config, device) if config.critic else None
        self.config = config
        self.likelihood = losses.LIKELIHOODS[config.likelihood]
        both = [self.generator, self.encoder]
        self.networks: dict[str, nn.Module] = {"generator": self.generator, "encoder": self.encoder}
        self.optimizers = {"variational": _adam(both, config.variational_rate, config, (0.9, 0.999))}
        if self.critic is not None:
            self.networks["discriminator"] = self.critic.network
            self.optimizers["discriminator"] = self.critic.optimizer

    def step(self, image: Tensor, label: Tensor | None, fraction: float) -> Step:
        config = self.config
        mean, log_variance = self.encoder(image, label)
        again = self.generator(mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean), label)
        reconstruction = self.likelihood(again, image)
        divergence = losses.divergence(mean, log_variance, config.free_bits)
        weight = min(1.0, fraction / config.kl_warmup) if config.kl_warmup else 1.0
        bound = reconstruction + weight * divergence
        parts = {"reconstruction": reconstruction, "divergence": divergence}
        if self.critic is None:
            return _step(parts, {"gradient": _update(self.optimizers["variational"], bound, config.clip)})
        discriminator, signals = self.critic.learn(image, again, label)
        with self.critic.verdict(image, again, label) as loss:
            slope = _update(self.optimizers["variational"], bound + config.critic * loss, config.clip)
        signals["reconstructions_told_apart"] = signals.pop("told_apart")  # nearly all: each beside its own image
        return _step(parts | {"discriminator": discriminator}, signals | {"gradient": slope})

    @torch.inference_mode()
    def posterior(self, images: np.ndarray, labels: np.ndarray | None) -> Posterior:
        self.encoder.eval()
        device = next(self.encoder.parameters()).device
        parts = []
        for rows in np.array_split(np.arange(len(images)), len(images) // 512 + 1):
            label = None if labels is None else torch.from_numpy(labels[rows]).to(device)
            parts.append(self.encoder(to_unit(torch.from_numpy(images[rows]).to(device)), label))
        self.encoder.train()
        mean, log_variance = (torch.cat(side).cpu().numpy() for side in zip(*parts, strict=True))
        return Posterior(mean, log_variance)


def _adam(networks: list[nn.Module], rate: float, config: TrainConfig, betas: tuple[float, float]) -> AdamW:
    """AdamW: with a weight decay of 0 it is Adam (Loshchilov & Hutter 2019)."""
    weights = [weight for network in networks for weight in network.parameters()]
    return AdamW(weights, rate, betas, weight_decay=config.weight_decay, fused=True)


def _update(optimizer: Optimizer, loss: Tensor, clip: float | None) -> Tensor:
    """Take the step that `loss` asks for and return the norm of its gradient before the clip. Raises NonFinite.

    One infinite or undefined number anywhere makes the norm so, and then nothing is changed.
    """
    optimizer.zero_grad()
    loss.backward()
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    norm = nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
    if not torch.isfinite(norm + loss.detach()):
        raise NonFinite
    if clip is not None:
        nn.utils.clip_grads_with_norm_(weights, clip, norm)
    optimizer.step()
    return norm


def _step(losses_: dict[str, Tensor], signals: dict[str, Tensor]) -> Step:
    return Step(*({name: value.detach() for name, value in side.items()} for side in (losses_, signals)))


def place(network: _Network, device: torch.device) -> _Network:
    """Move to the device in channels-last memory: a CPU step of these small convolutions is 1.2 to 1.3 x faster."""
    network.to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def objective_for(spec: ModelSpec, config: TrainConfig, device: torch.device) -> Objective:
    """The one place where a kind becomes an objective."""
    return (Adversarial if config.adversarial else Variational)(spec, config, device)
