"""Projection heads: pixel-wise maps from encoder features [B, C, H, W] to raw embeddings [B, dim, H, W].

They are used in training only. Nothing is normalised here: that is the loss's business.
"""

from torch import nn


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
