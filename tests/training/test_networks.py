"""Every network of every shape keeps the shapes and ranges that its docstring states, and every knob is wired."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from training.config import ModelSpec, TrainConfig
from training.networks import Discriminator, Encoder, Generator

SHAPES = list(product((28, 32, 64), (1, 3), ((), ("a", "b", "c"))))


def specify(size: Any, channels: Any, class_names: tuple[str, ...]) -> ModelSpec:
    kind = "cgan" if class_names else "gan"
    return ModelSpec(kind=kind, latent=6, size=size, channels=channels, class_names=class_names, width=4)


def discriminator(class_names: tuple[str, ...] = (), **settings: object) -> Discriminator:
    torch.manual_seed(0)
    return Discriminator(
        specify(28, 1, class_names), TrainConfig.model_validate({"dropout": 0.0, "spectral_norm": False} | settings)
    )


def noise(count: int = 5) -> Tensor:
    return torch.rand(count, 1, 28, 28, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize(("size", "channels", "class_names"), SHAPES)
def test_latents_become_images_from_minus_one_to_one(size: int, channels: int, class_names: tuple[str, ...]) -> None:
    spec = specify(size, channels, class_names)
    label = torch.tensor([0, 1, 2, 0, 1]) if class_names else None
    image = Generator(spec).eval()(1e4 * torch.randn(5, 6), label)
    assert image.shape == (5, channels, size, size)
    assert image.dtype == torch.float32
    assert image.abs().max() == 1  # latents this far out saturate, and go no further


@pytest.mark.parametrize(("size", "channels", "class_names"), SHAPES)
@pytest.mark.parametrize("recipe", ["default", "sn-hinge"])
def test_images_become_logits(size: int, channels: int, class_names: tuple[str, ...], recipe: Any) -> None:
    label = torch.tensor([0, 1, 2, 0, 1]) if class_names else None
    network = Discriminator(specify(size, channels, class_names), TrainConfig(recipe=recipe))
    assert network(torch.rand(5, channels, size, size) * 2 - 1, label).shape == (5,)


@pytest.mark.parametrize(("size", "channels", "class_names"), SHAPES)
def test_images_become_posteriors(size: int, channels: int, class_names: tuple[str, ...]) -> None:
    label = torch.tensor([0, 1, 2, 0, 1]) if class_names else None
    network = Encoder(specify(size, channels, class_names))
    assert [side.shape for side in network(torch.rand(5, channels, size, size), label)] == [(5, 6), (5, 6)]


@pytest.mark.parametrize("network", ["generator", "discriminator", "encoder"])
def test_the_label_makes_a_difference(network: str) -> None:
    torch.manual_seed(0)
    spec = specify(28, 1, ("a", "b"))
    first, second = torch.zeros(3, dtype=torch.int64), torch.ones(3, dtype=torch.int64)
    if network == "generator":
        model, given = Generator(spec).eval(), torch.randn(3, 6)
    else:
        model = (discriminator(("a", "b")) if network == "discriminator" else Encoder(spec)).eval()
        given = torch.rand(3, 1, 28, 28)
    one, other = (torch.stack(list(model(given, label))) for label in (first, second))
    assert not torch.isclose(one, other).all()


def test_the_discriminator_judges_pairs_of_image_and_label() -> None:
    """Mirza & Osindero 2014: the same images under each other's labels are other pairs."""
    network, label = discriminator(("a", "b", "c")).eval(), torch.tensor([0, 1, 2, 0, 1])
    logit = network(noise(), label)
    assert not torch.isclose(network(noise(), label.roll(1)), logit).any()
    torch.testing.assert_close(network(noise().flip(0), label.flip(0)), logit.flip(0))


def test_the_label_enters_as_a_product_with_the_features() -> None:
    """Miyato & Koyama 2018, (3): f(x, y) = yᵀV φ(x) + ψ(φ(x))."""
    network, label = discriminator(("a", "b", "c")).eval(), torch.tensor([2, 0, 1, 1, 0])
    assert network.projection is not None
    features = network.features(noise())
    projected = torch.stack([network.projection.weight[y] @ row for y, row in zip(label, features, strict=True)])
    torch.testing.assert_close(network(noise(), label), network.head(features)[:, 0] + projected)


def largest_singular_values(network: nn.Module) -> list[float]:
    weights = [
        layer.weight for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding)
    ]  # the weights as they are applied
    return [torch.linalg.matrix_norm(weight.detach().flatten(1), 2).item() for weight in weights]


def test_spectral_norm_makes_every_largest_singular_value_one() -> None:
    """Miyato et al. 2018, (8): also of the head and of the projection, which make the logit."""
    network = discriminator(("a", "b", "c"), spectral_norm=True)
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(3)
        for _ in range(30):  # of the power method, one in each pass of training
            network(noise(), torch.tensor([0, 1, 2, 0, 1]))
    found = largest_singular_values(network)
    assert len(found) == 5
    assert found == pytest.approx([1] * 5, abs=0.01)


def test_without_spectral_norm_the_weights_are_as_they_are() -> None:
    before = largest_singular_values(discriminator(("a", "b", "c")))
    assert max(abs(value - 1) for value in before) > 0.1


@pytest.mark.parametrize(("normalization", "layers"), [("batch", 2), ("none", 0)])
def test_normalization_is_batch_or_none(normalization: str, layers: int) -> None:
    network = discriminator(normalization=normalization)
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in network.modules()) == layers


@pytest.mark.parametrize("normalization", ["batch", "none"])
def test_only_batch_normalization_makes_a_verdict_depend_on_the_batch(normalization: str) -> None:
    network = discriminator(normalization=normalization)
    alone, among = network(noise()[:2]), network(noise())[:2]
    assert torch.allclose(alone, among, atol=1e-5) == (normalization == "none")


@pytest.mark.parametrize("share", [0.0, 0.25, 0.75])
def test_dropout_hides_its_share_of_the_features_from_the_head_in_training_only(share: float) -> None:
    network = discriminator(dropout=share, normalization="none")
    seen: list[Tensor] = []
    network.head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    network(noise(64))
    network.eval()(noise(64))
    hidden = [(features == 0).float().mean().item() for features in seen]
    assert hidden == pytest.approx([share, 0], abs=0.02)


def test_the_width_is_the_channels_of_the_last_hidden_layer_and_doubles_inwards() -> None:
    spec = specify(64, 3, ()).model_copy(update={"width": 6})
    maps = [layer for layer in Generator(spec).modules() if isinstance(layer, nn.BatchNorm2d)]
    assert [layer.num_features for layer in maps] == [48, 24, 12, 6]
