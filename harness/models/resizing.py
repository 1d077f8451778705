"""Deterministic bilinear upsampling by integer factors: fixed weights of two neighbours for each sub-cell position."""

from collections.abc import Sequence

import torch
from torch import Tensor


def upsample(map_: Tensor, factors: Sequence[int]) -> Tensor:
    """The map [B, C, h, w] upsampled by `factors` (rows, columns), as `interpolate` without align_corners.

    Values and gradients are equal up to rounding. On a GPU, torch's own backward pass uses atomic adds in no fixed
    order, which torch.compile turns into `index_put`; this one uses slices and sums.
    """
    return _along(_along(map_, 3, factors[1]), 2, factors[0])


def whole_factors(map_: Tensor, size: Sequence[int]) -> tuple[int, int] | None:
    """The factors from the map's [B, C, h, w] grid to `size` (height, width); None unless both are integers."""
    (rows, rest_of_rows), (columns, rest_of_columns) = map(divmod, size, map_.shape[-2:])
    return None if rest_of_rows or rest_of_columns or not rows or not columns else (rows, columns)


def _along(map_: Tensor, dim: int, factor: int) -> Tensor:
    if factor == 1:
        return map_
    length = map_.shape[dim]
    before = torch.cat([map_.narrow(dim, 0, 1), map_.narrow(dim, 0, length - 1)], dim)
    after = torch.cat([map_.narrow(dim, 1, length - 1), map_.narrow(dim, length - 1, 1)], dim)
    phases = []
    for place in range(factor):
        offset = (place + 0.5) / factor - 0.5  # of the new cell's centre from the old one's
        phases.append(torch.lerp(map_, after if offset > 0 else before, abs(offset)))
    return torch.stack(phases, dim + 1).flatten(dim, dim + 1)
