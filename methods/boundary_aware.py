"""BANE sampling: boundary-aware negatives (Sung et al., CVPR 2024; equation numbers are those of Contextrast++)."""

import torch
from torch import Tensor

from methods.label_distance import squared_distance_to_other_mark
from methods.ranking import rank_within_group

NONE = -1  # the mark of pixels outside all error regions


def boundary_aware(
    marks: Tensor, num_classes: int, keep: float, ties: str, by_distance: bool = True
) -> tuple[Tensor, Tensor]:
    """Equations (13) and (14): the pixels of each error region that are nearest to its edge.

    marks int64 [B, H, W]: the class of the error region that a pixel belongs to, or NONE. A region is the pixels of one
    class in one image. Returns bool [B, H, W], true at the share `keep` of each region (`ties` as in Contextrast; not
    `by_distance`: at random), and the squared distances, int32 [B, H, W].
    """
    inside = marks != NONE
    squared = squared_distance_to_other_mark(marks, inside)
    distance = squared[inside]
    image = torch.arange(len(marks), device=marks.device)[:, None, None].expand_as(marks)
    region = (image * num_classes + marks)[inside]
    size = torch.bincount(region, minlength=len(marks) * num_classes)
    quota = (keep * size.double() - 1e-9).ceil()  # the slack undoes rounding: 0.07 * 100 is above 7
    chosen = rank_within_group(region, distance if by_distance else torch.zeros_like(distance)) < quota[region]
    if ties == "percentile" and by_distance:
        limit = torch.zeros_like(size).scatter_reduce(0, region, torch.where(chosen, distance, 0).long(), "amax")
        chosen = distance <= limit[region]
    return torch.zeros_like(inside).masked_scatter(inside, chosen), squared
