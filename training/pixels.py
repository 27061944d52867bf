"""uint8 levels in, network values out, and back: the one scaling between pictures and networks."""

import torch
from torch import Tensor


def to_unit(images: Tensor) -> Tensor:
    """uint8 [N, H, W, C] -> float32 [N, C, H, W] in [-1, 1]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def to_levels(images: Tensor) -> Tensor:
    """float32 [N, C, H, W] in [-1, 1] -> uint8 [N, H, W, C], rounded to the nearest. The served graph ends in it."""
    return images.add(1).mul(127.5).round().clamp(0, 255).permute(0, 2, 3, 1).to(torch.uint8)
