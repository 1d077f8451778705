"""Label maps on the grid of a feature map."""

import torch
import torch.nn.functional as F
from torch import Tensor


def nearest(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Label map int64 [B, H, W] on the grid `size` (h, w), as torch's `interpolate(mode="nearest")` takes it.

    Where h divides H and w divides W it is a view of every so many rows and columns.
    """
    height, width = labels.shape[1:]
    if height % size[0] == 0 and width % size[1] == 0:
        return labels[:, :: height // size[0], :: width // size[1]]
    rows, columns = _positions(height, size[0], labels.device), _positions(width, size[1], labels.device)
    return labels[:, rows[:, None], columns]


def _positions(length: int, number: int, device: torch.device) -> Tensor:
    """Which of `length` elements `interpolate` takes for `number`; it rounds their quotient to float32."""
    every = torch.arange(length, dtype=torch.float32, device=device)
    return F.interpolate(every[None, None], number, mode="nearest")[0, 0].long()
