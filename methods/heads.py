"""Projection heads: pixel-wise maps from encoder features [B, C, H, W] to raw embeddings [B, dim, H, W].

They are used in training only. They do not normalize their output; losses do where they need it.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def relu_norm_head(channels: int, dim: int) -> nn.Sequential:
    """1x1 convolution, ReLU, batch norm, 1x1 convolution: one per scale (Pissas et al., ECCV 2022; Contextrast).

    With HRNet-W48's four branches and dim 256 they have 382,624 parameters, as table XV of Contextrast++ counts.
    """
    return nn.Sequential(
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.ReLU(),
        nn.BatchNorm2d(channels),
        nn.Conv2d(channels, dim, 1),
    )


def norm_relu_head(channels: int, dim: int) -> nn.Sequential:
    """1x1 convolution, batch norm, ReLU, 1x1 convolution (Wang et al., ICCV 2021)."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 1, bias=False),  # batch norm has a bias of its own
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, dim, 1),
    )


def chosen_layers(layers: Sequence[int] | None, number: int) -> tuple[int, ...]:
    """The option `layers` as indices of `number` encoder maps; None: all of them."""
    return tuple(range(number) if layers is None else layers)


def concatenated(features: Sequence[Tensor], layers: Sequence[int]) -> Tensor:
    """The chosen encoder maps [B, C_i, H_i, W_i], upsampled to the finest of them: [B, sum of C_i, H, W]."""
    used = [features[i] for i in layers]
    size = max((feature.shape[-2:] for feature in used), key=lambda shape: shape.numel())
    return torch.cat([F.interpolate(feature, size, mode="bilinear", align_corners=True) for feature in used], dim=1)
