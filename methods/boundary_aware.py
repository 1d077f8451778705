"""BANE sampling: boundary-aware negatives (Sung et al., CVPR 2024; equation numbers are those of Contextrast++)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from methods.label_distance import squared_distance_to_other_mark
from methods.ranking import places_in_group

NONE = -1  # the mark of pixels outside all error regions


def boundary_aware(
    maps: Sequence[Tensor], num_classes: int, keep: float, ties: str, by_distance: bool = True
) -> list[tuple[Tensor, Tensor]]:
    """Equations (13) and (14): for each layer, the pixels of each error region that are nearest to its edge.

    maps: the marks of each layer, int64 [B, h, w]: the class of the error region that a pixel belongs to, or NONE. A
    region consists of the pixels of one class in one image of one layer. Returns for each layer bool [B, h, w], true
    for the share `keep` of each region (`ties` as in Contextrast; without `by_distance`: random pixels), and the
    squared distances, int32 [B, h, w].
    """
    images = sum(len(marks) for marks in maps)  # all layers are sorted at once
    image = torch.arange(images, device=maps[0].device).split([len(marks) for marks in maps])
    regions = [
        (marks + num_classes * first[:, None, None]).masked_fill(marks == NONE, NONE)
        for marks, first in zip(maps, image, strict=True)
    ]
    squares = [squared_distance_to_other_mark(marks) for marks in maps]
    region, squared = (torch.cat([each.flatten() for each in parts]) for parts in (regions, squares))

    farthest = max(marks.shape[1] ** 2 + marks.shape[2] ** 2 for marks in maps)  # also used for maps without an edge
    distance = squared.clamp(max=farthest) if by_distance else torch.zeros_like(squared)
    rank, size = places_in_group(region, distance, num_groups=images * num_classes, num_keys=farthest + 1)
    quota = (keep * size.double() - 1e-9).ceil()  # the slack absorbs rounding: 0.07 * 100 is above 7
    chosen = (region != NONE) & (rank < quota)
    if ties == "percentile" and by_distance:
        limit = squared.new_zeros(images * num_classes + 1)
        limit = limit.scatter_reduce(0, region + 1, torch.where(chosen, squared, 0), "amax")
        chosen = (region != NONE) & (squared <= limit[region + 1])
    sizes = [marks.numel() for marks in maps]
    return [(hard.view_as(edge), edge) for hard, edge in zip(chosen.split(sizes), squares, strict=True)]
