"""Ranks within groups, without a loop over the groups."""

from typing import NamedTuple

import torch
from torch import Tensor


def rank_within_group(
    groups: Tensor, keys: Tensor | None = None, *, num_groups: int = 2**20, num_keys: int = 2**20
) -> Tensor:
    """The rank (from 0) of each element in its group by ascending key; ties, or all without keys, in random order.

    groups int64 [N], -1..num_groups-1; keys int [N], 0..num_keys-1 -> int64 [N]. So `rank_within_group(groups) < n`
    draws up to n random elements of each group.
    """
    return places_in_group(groups, keys, num_groups=num_groups, num_keys=num_keys)[0]


def places_in_group(
    groups: Tensor, keys: Tensor | None = None, *, num_groups: int = 2**20, num_keys: int = 2**20
) -> tuple[Tensor, Tensor]:
    """The result of `rank_within_group`, and the size of each element's group; both int64 [N]."""
    # One number sorts by group, then by key, then at random. Equal random numbers are ordered by position, but are too
    # rare to matter: there are at least 2**22 different ones with the default limits.
    place = groups + 1 if keys is None else (groups + 1) * num_keys + keys
    chances = 2**62 // ((num_groups + 1) * (1 if keys is None else num_keys))
    number = place * chances + random_numbers(chances, groups)
    order = number.argsort(stable=True)

    in_order = groups[order]
    first = torch.searchsorted(in_order, in_order)
    position = torch.arange(len(groups), device=groups.device)
    found = torch.stack([position - first, torch.searchsorted(in_order, in_order, right=True) - first])
    ranks, sizes = torch.empty_like(found).scatter(1, order.expand_as(found), found)
    return ranks, sizes


class Groups(NamedTuple):
    """The elements of G groups, sorted by group."""

    order: Tensor  # positions of all elements sorted by group, int64 [N + 1]; the last one is padding
    starts: Tensor  # start of each group in `order`, int64 [G]
    sizes: Tensor  # int64 [G]

    @classmethod
    def of(cls, groups: Tensor, num_groups: int, shuffle: bool = True) -> "Groups":
        """The groups of elements with these group numbers, int64 [N]; num_groups or more means no group.

        The elements of a group are in random order or, without `shuffle`, in their original order.
        """
        numbers = groups
        if shuffle:
            chances = 2**62 // (num_groups + 1)
            numbers = groups.clamp(max=num_groups) * chances + random_numbers(chances, groups)
        order = numbers.argsort(stable=True)
        starts = torch.searchsorted(groups[order], torch.arange(num_groups + 1, device=groups.device))
        return cls(torch.cat([order, order.new_zeros(1)]), starts[:-1], starts.diff())

    def draw(self, number: int) -> Tensor:
        """The first `number` elements of every group, int64 [G, number], repeated if the group has fewer.

        The positions of an empty group are meaningless.
        """
        turn = torch.arange(number, device=self.order.device) % self.sizes.clamp(min=1)[:, None]
        return self.order[self.starts[:, None] + turn]

    def chosen(self, which: Tensor) -> "Groups":
        """Only the groups at the positions int64 [H]."""
        return self._replace(starts=self.starts[which], sizes=self.sizes[which])


def random_numbers(chances: int, groups: Tensor) -> Tensor:
    """A random integer from 0 to chances - 1 for each element, int64 [N]."""
    return torch.randint(chances, groups.shape, device=groups.device)
