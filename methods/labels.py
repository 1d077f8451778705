"""Label maps on the grid of a feature map."""

import torch
import torch.nn.functional as F
from torch import Tensor


def nearest(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """The label map int64 [B, H, W] on the grid `size` (h, w), as with torch's `interpolate(mode="nearest")`.

    If h divides H and w divides W, it is a strided view.
    """
    height, width = labels.shape[1:]
    if height % size[0] == 0 and width % size[1] == 0:
        return labels[:, :: height // size[0], :: width // size[1]]
    rows, columns = _positions(height, size[0], labels.device), _positions(width, size[1], labels.device)
    return labels[:, rows[:, None], columns]


def _positions(length: int, number: int, device: torch.device) -> Tensor:
    """The indices that `interpolate` uses to resize `length` elements to `number`, with its float32 rounding."""
    every = torch.arange(length, dtype=torch.float32, device=device)
    return F.interpolate(every[None, None], number, mode="nearest")[0, 0].long()
