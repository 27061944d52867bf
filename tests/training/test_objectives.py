"""A step moves every network towards its own aim by the losses of training/losses.py, and each knob does its part."""

import copy
import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Laplace, Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy
from torch.nn.functional import softplus

from training import losses
from training.config import RECIPES, ModelSpec, TrainConfig
from training.objectives import Adversarial, NonFinite, Objective, Posterior, Variational, objective_for
from training.pixels import to_unit

CPU = torch.device("cpu")
KINDS = ("gan", "cgan", "vae", "cvae")
PLAIN: dict[str, Any] = {  # whatever the defaults: a discriminator, if any, whose verdict depends on its image alone
    "dropout": 0.0, "normalization": "none", "spectral_norm": False, "augment": False, "r1": 0.0, "r2": 0.0,
    "loss": "logistic", "likelihood": "gaussian", "critic": 0.0, "kl_warmup": 0.0, "free_bits": 0.0,
    "weight_decay": 0.0,
}  # fmt: skip
Small = Callable[..., TrainConfig]


def specify(config: TrainConfig) -> ModelSpec:
    names = ("a", "b", "c") if config.conditional else ()
    return ModelSpec(kind=config.model, latent=8, size=28, channels=1, class_names=names, width=4)


def adversarial(config: TrainConfig) -> Adversarial:
    torch.manual_seed(0)
    return Adversarial(specify(config), config, CPU)


def variational(config: TrainConfig) -> Variational:
    torch.manual_seed(0)
    return Variational(specify(config), config, CPU)


