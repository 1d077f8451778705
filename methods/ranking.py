"""Ranks inside groups, without a loop over the groups."""

import torch
from torch import Tensor


def rank_within_group(groups: Tensor, keys: Tensor | None = None) -> Tensor:
    """The rank of each element inside its group by ascending key, from 0; ties, or all if no keys, in random order.

    groups int [N], keys [N] -> int64 [N]. `rank_within_group(groups) < n` thus draws up to n elements of each group.
    """
    order = torch.randperm(len(groups), device=groups.device)
    if keys is not None:
        order = order[keys[order].argsort(stable=True)]
    order = order[groups[order].argsort(stable=True)]

    position = torch.arange(len(groups), device=groups.device)
    in_order = groups[order]
    starts = torch.ones_like(in_order, dtype=torch.bool)
    starts[1:] = in_order[1:] != in_order[:-1]
    first = torch.where(starts, position, 0).cummax(0).values if len(groups) else position
    return torch.empty_like(position).scatter(0, order, position - first)


def draw_from_groups(groups: Tensor, num_groups: int, number: int, shuffle: bool = True) -> tuple[Tensor, Tensor]:
    """`number` elements of every group: all of them over and over where it has fewer, the first ones where it has more.

    groups int64 [N], 0..num_groups-1. Returns the elements' positions, int64 [num_groups, number], and the sizes of the
    groups, int64 [num_groups]; where a size is 0 the positions mean nothing. The elements come in random order, which
    is the same for every round, or with `shuffle` false in their own.
    """
    order = (
        torch.randperm(len(groups), device=groups.device)
        if shuffle
        else torch.arange(len(groups), device=groups.device)
    )
    order = order[groups[order].argsort(stable=True)]
    sizes = torch.bincount(groups, minlength=num_groups)
    starts = sizes.cumsum(0) - sizes
    turn = torch.arange(number, device=groups.device) % sizes.clamp(min=1)[:, None]
    padded = torch.cat([order, order.new_zeros(1)])  # an empty group at the end starts behind the last element
    return padded[starts[:, None] + turn], sizes
