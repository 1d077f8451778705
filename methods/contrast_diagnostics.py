"""Diagnostics of a contrast: numbers and similarities of positives and negatives, and the loss's chance level."""

import torch
from torch import Tensor

from methods.class_means import class_sums, one_hot
from methods.info_nce import Contrast


@torch.no_grad()
def label_diagnostics(
    anchors: Tensor,
    anchor_labels: Tensor,
    keys: Tensor,
    key_labels: Tensor,
    num_classes: int,
    exclude_self: bool = False,
) -> dict[str, Tensor]:
    """The figures of `drawn_diagnostics` for the arguments of supervised_info_nce, without an anchors x keys matrix.

    Labels of K or more are ignored.
    """
    takes_part = anchor_labels < num_classes
    anchor_sums, anchor_numbers = class_sums(anchors, anchor_labels, num_classes)
    key_sums, key_numbers = class_sums(keys, key_labels, num_classes)
    positives, similarity = anchor_numbers @ key_numbers, (anchor_sums * key_sums).sum()
    negatives = anchor_numbers.sum() * key_numbers.sum() - positives
    other = anchor_sums.sum(0) @ key_sums.sum(0) - similarity
    if exclude_self:
        positives, similarity = positives - takes_part.sum(), similarity - (anchors.square().sum(1) * takes_part).sum()
    return _means(takes_part.sum(), positives, similarity, negatives, other)


@torch.no_grad()
def drawn_diagnostics(contrast: Contrast, temperature: float, anchors: Tensor | None = None) -> dict[str, Tensor]:
    """Number of anchors, their mean numbers of positives and negatives, and mean cosine with each kind; 0 if none.

    anchors: the number that takes part; None: all rows of the contrast.
    """
    positives, is_positive, negatives, is_negative = contrast
    similarity = temperature * (positives * is_positive).sum()
    other = temperature * (negatives * is_negative).sum()
    number = is_positive.sum().new_full((), len(positives)) if anchors is None else anchors
    return _means(number, is_positive.sum(), similarity, is_negative.sum(), other)


@torch.no_grad()
def label_chance(
    anchor_labels: Tensor, key_labels: Tensor, num_classes: int, exclude_self: bool = False, skip: bool = True
) -> Tensor:
    """The chance level of supervised_info_nce, a float32 scalar: its value if all similarities are equal.

    Each term is then log(1 + number of negatives), averaged like the loss. Arguments as there; `skip` leaves anchors
    without positives out of the mean, like `missing_positives`.
    """
    anchors, keys = (one_hot(labels, num_classes, torch.float).sum(0) for labels in (anchor_labels, key_labels))
    counted = anchors * (keys - int(exclude_self) > 0)
    return (counted * torch.log1p(keys.sum() - keys)).sum() / (counted if skip else anchors).sum().clamp(min=1)


@torch.no_grad()
def drawn_chance(contrast: Contrast) -> Tensor:
    """The chance level of masked_info_nce, a float32 scalar (see label_chance)."""
    counted = contrast.is_positive.any(1)
    return (torch.log1p(contrast.is_negative.sum(1).float()) * counted).sum() / counted.sum().clamp(min=1)


def _means(
    anchors: Tensor, positives: Tensor, similarity: Tensor, negatives: Tensor, other: Tensor
) -> dict[str, Tensor]:
    return {
        "anchors": anchors,
        "positives": positives / anchors.clamp(min=1),
        "negatives": negatives / anchors.clamp(min=1),
        "positive_similarity": similarity / positives.clamp(min=1),
        "negative_similarity": other / negatives.clamp(min=1),
    }
