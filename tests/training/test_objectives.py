"""The losses are the papers' losses, and a step moves every network towards its own aim."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy

from training.config import ModelSpec, TrainConfig
from training.objectives import Adversarial, Variational, gaussian_divergence, objective_for

CPU = torch.device("cpu")
Small = Callable[..., TrainConfig]


def specify(config: TrainConfig) -> ModelSpec:
    names = ("a", "b", "c") if config.conditional else ()
    return ModelSpec(kind=config.model, latent=8, size=28, channels=1, class_names=names, width=4)


def batch(config: TrainConfig) -> tuple[Tensor, Tensor | None]:
    image = torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return image, torch.arange(16) % 3 if config.conditional else None


def test_the_divergence_is_that_of_torch_distributions() -> None:
    mean, log_variance = torch.randn(7, 5), torch.randn(7, 5)
    expected = kl_divergence(Normal(mean, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(gaussian_divergence(mean, log_variance), expected)


def test_the_divergence_of_the_prior_from_itself_is_zero() -> None:
    assert gaussian_divergence(torch.zeros(3, 5), torch.zeros(3, 5)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("kind", ["gan", "cgan", "vae", "cvae"])
def test_a_step_moves_every_weight_and_returns_finite_losses(small: Small, kind: str) -> None:
    torch.manual_seed(0)
    config = small(kind)
    objective = objective_for(specify(config), config, CPU)
    before = {name: copy.deepcopy(network.state_dict()) for name, network in objective.networks.items()}
    losses = objective.step(*batch(config))
    assert len(losses) == 2
    assert all(loss.isfinite() and loss.ndim == 0 and not loss.requires_grad for loss in losses.values())
    assert len(before) == 2
    for name, network in objective.networks.items():
        still = [key for key, value in network.state_dict().items() if torch.equal(value, before[name][key])]
        assert still == []


def test_the_generators_step_leaves_the_discriminator_trainable(small: Small) -> None:
    config = small("cgan")
    objective = Adversarial(specify(config), config, CPU)
    objective.step(*batch(config))
    assert all(weight.requires_grad for weight in objective.discriminator.parameters())


def gradients(network: nn.Module) -> dict[str, Tensor | None]:
    return {name: weight.grad for name, weight in network.named_parameters()}


def assert_same_gradients(one: nn.Module, other: nn.Module) -> None:
    torch.testing.assert_close(gradients(one), gradients(other), rtol=1e-4, atol=1e-5)
    assert all(gradient is not None and gradient.any() for gradient in gradients(one).values())


@pytest.mark.parametrize("kind", ["gan", "cgan"])
def test_the_adversarial_losses_are_cross_entropies_of_real_and_fake(small: Small, kind: str) -> None:
    config = small(kind, dropout=0.0, discriminator_rate=1e-12)  # so that the generator meets the same discriminator
    objective = Adversarial(specify(config), config, CPU)
    untouched = copy.deepcopy(objective)
    image, label = batch(config)
    torch.manual_seed(3)
    losses = objective.step(image, label)

    torch.manual_seed(3)
    fake = untouched.generator(torch.randn(16, 8), label)
    ones, zeros = torch.ones(16), torch.zeros(16)
    of_real, of_fake = untouched.discriminator(image, label), untouched.discriminator(fake.detach(), label)
    discriminator = cross_entropy(of_real, ones) + cross_entropy(of_fake, zeros)
    discriminator.backward()
    assert_same_gradients(objective.discriminator, untouched.discriminator)
    generator = cross_entropy(untouched.discriminator(fake, label), ones)
    generator.backward()
    assert_same_gradients(objective.generator, untouched.generator)
    torch.testing.assert_close(losses, {"generator": generator.detach(), "discriminator": discriminator.detach()})


@pytest.mark.parametrize("kind", ["vae", "cvae"])
def test_the_variational_loss_is_the_bound_under_the_best_variance(small: Small, kind: str) -> None:
    config = small(kind)
    objective = Variational(specify(config), config, CPU)
    untouched = copy.deepcopy(objective)
    image, label = batch(config)
    torch.manual_seed(3)
    losses = objective.step(image, label)

    torch.manual_seed(3)
    mean, log_variance = untouched.encoder(image, label)
    posterior = Normal(mean, (0.5 * log_variance).exp())
    drawn = untouched.generator(posterior.rsample(), label)
    sigma = (drawn - image).square().mean().sqrt()
    constant = 28 * 28 / 2 * math.log(2 * math.pi)  # left out of the loss
    reconstruction = -Normal(drawn, sigma).log_prob(image).flatten(1).sum(1).mean() - constant
    divergence = kl_divergence(posterior, Normal(0.0, 1.0)).sum(1).mean()
    (reconstruction + divergence).backward()
    torch.testing.assert_close(
        losses, {"reconstruction": reconstruction.detach(), "divergence": divergence.detach()}, rtol=1e-4, atol=1e-4
    )
    for one, other in ((objective.encoder, untouched.encoder), (objective.generator, untouched.generator)):
        torch.testing.assert_close(gradients(one), gradients(other), rtol=1e-3, atol=1e-3)


def test_the_bound_falls_over_steps(small: Small) -> None:
    torch.manual_seed(0)
    config = small("cvae")
    objective = Variational(specify(config), config, CPU)
    bounds = [sum(loss.item() for loss in objective.step(*batch(config)).values()) for _ in range(12)]
    assert bounds[-1] < bounds[0] - 10
