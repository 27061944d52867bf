"""DiffAugment (Zhao et al. 2020) alters every image in its own way, within its bounds, and lets gradients through."""

import numpy as np
import pytest
import torch
from torch import Tensor

from training.augment import HOLE, SHIFT, augment

BLACK, GREY = -1.0, 0.0  # what comes in from outside, and the hole


def plain(count: int, size: int = 32, level: float = 0.25) -> Tensor:
    return torch.full((count, 1, size, size), level)


@pytest.mark.parametrize("shape", [(5, 1, 28, 28), (3, 3, 32, 32), (2, 3, 64, 64)])
def test_the_shape_stays(shape: tuple[int, ...]) -> None:
    altered = augment(torch.rand(shape) * 2 - 1)
    assert (altered.shape, altered.dtype) == (shape, torch.float32)


def test_every_image_draws_its_own() -> None:
    torch.manual_seed(0)
    altered = augment((torch.rand(1, 1, 32, 32) * 2 - 1).repeat(8, 1, 1, 1))
    assert len({image.numpy().tobytes() for image in altered}) == 8


def test_the_same_noise_alters_alike() -> None:
    image = torch.rand(4, 3, 32, 32)
    torch.manual_seed(0)
    first = augment(image)
    torch.manual_seed(0)
    assert torch.equal(augment(image), first)


def test_the_light_of_a_plain_image_changes_by_a_half_at_most_and_in_both_directions() -> None:
    torch.manual_seed(0)
    change = augment(plain(500)).flatten(1) - 0.25
    kept = [image[(image != BLACK - 0.25) & (image != GREY - 0.25)] for image in change]
    light = torch.stack([image.mean() for image in kept])
    assert max(image.std().item() for image in kept) < 1e-6  # all pixels of an image alike: contrast has nothing to do
    assert -0.5 <= light.min() < -0.45
    assert 0.45 < light.max() <= 0.5


def test_the_contrast_changes_by_a_factor_of_a_half_to_one_and_a_half() -> None:
    torch.manual_seed(0)
    image = torch.zeros(500, 1, 32, 32)
    image[:, :, :, ::2] = 0.5  # stripes, seen where neither hole nor border is
    rows = augment(image)[:, 0]
    steps = (rows[:, :, 1:] - rows[:, :, :-1]).abs().flatten(1)
    contrast = steps.median(1).values / 0.5
    assert 0.5 <= contrast.min() < 0.55
    assert 1.45 < contrast.max() <= 1.5


@pytest.mark.parametrize("size", [28, 32, 64])
def test_the_shift_is_an_eighth_at_most_in_every_direction(size: int) -> None:
    """Zhao et al. 2020, section 3.2: within [-1/8, 1/8] of the size, padded."""
    torch.manual_seed(0)
    inside = (augment(plain(400, size)) != BLACK)[:, 0].numpy()
    rows, columns = np.any(inside, axis=2), np.any(inside, axis=1)
    borders = {  # the first that is inside, from every side
        "top": rows.argmax(1),
        "bottom": np.flip(rows, 1).argmax(1),
        "left": columns.argmax(1),
        "right": np.flip(columns, 1).argmax(1),
    }
    assert {side: width.max() for side, width in borders.items()} == dict.fromkeys(borders, round(size * SHIFT))
    assert all((borders[one] * borders[other] == 0).all() for one, other in (("top", "bottom"), ("left", "right")))


@pytest.mark.parametrize("size", [28, 32, 64])
def test_the_hole_is_one_square_of_half_the_side_wherever_it_fits(size: int) -> None:
    """Zhao et al. 2020, section 3.2: a random square mask of half the size, cut off at the border."""
    torch.manual_seed(0)
    holes = (augment(plain(400, size)) == GREY)[:, 0].numpy()
    rows, columns = np.any(holes, axis=2), np.any(holes, axis=1)
    assert (holes.sum((1, 2)) == rows.sum(1) * columns.sum(1)).all()  # a rectangle
    for side in (rows, columns):
        fits = ~(side[:, 0] | side[:, -1])
        assert set(side.sum(1)[fits]) == {size * HOLE}
        assert (side.sum(1).min(), side.sum(1).max()) == (size * HOLE / 2, size * HOLE)  # at the border, half of it
    assert holes.any(0).all()


def test_gradients_are_those_of_finite_differences() -> None:
    """Zhao et al. 2020, section 3.2: differentiable, so that the generator is trained through it."""

    def seeded(image: Tensor) -> Tensor:
        torch.manual_seed(1)
        return augment(image)

    image = torch.rand(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(seeded, image)
    (slope,) = torch.autograd.grad(seeded(image).square().sum(), image)
    assert (slope != 0).float().mean() > 0.5
