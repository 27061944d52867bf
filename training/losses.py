"""Logits, posteriors and reconstructions in, scalar losses out: the papers' formulas, one function each.

Logits are float32 [N] (high = real), images float32 [N, C, H, W] in [-1, 1], all means are over the batch, in nats.
"""

from collections.abc import Callable
from math import pi
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

AdversarialName = Literal["logistic", "hinge", "relativistic"]
LikelihoodName = Literal["laplace", "gaussian", "bernoulli"]


class AdversarialLoss(NamedTuple):
    """Both sides of the game: (real logits, fake logits) -> scalar. Row i of both has the same label."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]


ADVERSARIAL: dict[AdversarialName, AdversarialLoss] = {
    # Goodfellow et al. 2014, non-saturating: -log D(x) - log(1 - D(G(z))) and -log D(G(z)), D = sigmoid(logit)
    "logistic": AdversarialLoss(
        lambda real, fake: F.softplus(-real).mean() + F.softplus(fake).mean(),
        lambda real, fake: F.softplus(-fake).mean(),
    ),
    # Lim & Ye 2017, Miyato et al. 2018
    "hinge": AdversarialLoss(
        lambda real, fake: F.relu(1 - real).mean() + F.relu(1 + fake).mean(),
        lambda real, fake: -fake.mean(),
    ),
    # RpGAN, Jolicoeur-Martineau 2019, as in Huang et al. 2024: only the difference within a pair counts
    "relativistic": AdversarialLoss(
        lambda real, fake: F.softplus(fake - real).mean(),
        lambda real, fake: F.softplus(real - fake).mean(),
    ),
}


def gradient_penalty(logit: Tensor, image: Tensor) -> Tensor:
    """½ E‖∇ₓ D(x)‖², by double backward: R1 on real images, R2 on generated ones (Mescheder et al. 2018).

    `image` must require gradients and `logit` come from it, each row from its own image.
    """
    (slope,) = torch.autograd.grad(logit.sum(), image, create_graph=True)
    return 0.5 * slope.square().sum((1, 2, 3)).mean()


def divergence(mean: Tensor, log_variance: Tensor, free_bits: float = 0.0) -> Tensor:
    """E KL(N(μ, σ²) ‖ N(0, 1)) = E ½ Σ (μ² + σ² - 1 - log σ²), [N, latent] -> scalar (Kingma & Welling 2014, B).

    `free_bits` λ in nats: each latent's mean over the batch counts as at least λ, so the first λ nats of it are free of
    pressure (Kingma et al. 2016, C.8). 0 leaves the divergence as it is, which is never below 0.
    """
    each = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean(0)
    return (each.clamp(min=free_bits) if free_bits else each).sum()


def gaussian_likelihood(reconstruction: Tensor, image: Tensor) -> Tensor:
    """E -log p(x|z), summed over the D pixels, of a Gaussian whose one variance is the batch's optimum.

    With σ² = MSE it is D/2 (log 2πσ² + 1) (σ-VAE, Rybkin et al. 2021): the weight of the pixels against the divergence
    needs no tuning, and grows as the pictures get better.
    """
    squared = (reconstruction - image).square().mean()
    return 0.5 * image[0].numel() * ((2 * pi * squared.clamp(min=1e-10)).log() + 1)


def laplace_likelihood(reconstruction: Tensor, image: Tensor) -> Tensor:
    """E -log p(x|z), summed over the D pixels, of a Laplace distribution whose one scale is the batch's optimum.

    With b = E|x - x̂| it is D (log 2b + 1): the same thought as σ-VAE for absolute errors. Where an edge may lie in one
    of two places a blur over both costs as much as a guess, so pictures stay sharper.
    """
    absolute = (reconstruction - image).abs().mean()
    return image[0].numel() * ((2 * absolute.clamp(min=1e-5)).log() + 1)


def bernoulli_likelihood(reconstruction: Tensor, image: Tensor) -> Tensor:
    """E -log p(x|z), summed over the pixels, a brightness in [0, 1] being a probability (Kingma & Welling 2014).

    Pictures come in [-1, 1]; -1 and 1 of a reconstruction are held off by ½ of 1/255, where the logarithm ends.
    """
    p = ((reconstruction + 1) / 2).clamp(0.5 / 255, 1 - 0.5 / 255)
    return F.binary_cross_entropy(p, (image + 1) / 2, reduction="sum") / len(image)


LIKELIHOODS: dict[LikelihoodName, Callable[[Tensor, Tensor], Tensor]] = {
    "laplace": laplace_likelihood,
    "gaussian": gaussian_likelihood,
    "bernoulli": bernoulli_likelihood,
}
