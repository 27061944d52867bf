"""The losses are the papers' formulas: against closed forms, torch.distributions and finite differences."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Laplace, Normal, kl_divergence

from training.losses import (
    ADVERSARIAL,
    LIKELIHOODS,
    AdversarialName,
    LikelihoodName,
    bernoulli_likelihood,
    divergence,
    gradient_penalty,
)

LOG_2 = math.log(2)

REAL = [2.0, -0.5, 0.0, 1.5]
FAKE = [-1.0, 0.5, 3.0, -2.0]
Measure = Callable[[], Tensor]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def central_difference(measure: Measure, weight: Tensor, epsilon: float = 1e-5) -> Tensor:
    """The slope of a scalar along each number of `weight`, without automatic differentiation."""
    slope = torch.empty_like(weight)
    for index in range(weight.numel()):
        place, before = weight.data.view(-1), weight.data.view(-1)[index].item()
        place[index] = before + epsilon
        above = measure().item()
        place[index] = before - epsilon
        below = measure().item()
        place[index] = before
        slope.view(-1)[index] = (above - below) / (2 * epsilon)
    return slope


# the adversarial game


def test_the_logistic_losses_are_the_logarithms_of_the_probabilities() -> None:
    """Goodfellow et al. 2014, (1) and section 3: G maximises log D(G(z)) instead of minimising log(1 - D(G(z)))."""
    loss = ADVERSARIAL["logistic"]
    discriminator = mean([-math.log(sigmoid(real)) for real in REAL])
    discriminator += mean([-math.log(1 - sigmoid(fake)) for fake in FAKE])
    generator = mean([-math.log(sigmoid(fake)) for fake in FAKE])
    assert loss.discriminator(torch.tensor(REAL), torch.tensor(FAKE)).item() == pytest.approx(discriminator)
    assert loss.generator(torch.tensor(REAL), torch.tensor(FAKE)).item() == pytest.approx(generator)


def test_a_generator_that_loses_by_far_still_learns() -> None:
    """Goodfellow et al. 2014, section 3: log(1 - D) would saturate there; log D has a slope of 1."""
    fake = torch.tensor([-50.0], requires_grad=True)
    ADVERSARIAL["logistic"].generator(torch.tensor([50.0]), fake).backward()
    assert fake.grad is not None
    assert fake.grad.item() == pytest.approx(-1)


@pytest.mark.parametrize(("name", "discriminator"), [("logistic", 2 * LOG_2), ("hinge", 2.0), ("relativistic", LOG_2)])
def test_a_discriminator_that_tells_nothing_apart_costs_a_known_sum(
    name: AdversarialName, discriminator: float
) -> None:
    """Goodfellow et al. 2014, theorem 1: log 4 at the equilibrium."""
    zeros = torch.zeros(5)
    loss = ADVERSARIAL[name]
    assert loss.discriminator(zeros, zeros).item() == pytest.approx(discriminator)


def test_the_hinge_stops_at_the_margin_and_the_generators_loss_does_not() -> None:
    """Miyato et al. 2018, (16) and (17): relu(1 - D(x)) + relu(1 + D(G(z))), and -D(G(z))."""
    loss = ADVERSARIAL["hinge"]
    real, fake = torch.tensor(REAL, requires_grad=True), torch.tensor(FAKE, requires_grad=True)
    value = loss.discriminator(real, fake)
    assert value.item() == pytest.approx((0 + 1.5 + 1 + 0) / 4 + (0 + 1.5 + 4 + 0) / 4)
    of_real, of_fake = torch.autograd.grad(value, [real, fake])
    assert of_real.tolist() == [0, -0.25, -0.25, 0]
    assert of_fake.tolist() == [0, 0.25, 0.25, 0]
    assert loss.generator(real, fake).item() == -mean(FAKE)


def test_the_relativistic_losses_count_the_difference_within_a_pair() -> None:
    """Jolicoeur-Martineau 2019, RpGAN, with the f of Huang et al. 2024, (2): f(t) = -log(1 + exp(-t))."""
    loss = ADVERSARIAL["relativistic"]
    pairs = list(zip(REAL, FAKE, strict=True))
    assert loss.discriminator(torch.tensor(REAL), torch.tensor(FAKE)).item() == pytest.approx(
        mean([math.log(1 + math.exp(-(real - fake))) for real, fake in pairs])
    )
    assert loss.generator(torch.tensor(REAL), torch.tensor(FAKE)).item() == pytest.approx(
        mean([math.log(1 + math.exp(-(fake - real))) for real, fake in pairs])
    )


def test_a_relativistic_loss_changes_with_the_pairing_and_not_with_a_common_shift() -> None:
    """Jolicoeur-Martineau 2019: only differences count, so every row needs its own partner."""
    loss, real, fake = ADVERSARIAL["relativistic"], torch.tensor(REAL), torch.tensor(FAKE)
    together = loss.discriminator(real, fake)
    assert loss.discriminator(real + 7, fake + 7).item() == pytest.approx(together.item(), rel=1e-5)
    assert abs(loss.discriminator(real, fake.flip(0)) - together) > 0.01


@pytest.mark.parametrize("name", list(ADVERSARIAL))
@pytest.mark.parametrize("side", ["discriminator", "generator"])
def test_both_sides_of_the_game_pull_the_logits_apart(name: AdversarialName, side: str) -> None:
    """D raises what is real and lowers what is fake; G raises what is fake."""
    real, fake = torch.zeros(3, requires_grad=True), torch.zeros(3, requires_grad=True)
    loss = getattr(ADVERSARIAL[name], side)(real, fake)
    of_real, of_fake = torch.autograd.grad(loss, [real, fake], allow_unused=True)
    if side == "generator":
        assert (of_fake < 0).all()
    else:
        assert (of_real < 0).all()
        assert (of_fake > 0).all()


@pytest.mark.parametrize("name", list(ADVERSARIAL))
@pytest.mark.parametrize("side", ["discriminator", "generator"])
def test_the_slope_of_an_adversarial_loss_is_its_finite_difference(name: AdversarialName, side: str) -> None:
    real, fake = drawn(6).requires_grad_(), drawn(6, seed=1).requires_grad_()  # none within epsilon of a hinge
    loss = getattr(ADVERSARIAL[name], side)
    loss(real, fake).backward()
    for logit in (real, fake):
        expected = central_difference(lambda: loss(real, fake), logit)
        torch.testing.assert_close(torch.zeros(6).double() if logit.grad is None else logit.grad, expected)


# the gradient penalty (Mescheder et al. 2018)


def test_the_penalty_of_a_linear_discriminator_is_half_its_squared_weights() -> None:
    """Mescheder et al. 2018, (9): R1 = ½ E‖∇D(x)‖², and the slope of wᵀx is w everywhere."""
    weight, image = drawn(2 * 3 * 3), drawn(5, 2, 3, 3, seed=1).requires_grad_()
    penalty = gradient_penalty(image.flatten(1) @ weight, image)
    assert penalty.item() == pytest.approx(0.5 * weight.square().sum().item())


def test_the_penalty_of_a_quadratic_discriminator_is_half_the_mean_of_its_squared_slopes() -> None:
    """Mescheder et al. 2018, (9): the slope of ½ xᵀAx + bᵀx is Ax + b."""
    root, b, image = drawn(8, 8), drawn(8, seed=1), drawn(5, 2, 2, 2, seed=2).requires_grad_()
    a, x = root + root.T, image.flatten(1)
    penalty = gradient_penalty(0.5 * (x @ a * x).sum(1) + x @ b, image)
    assert penalty.item() == pytest.approx(0.5 * (x @ a + b).square().sum(1).mean().item())


@pytest.fixture
def judged() -> tuple[nn.Module, Tensor]:
    """A smooth discriminator of double precision and images for it."""
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3), nn.Softplus(), nn.Linear(3, 1), nn.Flatten(0)
    return nn.Sequential(*layers).double(), drawn(3, 1, 4, 4, seed=1)


def test_the_penalty_is_that_of_finite_differences_of_the_logits(judged: tuple[nn.Module, Tensor]) -> None:
    """Mescheder et al. 2018, (9)."""
    network, image = judged
    seen = image.clone().requires_grad_()
    penalty = gradient_penalty(network(seen), seen)
    with torch.no_grad():
        slope = central_difference(lambda: network(image).sum(), image)
    torch.testing.assert_close(penalty.detach(), 0.5 * slope.square().sum() / 3)


def test_the_penaltys_slope_in_the_weights_is_its_finite_difference(judged: tuple[nn.Module, Tensor]) -> None:
    """Mescheder et al. 2018, (9): learned from by double backward."""
    network, image = judged

    def penalty() -> Tensor:
        seen = image.clone().requires_grad_()
        return gradient_penalty(network(seen), seen)

    weights = [weight for weight in network.parameters() if weight.ndim > 1]
    assert len(weights) == 3
    for weight, slope in zip(weights, torch.autograd.grad(penalty(), weights), strict=True):
        assert slope.any()
        torch.testing.assert_close(slope, central_difference(penalty, weight), rtol=1e-5, atol=1e-8)


# the evidence lower bound (Kingma & Welling 2014)


def test_the_divergence_is_the_closed_form_of_appendix_b() -> None:
    """Kingma & Welling 2014, appendix B: ½ Σ (μ² + σ² - 1 - log σ²)."""
    variances = [[0.5, 2.0], [1.0, 3.0]]
    means = [[1.0, -2.0], [0.5, 0.0]]
    each = [
        sum(0.5 * (mu**2 + variance - 1 - math.log(variance)) for mu, variance in zip(*row, strict=True))
        for row in zip(means, variances, strict=True)
    ]
    assert divergence(torch.tensor(means), torch.tensor(variances).log()).item() == pytest.approx(mean(each))


def test_the_divergence_is_that_of_torch_distributions() -> None:
    mu, log_variance = drawn(7, 5), drawn(7, 5, seed=1)
    expected = kl_divergence(Normal(mu, (0.5 * log_variance).exp()), Normal(0.0, 1.0)).sum(1).mean()
    torch.testing.assert_close(divergence(mu, log_variance), expected)


def test_the_divergence_of_the_prior_from_itself_is_zero_and_all_others_are_above() -> None:
    """Kingma & Welling 2014, appendix B: at q = p the bound pays nothing."""
    assert divergence(torch.zeros(3, 5), torch.zeros(3, 5)).item() == 0
    for shift in (-0.1, 0.1):
        assert divergence(torch.full((3, 5), shift), torch.zeros(3, 5)) > 0
        assert divergence(torch.zeros(3, 5), torch.full((3, 5), shift)) > 0


@pytest.mark.parametrize("free_bits", [0.0, 0.3])
def test_the_divergences_slope_is_its_finite_difference(free_bits: float) -> None:
    mu, log_variance = drawn(4, 3).requires_grad_(), drawn(4, 3, seed=1).requires_grad_()
    divergence(mu, log_variance, free_bits).backward()
    for side in (mu, log_variance):
        torch.testing.assert_close(side.grad, central_difference(lambda: divergence(mu, log_variance, free_bits), side))


def test_free_bits_are_a_floor_under_each_latents_mean_and_without_pressure_below_it() -> None:
    """Kingma et al. 2016, appendix C.8: Σ max(λ, E KL), the mean taken over the batch first."""
    mu = torch.tensor([[0.0, 2.0], [0.4, 2.0]], requires_grad=True)  # latents of mean divergence 0.04 and 2
    zero = torch.zeros(2, 2)
    assert divergence(mu, zero).item() == pytest.approx(2.04)
    held = divergence(mu, zero, free_bits=0.06)  # an image alone is above it: 0.08
    assert held.item() == pytest.approx(2.06)
    (slope,) = torch.autograd.grad(held, mu)
    assert slope.tolist() == [[0, 1], [0, 1]]


def test_free_bits_below_every_latent_change_nothing() -> None:
    mu = drawn(4, 3) + 3
    torch.testing.assert_close(divergence(mu, torch.zeros(4, 3), 0.5), divergence(mu, torch.zeros(4, 3)))


# the likelihoods


def scaled(name: LikelihoodName, reconstruction: Tensor, image: Tensor, factor: float = 1.0) -> Tensor:
    """-log p of torch.distributions, summed over pixels, mean over images, at a factor times the optimal scale."""
    error = image - reconstruction
    if name == "gaussian":
        pixel = Normal(reconstruction, factor * error.square().mean().sqrt())  # σ² = MSE
    else:
        pixel = Laplace(reconstruction, factor * error.abs().mean())
    return -pixel.log_prob(image).sum((1, 2, 3)).mean()


@pytest.mark.parametrize("name", ["laplace", "gaussian"])
def test_a_likelihood_is_that_of_its_distribution_at_the_optimal_scale(name: LikelihoodName) -> None:
    """Rybkin et al. 2021, (8), and the same of the Laplace distribution."""
    image, reconstruction = drawn(4, 2, 3, 3), drawn(4, 2, 3, 3, seed=1)
    torch.testing.assert_close(LIKELIHOODS[name](reconstruction, image), scaled(name, reconstruction, image))


@pytest.mark.parametrize("factor", [0.5, 0.9, 0.99, 1.01, 1.1, 2.0])
@pytest.mark.parametrize("name", ["laplace", "gaussian"])
def test_no_other_scale_makes_the_images_likelier(name: LikelihoodName, factor: float) -> None:
    """Rybkin et al. 2021, (8): the optimum is analytic."""
    image, reconstruction = drawn(4, 2, 3, 3), drawn(4, 2, 3, 3, seed=1)
    assert LIKELIHOODS[name](reconstruction, image) < scaled(name, reconstruction, image, factor)


def test_a_blur_over_two_places_of_an_edge_is_worth_something_to_the_gaussian_alone() -> None:
    image = torch.tensor([[[[-1.0, -1.0, 1.0, 1.0]]], [[[-1.0, 1.0, 1.0, 1.0]]]])
    sharp, blur = image[1:].repeat(2, 1, 1, 1), image.mean(0, keepdim=True).repeat(2, 1, 1, 1)
    assert LIKELIHOODS["laplace"](sharp, image) == LIKELIHOODS["laplace"](blur, image)
    assert LIKELIHOODS["gaussian"](sharp, image) > LIKELIHOODS["gaussian"](blur, image) + 1


@pytest.mark.parametrize("name", ["laplace", "gaussian"])
def test_a_perfect_reconstruction_has_a_finite_likelihood(name: LikelihoodName) -> None:
    image = drawn(2, 1, 4, 4)
    reconstruction = image.clone().requires_grad_()
    value = LIKELIHOODS[name](reconstruction, image)
    value.backward()
    assert reconstruction.grad is not None
    assert value.isfinite()
    assert reconstruction.grad.isfinite().all()


def test_the_bernoulli_likelihood_is_the_sum_of_its_pixels() -> None:
    """Kingma & Welling 2014, appendix C.1: Σ x log p + (1 - x) log(1 - p), a brightness as a probability."""
    image = torch.tensor([[[[-1.0, 1.0]]], [[[0.0, -0.5]]]])  # brightness 0, 1; ½, ¼
    reconstruction = torch.tensor([[[[-0.5, 0.5]]], [[[0.0, 0.5]]]])  # probability ¼, ¾; ½, ¾
    first = -math.log(0.75) - math.log(0.75)
    second = -math.log(0.5) - (0.25 * math.log(0.75) + 0.75 * math.log(0.25))
    assert bernoulli_likelihood(reconstruction, image).item() == pytest.approx((first + second) / 2)


def test_a_saturated_pixel_of_the_wrong_kind_costs_the_logarithm_of_half_a_level() -> None:
    value = bernoulli_likelihood(torch.tensor([[[[-1.0]]]]), torch.tensor([[[[1.0]]]]))
    assert value.item() == pytest.approx(math.log(510))


@pytest.mark.parametrize("name", list(LIKELIHOODS))
def test_the_slope_of_a_likelihood_is_its_finite_difference(name: LikelihoodName) -> None:
    likelihood = LIKELIHOODS[name]
    image, reconstruction = drawn(2, 1, 3, 3).tanh(), drawn(2, 1, 3, 3, seed=1).tanh().requires_grad_()
    likelihood(reconstruction, image).backward()
    expected = central_difference(lambda: likelihood(reconstruction, image), reconstruction)
    torch.testing.assert_close(reconstruction.grad, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", list(LIKELIHOODS))
def test_a_likelihood_is_per_image_and_grows_with_its_pixels(name: LikelihoodName) -> None:
    likelihood = LIKELIHOODS[name]
    image, reconstruction = drawn(2, 1, 3, 3).tanh(), drawn(2, 1, 3, 3, seed=1).tanh()
    one = likelihood(reconstruction, image)
    torch.testing.assert_close(likelihood(reconstruction.repeat(3, 1, 1, 1), image.repeat(3, 1, 1, 1)), one)
    torch.testing.assert_close(likelihood(reconstruction.repeat(1, 1, 2, 2), image.repeat(1, 1, 2, 2)), 4 * one)
