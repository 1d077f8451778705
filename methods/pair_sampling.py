"""Samples of pixels per (image, class) pair, half of them misclassified, without a loop over the pairs."""

import torch
from torch import Tensor

from methods.ranking import rank_within_group


def sample_pairs(
    labels: Tensor,
    prediction: Tensor,
    num_classes: int,
    ignore_index: int,
    *,
    pixels_per_image: int,
    max_views: int,
    min_pixels: int = 0,
    pixels_per_batch: int | None = None,
) -> Tensor:
    """Random pixels of every (image, class) pair, hard and easy ones: bool [B, H, W], true where sampled.

    labels and prediction: int64 [B, H, W]. A pair counts if the image has more than `min_pixels` pixels of the class.
    With T_b such pairs in image b, each gets V_b = pixels_per_image // T_b pixels, 1 at least and `max_views` at most:
    half of them hard (misclassified) and half easy, the odd one easy, topped up from the other kind where one is short.
    A pair with fewer than V_b pixels gives all it has. An image never gives more than `pixels_per_image`: with more
    pairs than that, some pairs, drawn at random, go without. (Segmentation-aware hard anchor sampling of Wang et al.,
    ICCV 2021.)

    With `pixels_per_batch` the rule is the released code's instead: each of the batch's T pairs gets
    V = pixels_per_batch // T pixels, `max_views` at most and maybe none; `pixels_per_image` does not count.
    """
    images = len(labels)
    valid = labels != ignore_index
    pair = (torch.arange(images, device=labels.device)[:, None, None] * num_classes + labels)[valid]
    hard = (prediction != labels)[valid]
    num_hard = torch.bincount(pair[hard], minlength=images * num_classes)
    num_easy = torch.bincount(pair[~hard], minlength=images * num_classes)

    counts = (num_hard + num_easy > min_pixels).view(images, num_classes)
    counting = counts.flatten().nonzero().squeeze(1)
    if pixels_per_batch is None:
        views = (pixels_per_image // counts.sum(1).clamp(min=1)).clamp(1, max_views)
        counting = counting[rank_within_group(counting // num_classes) < pixels_per_image]
    else:
        views = (pixels_per_batch // counts.sum().clamp(min=1)).clamp(max=max_views).expand(images)
    budget = torch.zeros_like(num_hard).index_copy(0, counting, views[counting // num_classes])

    take_hard = torch.minimum(num_hard, torch.maximum(budget // 2, budget - num_easy))
    take_easy = torch.minimum(num_easy, budget - take_hard)
    quota = torch.where(hard, take_hard[pair], take_easy[pair])
    chosen = rank_within_group(pair * 2 + hard) < quota
    return torch.zeros_like(valid).masked_scatter(valid, chosen)
