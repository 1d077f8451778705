"""Samples pixels from every (image, class) pair, half of them misclassified, without a loop over the pairs."""

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.class_means import one_hot
from methods.fixed_sizes import rows_for
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
    With T_b such pairs in image b, V_b = pixels_per_image // T_b pixels are sampled from each, at least 1 and at most
    `max_views`: half of them hard (misclassified) and half easy, an odd one easy, filled up from the other kind if one
    is short. From a pair with fewer than V_b pixels all are taken. At most `pixels_per_image` pixels are sampled per
    image; with more pairs than that, random pairs get none. (Segmentation-aware hard anchor sampling of Wang et al.,
    ICCV 2021.)

    With `pixels_per_batch` the rule is the released code's instead: from each of the batch's T pairs
    V = pixels_per_batch // T pixels, at most `max_views` and possibly none; `pixels_per_image` is not used.
    """
    images = len(labels)
    labels = torch.where(labels == ignore_index, num_classes, labels).flatten(1)
    hard = prediction.flatten(1) != labels
    kinds = torch.stack([~hard, hard], dim=1).float()  # float sums of so few ones are exact
    num_easy, num_hard = (kinds @ one_hot(labels, num_classes, torch.float)).long().unbind(1)  # [B, K] each

    counts = num_hard + num_easy > min_pixels
    image = torch.arange(images, device=labels.device)[:, None]
    if pixels_per_batch is None:
        views = (pixels_per_image // counts.sum(1, keepdim=True).clamp(min=1)).clamp(1, max_views)
        if num_classes > pixels_per_image:  # the pairs that count come first
            order = rank_within_group(image.expand_as(counts).flatten(), (~counts).flatten().long())
            counts = counts & (order.view_as(counts) < pixels_per_image)
    else:
        views = (pixels_per_batch // counts.sum().clamp(min=1)).clamp(max=max_views)
    budget = torch.where(counts, views, 0)

    take_hard = torch.minimum(num_hard, torch.maximum(budget // 2, budget - num_easy))
    take_easy = torch.minimum(num_easy, budget - take_hard)
    # Ignored pixels are of class K, whose quota is 0.
    quota = F.pad(torch.stack([take_easy, take_hard], dim=2), (0, 0, 0, 1)).flatten()
    group = ((image * (num_classes + 1) + labels) * 2 + hard).flatten()
    return (rank_within_group(group) < quota[group]).view_as(prediction)


def gather_pixels(
    embedding: Tensor, labels: Tensor, sampled: Tensor, most: int, num_classes: int
) -> tuple[Tensor, Tensor]:
    """The vectors [N, d] of the sampled pixels and their classes int64 [N], K for padding.

    embedding [B, d, H, W]; labels int64 and sampled bool [B, H, W], with at most `most` sampled pixels. On a GPU, N is
    `most`.
    """
    at, exists = positions_of(sampled, rows_for(sampled.sum(), most))
    pixels = sampled[0].numel()
    return embedding.flatten(2)[at // pixels, :, at % pixels], torch.where(exists, labels.flatten()[at], num_classes)


def positions_of(mask: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """The positions int64 [most] of the true elements (at most `most`) in the flattened mask bool [...].

    Also bool [most], false for padding at the end, where positions are meaningless.
    """
    number = torch.arange(1, most + 1, device=mask.device)
    running = mask.flatten().cumsum(0)
    return torch.searchsorted(running, number).clamp(max=len(running) - 1), number <= running[-1]
