"""Images in, the same images shifted, cut out and relit, differentiably (after DiffAugment, Zhao et al. 2020).

A discriminator that sees real and generated images only so altered cannot learn a small set by heart; and since the
change lets gradients through, the generator still learns to make unaltered ones.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

SHIFT = 1 / 8  # of the side, at most, each way
HOLE = 1 / 2  # side of the square that is cut out, of the image's side


def augment(image: Tensor) -> Tensor:
    """float32 [N, C, H, W] in [-1, 1] -> the same shape; every image draws its own light, shift and hole."""
    return _cut(_shift(_relit(image)))


def _relit(image: Tensor) -> Tensor:
    """Brightness by up to ± ½, contrast by a factor of ½ to 1½."""
    brightness, contrast = torch.rand(2, len(image), 1, 1, 1, device=image.device) - 0.5
    mean = image.mean((1, 2, 3), keepdim=True)
    return (image - mean) * (contrast + 1) + mean + brightness


def _shift(image: Tensor) -> Tensor:
    """By up to SHIFT in both directions; what comes in from outside is black."""
    count, _, height, width = image.shape
    most = round(height * SHIFT)
    down, right = torch.randint(-most, most + 1, (2, count, 1), device=image.device)
    rows = torch.arange(height, device=image.device) + most + down
    columns = torch.arange(width, device=image.device) + most + right
    padded = F.pad(image, (most, most, most, most), value=-1.0)
    each = torch.arange(count, device=image.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _cut(image: Tensor) -> Tensor:
    """A square hole of mean grey around a random place."""
    count, _, height, width = image.shape
    half = round(height * HOLE) // 2
    down = torch.randint(0, height + 1, (count, 1), device=image.device)
    right = torch.randint(0, width + 1, (count, 1), device=image.device)
    rows = _near(height, down, half)
    columns = _near(width, right, half)
    hole = rows[:, None, :, None] & columns[:, None, None, :]
    return image.masked_fill(hole, 0.0)


def _near(side: int, middle: Tensor, half: int) -> Tensor:
    """bool [N, side]: the 2 half places around each middle [N, 1]."""
    away = torch.arange(side, device=middle.device) - middle
    return (-half <= away) & (away < half)
