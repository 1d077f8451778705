"""Projection heads: pixel-wise maps from encoder features [B, C, H, W] to raw embeddings [B, dim, H, W].

They are used only in training. They do not normalise their output; losses do if necessary.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.method import Method


def relu_norm_head(channels: int, dim: int) -> nn.Sequential:
    """1x1 convolution, ReLU, batch norm, 1x1 convolution: one head per scale (Pissas et al., ECCV 2022; Contextrast).

    With HRNet-W48's four branches and dim 256 they have 382,624 parameters, as in table XV of Contextrast++.
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


class ProjectingMethod(Method):
    """A method with one embedding: a projection of the chosen encoder maps, upsampled to the finest and concatenated.

    Its options are LayerOptions with `dim`, the channels of the embedding.
    """

    options: Any

    def __init__(self, channels: Sequence[int], num_classes: int, ignore_index: int = 255, **options: Any) -> None:
        super().__init__(channels, num_classes, ignore_index, **options)
        layers = self.options.layers
        self.layers = tuple(range(len(channels)) if layers is None else layers)
        self.head = self.make_head(sum(channels[i] for i in self.layers), self.options.dim)

    def make_head(self, channels: int, dim: int) -> nn.Module:
        """The projection."""
        return norm_relu_head(channels, dim)

    def embed(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Encoder maps [B, C_i, H_i, W_i] -> one map [B, dim, H, W] on the grid of the finest one used."""
        used = [features[i] for i in self.layers]
        size = max((feature.shape[-2:] for feature in used), key=lambda shape: shape.numel())
        resized = [F.interpolate(feature, size, mode="bilinear", align_corners=True) for feature in used]
        return [self.head(torch.cat(resized, dim=1))]