def batch(config: TrainConfig) -> tuple[Tensor, Tensor | None]:
    image = torch.rand(16, 1, 28, 28, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return image, torch.arange(16) % 3 if config.conditional else None


def snapshot(objective: Objective) -> dict[str, dict[str, Tensor]]:
    return {name: copy.deepcopy(network.state_dict()) for name, network in objective.networks.items()}


def gradients(network: nn.Module) -> dict[str, Tensor]:
    return {name: torch.zeros_like(w) if w.grad is None else w.grad for name, w in network.named_parameters()}


def norm(*networks: nn.Module) -> float:
    return math.sqrt(sum(g.square().sum().item() for network in networks for g in gradients(network).values()))


def assert_same_gradients(one: nn.Module, other: nn.Module, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(gradients(one), gradients(other), rtol=10 * tolerance, atol=tolerance)
    assert any(gradient.any() for gradient in gradients(one).values())


# every objective


OF_CRITIC = {"penalty", "discriminator_gradient"}
GAMES = [{}, {"loss": "hinge", "normalization": "none"}, {"loss": "relativistic", "r1": 1.0, "r2": 1.0}]


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        *product(("gan", "cgan"), [{"recipe": recipe} for recipe in RECIPES]),
        *product(("vae", "cvae"), [{"critic": 0.0}, *({"critic": 20.0} | game for game in GAMES)]),
    ],
    ids=str,
)
def test_a_step_moves_every_weight_and_returns_finite_figures(
    small: Small, kind: str, settings: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    config = small(kind, **settings)
    objective = objective_for(specify(config), config, CPU)
    before = snapshot(objective)
    taken = objective.step(*batch(config), 0.0)
    if config.adversarial:
        networks, parts, signals = {"generator"}, {"generator"}, {"generator_gradient", "told_apart"}
    else:
        networks, parts, signals = {"generator", "encoder"}, {"reconstruction", "divergence"}, {"gradient"}
    if config.adversarial or config.critic:
        networks, parts, signals = networks | {"discriminator"}, parts | {"discriminator"}, signals | OF_CRITIC
    if config.critic and not config.adversarial:  # no alarm goes by it: a reconstruction stands beside its own image
        signals = signals | {"reconstructions_told_apart"}
    assert (before.keys(), taken.losses.keys(), taken.signals.keys()) == (networks, parts, signals)
    for figure in (*taken.losses.values(), *taken.signals.values()):
        assert figure.isfinite()
        assert figure.ndim == 0
        assert not figure.requires_grad
    still = {
        f"{name}.{key}"
        for name, network in objective.networks.items()
        for key, value in network.state_dict().items()
        if torch.equal(value, before[name][key]) and not key.endswith(("._u", "._v"))
    }
    common = set() if config.loss == "logistic" else {"discriminator.head.bias"}  # at first real and fake cancel in it
    assert still == common


@pytest.mark.parametrize(("kind", "critic"), [*product(KINDS, [0.0]), ("vae", 20.0), ("cvae", 20.0)])
def test_an_image_that_is_not_finite_is_told_and_touches_no_weight(small: Small, kind: str, critic: float) -> None:
    config = small(kind, **PLAIN | {"clip": 1, "critic": critic})
    objective = objective_for(specify(config), config, CPU)
    before = {name: [w.clone() for w in network.parameters()] for name, network in objective.networks.items()}
    image, label = batch(config)
    image[3, 0, 5, 5] = torch.nan
    with pytest.raises(NonFinite):
        objective.step(image, label, 0.0)
    for name, network in objective.networks.items():
        assert all(torch.equal(one, other) for one, other in zip(network.parameters(), before[name], strict=True))
    assert all(not optimizer.state for optimizer in objective.optimizers.values())


@pytest.mark.parametrize(
    ("kind", "name"), [*product(["cgan", "cvae"], ["discriminator", "generator"]), ("cvae", "encoder")]
)
def test_one_infinite_gradient_under_a_finite_loss_is_told(small: Small, kind: str, name: str) -> None:
    config = small(kind, clip=1)
    objective = objective_for(specify(config), config, CPU)
    network = objective.networks[name]
    before = [weight.clone() for weight in network.parameters()]
    next(network.parameters()).register_hook(lambda gradient: gradient / 0)
    with pytest.raises(NonFinite):
        objective.step(*batch(config), 0.0)
    assert all(torch.equal(one, other) for one, other in zip(network.parameters(), before, strict=True))
    assert all(weight.requires_grad for net in objective.networks.values() for weight in net.parameters())


@pytest.mark.parametrize("kind", ["cgan", "cvae"])
def test_a_clip_bounds_the_gradient_and_the_norm_before_it_is_the_signal(small: Small, kind: str) -> None:
    """Pascanu et al. 2013, algorithm 1: scaled to the threshold, the direction kept."""
    stepped: list[tuple[dict[str, float], list[nn.Module]]] = []
    for clip in (None, 1e-3):
        knobs = {"clip": clip, "critic": 20.0, "discriminator_rate": 1e-12}  # both meet the same discriminator
        config = small(kind, **PLAIN | knobs)
        objective = adversarial(config) if config.adversarial else variational(config)
        torch.manual_seed(3)
        signals = objective.step(*batch(config), 0.0).signals
        networks = dict(objective.networks)
        sides = {"discriminator_gradient": [networks.pop("discriminator")]}
        sides["generator_gradient" if config.adversarial else "gradient"] = list(networks.values())  # one optimizer
        for name, side in sides.items():
            stepped.append(({"norm": norm(*side), "signal": signals[name].item()}, side))
    free, clipped = stepped[: len(stepped) // 2], stepped[len(stepped) // 2 :]
    for (without, whole), (within, part) in zip(free, clipped, strict=True):
        assert without["norm"] == pytest.approx(without["signal"], rel=1e-4)
        assert without["norm"] > 2e-3
        assert within["norm"] == pytest.approx(1e-3, rel=1e-2)
        assert within["signal"] == pytest.approx(without["signal"], rel=1e-3)
        for one, other in zip(whole, part, strict=True):
            for name, gradient in gradients(one).items():
                expected = gradient * (1e-3 / without["norm"])
                torch.testing.assert_close(gradients(other)[name], expected, rtol=1e-2, atol=1e-8)


def test_a_clip_above_the_norm_changes_nothing(small: Small) -> None:
    after = []
    for clip in (None, 1e9):
        objective = variational(small("vae", **PLAIN | {"clip": clip}))
        objective.step(*batch(objective.config), 0.0)
        after.append(snapshot(objective))
    torch.testing.assert_close(after[0], after[1], rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["gan", "vae"])
def test_weight_decay_takes_its_share_of_each_weight_apart_from_the_gradient(small: Small, kind: str) -> None:
    """Loshchilov & Hutter 2019, algorithm 2: w <- w - rate (Adam(gradient) + λ w)."""
    after, rates = [], PLAIN | {"generator_rate": 0.25, "discriminator_rate": 1e-12, "variational_rate": 0.25}
    for decay in (0.0, 0.5):
        config = small(kind, **rates | {"weight_decay": decay})
        objective = adversarial(config) if config.adversarial else variational(config)
        before = [weight.detach().clone() for weight in objective.generator.parameters()]
        torch.manual_seed(3)
        objective.step(*batch(config), 0.0)
        after.append([weight.detach().clone() for weight in objective.generator.parameters()])
    for weight, plain, decayed in zip(before, *after, strict=True):
        torch.testing.assert_close(decayed, plain - 0.25 * 0.5 * weight, rtol=1e-4, atol=1e-5)


def test_rates_and_betas_are_those_of_the_config(small: Small) -> None:
    config = small("gan", generator_rate=0.1, discriminator_rate=0.2, variational_rate=0.3, beta1=0.4, beta2=0.6)

    def options(objective: Objective) -> dict[str, tuple[float, Any]]:
        return {
            name: (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["betas"])
            for name, optimizer in objective.optimizers.items()
        }

    assert options(adversarial(config)) == {"generator": (0.1, (0.4, 0.6)), "discriminator": (0.2, (0.4, 0.6))}
    variational_config = config.model_copy(update={"model": "vae"})
    expected = {"variational": (0.3, (0.9, 0.999)), "discriminator": (0.2, (0.4, 0.6))}
    assert options(variational(variational_config)) == expected


def test_the_rate_is_that_of_the_first_step(small: Small) -> None:
    """Kingma & Ba 2015, algorithm 1: without a history Adam moves a weight by its rate, whatever the gradient."""
    config = small("gan", **PLAIN | {"generator_rate": 1e-3, "discriminator_rate": 2e-3})
    objective = adversarial(config)
    before = snapshot(objective)
    objective.step(*batch(config), 0.0)
    for name, rate in (("generator", 1e-3), ("discriminator", 2e-3)):
        head = "project.weight" if name == "generator" else "head.weight"
        moved = (objective.networks[name].state_dict()[head] - before[name][head]).abs()
        assert moved.median().item() == pytest.approx(rate, rel=0.01)


# the adversarial game


@pytest.mark.parametrize("kind", ["gan", "cgan"])
def test_the_logistic_game_is_one_of_cross_entropies(small: Small, kind: str) -> None:
    """Goodfellow et al. 2014, non-saturating."""
    config = small(kind, **PLAIN | {"normalization": "batch", "discriminator_rate": 1e-12})
    objective = adversarial(config)
    untouched = copy.deepcopy(objective)
    image, label = batch(config)
    torch.manual_seed(3)
    taken = objective.step(image, label, 0.0)

    torch.manual_seed(3)
    fake = untouched.generator(torch.randn(16, 8), label)
    ones, zeros = torch.ones(16), torch.zeros(16)
    of_real, of_fake = untouched.critic.network(image, label), untouched.critic.network(fake.detach(), label)
    discriminator = cross_entropy(of_real, ones) + cross_entropy(of_fake, zeros)
    discriminator.backward()
    assert_same_gradients(objective.critic.network, untouched.critic.network)
    generator = cross_entropy(untouched.critic.network(fake, label), ones)
    generator.backward()
    assert_same_gradients(objective.generator, untouched.generator)
    torch.testing.assert_close(taken.losses, {"generator": generator.detach(), "discriminator": discriminator.detach()})
    assert taken.signals["told_apart"] == (of_real > of_fake).float().mean()


@pytest.mark.parametrize("loss", ["hinge", "relativistic"])
def test_the_other_games_are_those_of_their_losses(small: Small, loss: losses.AdversarialName) -> None:
    config = small("cgan", **PLAIN | {"loss": loss, "discriminator_rate": 1e-12})
    objective = adversarial(config)
    untouched = copy.deepcopy(objective)
    image, label = batch(config)
    torch.manual_seed(3)
    taken = objective.step(image, label, 0.0)

    torch.manual_seed(3)
    fake = untouched.generator(torch.randn(16, 8), label)
    real_logit = untouched.critic.network(image, label)
    sides = losses.ADVERSARIAL[loss]
    sides.discriminator(real_logit, untouched.critic.network(fake.detach(), label)).backward()
    assert_same_gradients(objective.critic.network, untouched.critic.network)
    generator = sides.generator(real_logit.detach(), untouched.critic.network(fake, label))
    generator.backward()
    assert_same_gradients(objective.generator, untouched.generator)
    torch.testing.assert_close(taken.losses["generator"], generator.detach())


def test_a_pair_shares_its_label_on_both_sides_of_the_game(small: Small) -> None:
    """Huang et al. 2024: D(x, y) - D(G(z, y), y) is of one y; the game is probed by what goes through its networks."""
    config = small("cgan", **PLAIN | {"loss": "relativistic", "discriminator_rate": 1e-12})
    objective = adversarial(config)
    made: list[tuple[Tensor, Tensor]] = []
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def paint(_: nn.Module, given: tuple[Tensor, Tensor], fake: Tensor) -> Tensor:
        """Fakes whose level is their label, so that row i can be told wherever it turns up."""
        painted = 0 * fake + given[1][:, None, None, None] / 4
        made.append((painted.detach(), given[1]))
        return painted

    objective.generator.register_forward_hook(paint)
    objective.critic.network.register_forward_hook(
        lambda _, given, logit: seen.append((given[0].detach().clone(), given[1], logit.detach()))
    )
    image, label = batch(config)
    assert label is not None
    label = label[torch.randperm(16)]
    taken = objective.step(image, label, 0.0)

    assert [torch.equal(asked, label) for _, asked in made] == [True]
    assert [torch.equal(asked, label) for _, asked, _ in seen] == [True] * 4
    of_real, of_fake = seen[::2], seen[1::2]  # a round of D, then one of G
    assert all(torch.equal(given, image) for given, _, _ in of_real)
    assert all(torch.equal(given[:, 0, 0, 0] * 4, label.float()) for given, _, _ in of_fake)
    (real, again), (fake, later) = ([logit for *_, logit in side] for side in (of_real, of_fake))
    torch.testing.assert_close(taken.losses["discriminator"], (1 + (fake - real).exp()).log().mean())
    torch.testing.assert_close(taken.losses["generator"], (1 + (again - later).exp()).log().mean())


@pytest.mark.parametrize(("r1", "r2"), [(2.0, 0.0), (0.0, 3.0), (2.0, 3.0)])
def test_r1_and_r2_weigh_the_penalties_at_real_and_generated_images(small: Small, r1: float, r2: float) -> None:
    """Mescheder et al. 2018, (9) and (10), without their shared γ."""
    config = small("cgan", **PLAIN | {"r1": r1, "r2": r2, "discriminator_rate": 1e-12})
    objective = adversarial(config)
    untouched = copy.deepcopy(objective)
    image, label = batch(config)
    torch.manual_seed(3)
    taken = objective.step(image.clone(), label, 0.0)

    torch.manual_seed(3)
    fake = untouched.generator(torch.randn(16, 8), label).detach()
    total, penalty = torch.zeros(()), torch.zeros(())
    for weight, given in ((r1, image), (r2, fake)):
        given.requires_grad_()
        logit = untouched.critic.network(given, label)
        rows = [torch.autograd.grad(logit[row], given, create_graph=True)[0][row] for row in range(16)]
        penalty = penalty + weight * 0.5 * torch.stack([slope.square().sum() for slope in rows]).mean()
        total = total + softplus(-logit if given is image else logit).mean()
    (total + penalty).backward()
    torch.testing.assert_close(taken.signals["penalty"], penalty.detach())
    torch.testing.assert_close(taken.losses["discriminator"], total.detach())  # the game's own, comparable
    assert_same_gradients(objective.critic.network, untouched.critic.network)


def test_without_penalties_the_signal_is_zero(small: Small) -> None:
    config = small("gan", **PLAIN)
    assert adversarial(config).step(*batch(config), 0.0).signals["penalty"] == 0


@pytest.mark.parametrize("kind", ["gan", "vae"])
def test_with_augment_the_discriminator_never_sees_an_image_as_it_is(small: Small, kind: str) -> None:
    """Zhao et al. 2020, figure 4: T is applied to reals and fakes, for D's step and for G's."""
    config = small(kind, **PLAIN | {"augment": True, "loss": "relativistic", "r1": 1.0, "critic": 20.0})
    objective = objective_for(specify(config), config, CPU)
    made: list[Tensor] = []
    seen: list[Tensor] = []
    objective.generator.register_forward_hook(lambda _, given, fake: made.append(fake.detach().clone()))
    objective.networks["discriminator"].register_forward_pre_hook(
        lambda _, given: seen.append(given[0].detach().clone())
    )
    image, label = batch(config)
    objective.step(image, label, 0.0)
    assert len(seen) == 4
    altered = [(one != other).flatten(1).any(1).all() for one in seen for other in (image, made[0])]
    assert all(altered)
    assert all((given == 0).flatten(1).sum(1).min() > 9 for given in seen)  # the hole
    assert norm(objective.generator) > 0


@pytest.mark.parametrize("loss", list(losses.ADVERSARIAL))
@pytest.mark.parametrize(("kind", "name"), [("cgan", "generator"), ("cvae", "variational")])
def test_the_other_sides_step_leaves_the_discriminator_trainable_and_untouched(
    small: Small, kind: str, name: str, loss: str
) -> None:
    config = small(kind, loss=loss)
    objective = objective_for(specify(config), config, CPU)
    network = objective.networks["discriminator"]
    learnt: list[tuple[dict[str, Tensor], dict[str, Tensor]]] = []
    counts: list[int] = []
    objective.optimizers["discriminator"].register_step_post_hook(
        lambda *_: learnt.append(copy.deepcopy((gradients(network), dict(network.named_parameters()))))
    )
    objective.optimizers[name].register_step_pre_hook(
        lambda *_: counts.append(sum(weight.requires_grad for weight in network.parameters()))
    )
    objective.step(*batch(config), 0.0)
    assert counts == [0]
    assert all(weight.requires_grad for weight in network.parameters())
    now = gradients(network), dict(network.named_parameters())
    torch.testing.assert_close(now, learnt[0], rtol=0, atol=0)
    assert len(learnt) == 1


def test_an_adversarial_model_has_no_posterior(small: Small) -> None:
    objective = adversarial(small("cgan"))
    assert objective.posterior(np.zeros((2, 28, 28, 1), np.uint8), np.zeros(2, np.int64)) is None


# the evidence lower bound


@pytest.mark.parametrize("kind", ["vae", "cvae"])
@pytest.mark.parametrize("likelihood", list(losses.LIKELIHOODS))
def test_the_loss_without_a_critic_is_the_bound(small: Small, kind: str, likelihood: str) -> None:
    """Kingma & Welling 2014, (3); the scale of Laplace and Gaussian is the best one (Rybkin et al. 2021, (8))."""
    config = small(kind, **PLAIN | {"likelihood": likelihood})
    objective = variational(config)
    untouched = copy.deepcopy(objective)
    image, label = batch(config)
    torch.manual_seed(3)
    taken = objective.step(image, label, 0.0)

    torch.manual_seed(3)
    mean, log_variance = untouched.encoder(image, label)
    posterior = Normal(mean, (0.5 * log_variance).exp())
    drawn = untouched.generator(posterior.rsample(), label)
    if likelihood == "gaussian":
        sigma = (drawn - image).square().mean().sqrt()
        reconstruction = -Normal(drawn, sigma).log_prob(image).flatten(1).sum(1).mean()
    elif likelihood == "laplace":
        reconstruction = -Laplace(drawn, (drawn - image).abs().mean()).log_prob(image).flatten(1).sum(1).mean()
    else:
        p, x = (drawn + 1) / 2, (image + 1) / 2
        reconstruction = -(x * p.log() + (1 - x) * (1 - p).log()).flatten(1).sum(1).mean()
    divergence = kl_divergence(posterior, Normal(0.0, 1.0)).sum(1).mean()
    (reconstruction + divergence).backward()
    torch.testing.assert_close(
        taken.losses,
        {"reconstruction": reconstruction.detach(), "divergence": divergence.detach()},
        rtol=1e-4,
        atol=1e-4,
    )
    assert_same_gradients(objective.encoder, untouched.encoder, 1e-3)
    assert_same_gradients(objective.generator, untouched.generator, 1e-3)


@pytest.mark.parametrize(
    ("warmup", "fraction", "weight"),
    [(0.0, 0.0, 1.0), (0.5, 0.0, 0.0), (0.5, 0.125, 0.25), (0.5, 0.5, 1.0), (0.5, 0.9, 1.0), (1.0, 0.5, 0.5)],
)
def test_the_divergence_is_warmed_up_over_its_share_of_the_budget(
    small: Small, warmup: float, fraction: float, weight: float
) -> None:
    """Bowman et al. 2016, section 3.1: its weight rises from 0; what is recorded is the divergence itself."""
    config = small("vae", **PLAIN | {"kl_warmup": warmup})
    objective = variational(config)
    untouched = copy.deepcopy(objective)
    image, label = batch(config)
    torch.manual_seed(3)
    taken = objective.step(image, label, fraction)

    torch.manual_seed(3)
    mean, log_variance = untouched.encoder(image, label)
    z = mean + (0.5 * log_variance).exp() * torch.randn_like(mean)
    divergence = losses.divergence(mean, log_variance)
    (losses.gaussian_likelihood(untouched.generator(z, label), image) + weight * divergence).backward()
    assert_same_gradients(objective.encoder, untouched.encoder, 1e-4)
    torch.testing.assert_close(taken.losses["divergence"], divergence.detach())


def test_free_bits_that_nothing_exceeds_leave_only_the_reconstruction(small: Small) -> None:
    """Kingma et al. 2016, appendix C.8: 8 latents at the floor, and no pressure on any."""
    free, none = (variational(small("vae", **PLAIN | knob)) for knob in ({"free_bits": 50.0}, {"kl_warmup": 1.0}))
    image, _ = batch(free.config)
    for objective in (free, none):
        torch.manual_seed(3)
        taken = objective.step(image, None, 0.0)
        if objective is free:
            assert taken.losses["divergence"] == 8 * 50
    assert_same_gradients(free.encoder, none.encoder)


@pytest.mark.parametrize("critic", [0.0, 20.0])
@pytest.mark.parametrize("likelihood", list(losses.LIKELIHOODS))
def test_the_bound_falls_over_steps(small: Small, likelihood: str, critic: float) -> None:
    config = small("cvae", likelihood=likelihood, critic=critic)
    objective = variational(config)
    taken = [objective.step(*batch(config), 0.0).losses for _ in range(12)]
    bounds = [(step["reconstruction"] + step["divergence"]).item() for step in taken]
    assert bounds[-1] < bounds[0] - 5


# the critic of reconstructions


def test_without_a_critic_there_is_no_discriminator(small: Small) -> None:
    objective = variational(small("vae", critic=0.0))
    assert objective.critic is None
    assert (objective.networks.keys(), objective.optimizers.keys()) == ({"generator", "encoder"}, {"variational"})


@pytest.mark.parametrize("loss", list(losses.ADVERSARIAL))
def test_with_a_critic_the_loss_is_the_bound_plus_its_weight_times_that_of_the_generator(
    small: Small, loss: str
) -> None:
    """Larsen et al. 2016: decoder and encoder meet the verdict on x̂, in nats beside those of the bound."""
    config = small("cvae", **PLAIN | {"critic": 300.0, "loss": loss, "discriminator_rate": 1e-12})
    objective = variational(config)
    untouched = copy.deepcopy(objective)
    image, label = batch(config)
    torch.manual_seed(3)
    taken = objective.step(image, label, 0.0)

    torch.manual_seed(3)
    mean, log_variance = untouched.encoder(image, label)
    posterior = Normal(mean, (0.5 * log_variance).exp())
    again = untouched.generator(posterior.rsample(), label)
    sigma = (again - image).square().mean().sqrt()
    reconstruction = -Normal(again, sigma).log_prob(image).flatten(1).sum(1).mean()
    divergence = kl_divergence(posterior, Normal(0.0, 1.0)).sum(1).mean()
    judge = untouched.networks["discriminator"].requires_grad_(False)
    real, fake = judge(image, label), judge(again, label)
    verdict = {"logistic": softplus(-fake), "hinge": -fake, "relativistic": softplus(real - fake)}[loss].mean()
    (reconstruction + divergence + 300 * verdict).backward()
    assert_same_gradients(objective.encoder, untouched.encoder, 1e-3)
    assert_same_gradients(objective.generator, untouched.generator, 1e-3)
    both = norm(untouched.encoder, untouched.generator)
    assert taken.signals["gradient"].item() == pytest.approx(both, rel=1e-3)
    torch.testing.assert_close(taken.losses["reconstruction"], reconstruction.detach())  # the bound's own, comparable
    torch.testing.assert_close(taken.losses["divergence"], divergence.detach())


@pytest.mark.parametrize("loss", list(losses.ADVERSARIAL))
def test_the_critic_learns_on_pairs_of_reconstruction_and_image_with_the_images_label(small: Small, loss: str) -> None:
    config = small("cvae", **PLAIN | {"critic": 20.0, "loss": loss, "discriminator_rate": 1e-12})
    objective = variational(config)
    critic = objective.networks["discriminator"]
    untouched = copy.deepcopy(critic)
    made: list[Tensor] = []
    seen: list[tuple[Tensor, Tensor]] = []
    objective.generator.register_forward_hook(lambda _, given, again: made.append(again.detach().clone()))
    critic.register_forward_hook(lambda _, given, logit: seen.append((given[0].detach().clone(), given[1])))
    image, label = batch(config)
    assert label is not None
    label = label[torch.randperm(16)]
    taken = objective.step(image, label, 0.0)

    assert len(made) == 1
    pair = [image, made[0]]
    shown = pair * 2 if loss == "relativistic" else [*pair, made[0]]  # a round of D, then one of the other side
    assert [torch.equal(given, one) for (given, _), one in zip(seen, shown, strict=True)] == [True] * len(shown)
    assert all(torch.equal(asked, label) for _, asked in seen)
    real, fake = untouched(image, label), untouched(made[0], label)
    costs = {
        "logistic": softplus(-real) + softplus(fake),
        "hinge": (1 - real).relu() + (1 + fake).relu(),
        "relativistic": softplus(fake - real),
    }
    costs[loss].mean().backward()
    assert_same_gradients(critic, untouched)
    torch.testing.assert_close(taken.losses["discriminator"], costs[loss].mean().detach())
    assert taken.signals["reconstructions_told_apart"] == (real > fake).float().mean()


def test_the_critic_comes_to_tell_reconstructions_from_images(small: Small) -> None:
    config = small("cvae", **PLAIN | {"critic": 20.0, "variational_rate": 1e-12})
    objective = variational(config)
    taken = [objective.step(*batch(config), 0.0) for _ in range(12)]
    assert taken[-1].losses["discriminator"] < taken[0].losses["discriminator"] - 0.5
    assert taken[-1].signals["reconstructions_told_apart"] == 1


@pytest.mark.parametrize("kind", ["vae", "cvae"])
def test_the_posterior_of_images_is_that_of_the_encoder_in_eval_mode(small: Small, kind: str) -> None:
    config = small(kind)
    objective = variational(config)
    objective.step(*batch(config), 0.0)
    levels = np.random.default_rng(0).integers(0, 256, (600, 28, 28, 1), dtype=np.uint8)  # more than one batch
    labels = np.arange(600) % 3 if config.conditional else None
    before = snapshot(objective)
    found = objective.posterior(levels, labels)
    assert objective.encoder.training
    torch.testing.assert_close(snapshot(objective), before, rtol=0, atol=0)
    with torch.no_grad():
        mean, log_variance = objective.encoder.eval()(
            to_unit(torch.from_numpy(levels)), None if labels is None else torch.from_numpy(labels)
        )
    np.testing.assert_allclose(found.mean, mean.numpy(), atol=1e-5)
    np.testing.assert_allclose(found.log_variance, log_variance.numpy(), atol=1e-5)
    assert (found.mean.shape, found.mean.dtype) == ((600, 8), np.float32)


def test_a_drawn_latent_follows_its_own_posterior() -> None:
    mean = np.repeat(np.array([[-2.0, 5.0]], np.float32), 20_000, axis=0)
    drawn = Posterior(mean, np.full_like(mean, np.log([0.25, 4.0]))).draw(seed=1)
    assert (drawn.shape, drawn.dtype) == (mean.shape, np.float32)
    assert drawn.mean(0).tolist() == pytest.approx([-2, 5], abs=0.05)
    assert drawn.var(0).tolist() == pytest.approx([0.25, 4], rel=0.05)
    posterior = Posterior(mean[:3], np.zeros_like(mean[:3]))
    assert np.array_equal(posterior.draw(1), posterior.draw(1))
    assert not np.array_equal(posterior.draw(1), posterior.draw(2))
