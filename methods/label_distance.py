"""Exact Euclidean distance from every pixel to the nearest pixel with another mark, for all marks in one pass."""

import torch
from torch import Tensor

FAR = 2**15  # longer than any side of a map; the square fits into 32 bits
NO_EDGE = FAR**2  # the squared distance where a map has a single mark


def squared_distance_to_other_mark(marks: Tensor, wanted: Tensor | None = None) -> Tensor:
    """Squared distance, in pixels, from each pixel to the nearest pixel of its map whose mark differs.

    marks   int [B, H, W], sides below 2**15
    wanted  bool [B, H, W]: the pixels whose distance is needed (default: all). Elsewhere the result is an upper bound.
    Returns int32 [B, H, W]: 1 next to another mark, NO_EDGE where the map has one mark only. The frame is no edge.

    With g(y, x) the distance along the row and h(y, x) the distance along the column to another mark, the squared
    distance is the least of h^2 and of dy^2 + g(y + dy, x)^2 over all dy. (Where the mark at (y + dy, x) is not the
    pixel's own, g belongs to that other mark, but h is |dy| at most, so the sum is not the least.) Only |dy| below
    min(g, h) can lower the result: the loop is as long as the thickest wanted region is thick.
    """
    along_row = _distance_in_run(marks)
    along_column = _distance_in_run(marks.transpose(1, 2)).transpose(1, 2)
    bound = torch.minimum(along_row, along_column)
    thickest = bound if wanted is None else torch.where(wanted, bound, 0)
    reach = min(int(thickest.max()), marks.shape[1])

    row_squared = along_row.square()
    squared = bound.square()
    for dy in range(1, reach):
        squared[:, dy:] = torch.minimum(squared[:, dy:], row_squared[:, :-dy] + dy * dy)
        squared[:, :-dy] = torch.minimum(squared[:, :-dy], row_squared[:, dy:] + dy * dy)
    return squared


def _distance_in_run(marks: Tensor) -> Tensor:
    """Distance along the last dimension to the nearest element with another mark, FAR if there is none; int32."""
    position = torch.arange(marks.shape[-1], dtype=torch.int32, device=marks.device)
    changes = marks[..., 1:] != marks[..., :-1]
    before = torch.full(marks.shape, -FAR, dtype=torch.int32, device=marks.device)
    before[..., 1:] = torch.where(changes, position[:-1], -FAR)
    after = torch.full_like(before, 2 * FAR)
    after[..., :-1] = torch.where(changes, position[1:], 2 * FAR)
    nearest_before = before.cummax(-1).values
    nearest_after = after.flip(-1).cummin(-1).values.flip(-1)
    return torch.minimum(position - nearest_before, nearest_after - position).clamp(max=FAR)
