"""Latents (and labels) in, images out; images in, logits or posteriors out. Conditional iff there are classes."""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from training.config import ModelSpec, TrainConfig

EMBEDDING = 32  # size of the label embedding beside the latent


def _pyramid(spec: ModelSpec) -> tuple[int, list[int]]:
    """The coarsest side in pixels, and the channels from there to full size (28 -> 7, 32 -> 8, 64 -> 8)."""
    doublings = 3 if spec.size == 64 else 2
    return spec.size >> doublings, [spec.width << level for level in range(doublings, -1, -1)]


class Generator(nn.Module):
    """z float32 [N, latent] (and label int64 [N]) -> image float32 [N, C, H, W] in [-1, 1].

    A DCGAN generator (Radford et al. 2016) with the label embedding concatenated to z (Mirza & Osindero 2014). The
    last 3x3 convolution at full resolution matters: without it the CGAN collapsed within classes (recall 0.08).
    """

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.base, channels = _pyramid(spec)
        self.embedding = nn.Embedding(spec.classes, EMBEDDING) if spec.classes else None
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, std=0.5)
        inputs = spec.latent + (EMBEDDING if spec.classes else 0)
        self.project = nn.Linear(inputs, channels[0] * self.base**2)
        blocks: list[nn.Module] = [nn.BatchNorm2d(channels[0]), nn.ReLU(inplace=True)]
        for coarse, fine in pairwise(channels):
            up = nn.ConvTranspose2d(coarse, fine, 4, stride=2, padding=1, bias=False)
            blocks += [up, nn.BatchNorm2d(fine), nn.ReLU(inplace=True)]
        self.blocks = nn.Sequential(*blocks, nn.Conv2d(channels[-1], spec.channels, 3, padding=1), nn.Tanh())

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if self.embedding is not None:
            z = torch.cat([z, self.embedding(label)], dim=1)
        coarse = self.project(z).unflatten(1, (-1, self.base, self.base))
        return self.blocks(coarse.contiguous(memory_format=torch.channels_last))


class _Features(nn.Sequential):
    """image [N, C, H, W] -> features [N, F]: strided convolutions down to 3x3 (28 px) or 4x4, flattened.

    The first convolution already halves the side: a CGAN step takes 61 instead of 108 ms (docs/decisions.md).
    """

    def __init__(self, spec: ModelSpec, normalized: bool = True) -> None:
        base, channels = _pyramid(spec)
        channels = channels[::-1]  # from full size inwards
        blocks: list[nn.Module] = [nn.Conv2d(spec.channels, channels[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for fine, coarse in pairwise(channels):
            blocks.append(nn.Conv2d(fine, coarse, 4, stride=2, padding=1, bias=not normalized))
            blocks += [nn.BatchNorm2d(coarse)] if normalized else []
            blocks.append(nn.LeakyReLU(0.2))
        super().__init__(*blocks, nn.Flatten())
        self.width = channels[-1] * (base // 2) ** 2


class Discriminator(nn.Module):
    """image [N, C, H, W] (and label [N]) -> logit [N]; the label enters by projection (Miyato & Koyama 2018)."""

    def __init__(self, spec: ModelSpec, config: TrainConfig) -> None:
        super().__init__()
        self.features = _Features(spec, config.normalization == "batch")
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(self.features.width, 1)
        self.projection = nn.Embedding(spec.classes, self.features.width) if spec.classes else None
        if self.projection is not None:
            nn.init.normal_(self.projection.weight, std=0.02)
        if config.spectral_norm:
            for layer in [*self.features, self.head, self.projection]:
                if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding):
                    spectral_norm(layer)

    def forward(self, image: Tensor, label: Tensor | None = None) -> Tensor:
        features = self.dropout(self.features(image))
        logit = self.head(features).squeeze(1)
        if self.projection is not None:
            logit = logit + (self.projection(label) * features).sum(1)
        return logit


class Encoder(nn.Module):
    """image [N, C, H, W] (and label [N]) -> mean and log variance of q(z | image, label), each [N, latent]."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.features = _Features(spec)
        self.embedding = nn.Embedding(spec.classes, EMBEDDING) if spec.classes else None
        inputs = self.features.width + (EMBEDDING if spec.classes else 0)
        self.head = nn.Linear(inputs, 2 * spec.latent)

    def forward(self, image: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        features = self.features(image)
        if self.embedding is not None:
            features = torch.cat([features, self.embedding(label)], dim=1)
        mean, log_variance = self.head(features).chunk(2, dim=1)
        return mean, log_variance
