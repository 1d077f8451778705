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
