"""What anchors are contrasted with: how many positives and negatives, how similar, and what guessing would cost."""

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
    """Of supervised_info_nce's arguments, K classes: as `drawn_diagnostics`, but without a matrix anchors x keys.

    Labels of K or more take no part.
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
    """The number of anchors, their mean numbers of positives and negatives, the mean cosine with each kind; or 0.

    anchors: how many take part; None: all rows of the contrast.
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
    """The chance level of supervised_info_nce, a float32 scalar: its value where all similarities are alike.

    A positive is then one of 1 + its anchor's negatives: log(1 + negatives), averaged as the loss is. Arguments as
    there; `skip` leaves anchors without positives out of the mean, as `missing_positives` does.
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
