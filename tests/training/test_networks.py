"""Every network of every shape keeps the shapes and ranges that its docstring states."""

from itertools import product
from typing import Any

import pytest
import torch

from training.config import ModelSpec
from training.networks import Discriminator, Encoder, Generator

SHAPES = list(product((28, 32, 64), (1, 3), ((), ("a", "b", "c"))))


def specify(size: Any, channels: Any, class_names: tuple[str, ...]) -> ModelSpec:
    kind = "cgan" if class_names else "gan"
    return ModelSpec(kind=kind, latent=6, size=size, channels=channels, class_names=class_names, width=4)


@pytest.mark.parametrize(("size", "channels", "class_names"), SHAPES)
def test_latents_become_images_from_minus_one_to_one(size: int, channels: int, class_names: tuple[str, ...]) -> None:
    spec = specify(size, channels, class_names)
    label = torch.tensor([0, 1, 2, 0, 1]) if class_names else None
    image = Generator(spec).eval()(1e4 * torch.randn(5, 6), label)
    assert image.shape == (5, channels, size, size)
    assert image.dtype == torch.float32
    assert image.abs().max() == 1  # latents this far out saturate, and go no further


@pytest.mark.parametrize(("size", "channels", "class_names"), SHAPES)
def test_images_become_logits_and_posteriors(size: int, channels: int, class_names: tuple[str, ...]) -> None:
    spec = specify(size, channels, class_names)
    label = torch.tensor([0, 1, 2, 0, 1]) if class_names else None
    image = torch.rand(5, channels, size, size) * 2 - 1
    assert Discriminator(spec, 0.3)(image, label).shape == (5,)
    assert [side.shape for side in Encoder(spec)(image, label)] == [(5, 6), (5, 6)]


@pytest.mark.parametrize("network", ["generator", "discriminator", "encoder"])
def test_the_label_makes_a_difference(network: str) -> None:
    torch.manual_seed(0)
    spec = specify(28, 1, ("a", "b"))
    first, second = torch.zeros(3, dtype=torch.int64), torch.ones(3, dtype=torch.int64)
    if network == "generator":
        model, given = Generator(spec).eval(), torch.randn(3, 6)
    else:
        model = (Discriminator(spec, 0.0) if network == "discriminator" else Encoder(spec)).eval()
        given = torch.rand(3, 1, 28, 28)
    one, other = (torch.stack(list(model(given, label))) for label in (first, second))
    assert not torch.isclose(one, other).all()
