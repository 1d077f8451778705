"""Label maps on the grid of a feature map."""

import torch.nn.functional as F
from torch import Tensor


def nearest(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Label map [B, H, W] on the grid `size` (h, w), as torch's `interpolate(mode="nearest")` takes it; int64."""
    return F.interpolate(labels[:, None].float(), size=size, mode="nearest")[:, 0].long()
