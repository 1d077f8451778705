"""Samples equally many pixels from every (image, class) pair, without a loop over the pairs."""

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.class_means import one_hot
from methods.ranking import rank_within_group


def sample_pairs_equally(
    labels: Tensor,
    num_classes: int,
    ignore_index: int,
    *,
    budget: int,
    max_views: int,
    min_pixels: int,
    per_image: bool = True,
) -> Tensor:
    """Random pixels of every (image, class) pair, V of each: bool [B, H, W], true where sampled.

    labels int64 [B, H, W]. A pair counts if the image has at least `min_pixels` pixels of the class. With T such pairs,
    V = min(pixels of the smallest pair, max_views, budget // T), but at least 1; with more pairs than `budget`, random
    ones get no sample. So the rarest class limits the number of pixels from all others (Pissas et al., ECCV 2022). V
    and the budget are per image or, with `per_image` false, for the whole batch.
    """
    images, size = len(labels), labels.shape
    labels = torch.where(labels == ignore_index, num_classes, labels).flatten(1)
    pixels = one_hot(labels, num_classes, torch.float).sum(1).long()  # exact: there are fewer than 2**24
    pixels = pixels if per_image else pixels.view(1, -1)

    counts = pixels >= min_pixels
    smallest = pixels.masked_fill(~counts, max_views).amin(1).clamp(max=max_views)
    views = torch.minimum(smallest, budget // counts.sum(1).clamp(min=1)).clamp(min=1)
    group = torch.arange(len(pixels), device=labels.device)[:, None].expand_as(pixels)  # pairs that share a budget
    order = rank_within_group(group.flatten(), (~counts).flatten().int())  # the pairs that count come first
    drawn = counts & (order.view_as(pixels) < budget)
    # Ignored pixels are of class K, whose quota is 0.
    quota = F.pad(torch.where(drawn, views[:, None], 0).view(images, num_classes), (0, 1)).flatten()
    pair = (torch.arange(images, device=labels.device)[:, None] * (num_classes + 1) + labels).flatten()
    return (rank_within_group(pair) < quota[pair]).view(size)
