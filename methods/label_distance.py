"""Exact Euclidean distance from every pixel to the nearest pixel with another mark, for all marks in one pass."""

import torch
import torch.nn.functional as F
from torch import Tensor

FAR = 2**15  # longer than any side of a map; the square fits into 32 bits
NO_EDGE = FAR**2  # the squared distance in a map with a single mark
SUMS_AT_A_TIME = 2**25  # 128 MiB


def squared_distance_to_other_mark(marks: Tensor) -> Tensor:
    """Squared distance, in pixels, from each pixel to the nearest pixel of its map whose mark differs.

    marks int [B, H, W], sides below 2**15 -> int32 [B, H, W]: 1 next to another mark, NO_EDGE in a map with only one
    mark. The image's border is no edge.

    With g(y, x) the distance along the row and h(y, x) the distance along the column to another mark, the squared
    distance is the minimum of h(y, x)^2 and of (y - r)^2 + g(r, x)^2 over all rows r. (If the mark at (r, x) is not the
    pixel's own, g is that other mark's, but then h <= |y - r|, so this sum is never below h^2.)
    """
    row_squared = _distance_in_run(marks).square()
    column_squared = _distance_in_run(marks.mT).mT.square()
    row = torch.arange(marks.shape[1], dtype=torch.int32, device=marks.device)
    apart = (row[:, None] - row).square()
    rows = max(SUMS_AT_A_TIME // max(marks.numel(), 1), 1)
    least = [(row_squared[:, None] + some[:, :, None]).amin(2) for some in apart.split(rows)]
    return torch.minimum(torch.cat(least, dim=1), column_squared)


def _distance_in_run(marks: Tensor) -> Tensor:
    """Distance along the last dimension to the nearest element with another mark, FAR if there is none; int32."""
    position = torch.arange(marks.shape[-1], dtype=torch.int32, device=marks.device)
    both_ways = torch.stack([marks, marks.flip(-1)])
    goes_on = F.pad(both_ways[..., 1:] == both_ways[..., :-1], (1, 0), value=True)  # the element before has this mark
    before = position + 1 - position.masked_fill(goes_on, 1 - FAR).cummax(-1).values
    return torch.minimum(before[0], before[1].flip(-1)).clamp(max=FAR)
