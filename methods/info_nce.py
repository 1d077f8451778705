"""Supervised InfoNCE: one positive at a time against all negatives."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from methods.class_means import one_hot


def masked_logsumexp(scores: Tensor, mask: Tensor, dim: int) -> Tensor:
    """Logsumexp over `dim` of the scores in the mask; -inf, with no gradient, if there are none."""
    some = mask.any(dim)
    kept = scores.masked_fill(~mask & some.unsqueeze(dim), -torch.inf)  # an all -inf row would have NaN gradients
    return kept.logsumexp(dim).where(some, -torch.inf)


class Contrast(NamedTuple):
    """Scores s = anchor . key / temperature of the positives and the negatives of A anchors, each with its own keys."""

    positives: Tensor  # [A, P]
    is_positive: Tensor  # bool [A, P]; other elements are ignored
    negatives: Tensor  # [A, N]
    is_negative: Tensor  # bool [A, N]


def masked_info_nce(contrast: Contrast) -> Tensor:
    """The loss of supervised_info_nce if each anchor has its own keys; anchors without positives are left out."""
    positives, is_positive, negatives, is_negative = contrast
    margin = positives - masked_logsumexp(negatives, is_negative, dim=1)[:, None]
    number = is_positive.sum(1)
    losses = torch.where(is_positive, -F.logsigmoid(margin), 0).sum(1) / number.clamp(min=1)
    return losses.sum() / (number > 0).sum().clamp(min=1)


def supervised_info_nce(
    anchors: Tensor,
    anchor_labels: Tensor,
    keys: Tensor,
    key_labels: Tensor,
    num_classes: int,
    temperature: float,
    exclude_self: bool = False,
    missing_positives: str = "skip",
    max_entries: int | None = None,
) -> Tensor:
    """Mean over the anchors of the mean over each one's positives of -log exp(s+) / (exp(s+) + sum exp(s-)).

    anchors [A, d] and keys [M, d] are unit vectors, labels int64 [A] and [M], s = anchor . key / temperature. The
    positives of an anchor are the keys of its label, the negatives all other keys. The denominator has one positive and
    the negatives, but not the other positives (Wang et al., ICCV 2021, equation 3). Anchors and keys with the label
    num_classes are padding and are ignored.

    exclude_self       the keys are the anchors themselves, and none is its own positive
    missing_positives  anchors without positives are left out of the mean ("skip") or count as 0 ("zero")
    max_entries        compute at most this many of the A M similarities at a time (but at least one anchor's), with the
                       same result; None: all at once. No similarity is kept for the backward pass

    An anchor without negatives has loss 0. With nothing to contrast the result is 0 and differentiable.
    Raises ValueError for another value of missing_positives.
    """
    if missing_positives not in ("skip", "zero"):
        raise ValueError(f"missing_positives is {missing_positives!r}, but must be 'skip' or 'zero'")
    if len(anchors) == 0 or len(keys) == 0:
        return 0 * (anchors.sum() + keys.sum())
    rows = len(anchors) if max_entries is None else max(1, max_entries // len(keys))
    options = (num_classes, temperature, exclude_self, missing_positives == "skip", rows)
    return _SupervisedInfoNCE.apply(anchors, keys, anchor_labels, key_labels, *options)


class _SupervisedInfoNCE(torch.autograd.Function):
    """Loss and gradient in one pass over blocks of anchors, freeing each block's similarities before the next."""

    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        keys: Tensor,
        anchor_labels: Tensor,
        key_labels: Tensor,
        num_classes: int,
        temperature: float,
        exclude_self: bool,
        skip: bool,
        rows: int,
    ) -> Tensor:
        wanted = ctx.needs_input_grad[1]  # a memory's keys are constants
        anchor_gradient, key_gradient = torch.empty_like(anchors), torch.zeros_like(keys) if wanted else None
        inside, no_key = anchor_labels < num_classes, key_labels == num_classes
        keys_of_class = one_hot(key_labels, num_classes, anchors.dtype).sum(0)
        positives = keys_of_class[anchor_labels.clamp(max=num_classes - 1)] - int(exclude_self)
        positives = torch.where(inside, positives, 0)
        total = anchors.new_zeros(())
        for start in range(0, len(anchors), rows):
            here = slice(start, start + rows)
            block, number = anchors[here], positives[here].clamp(min=1)
            scores = (block / temperature) @ keys.T
            same = anchor_labels[here, None] == key_labels
            no_negative, no_positive = same | no_key, ~(same & inside[here, None])
            if exclude_self:
                no_negative.diagonal(start).fill_(True)
                no_positive.diagonal(start).fill_(True)

            # The negatives' exponentials, in place, and their logsumexp b, -inf if there are none.
            exponentials = scores.masked_fill(no_negative, -torch.inf)
            highest = exponentials.amax(1).clamp(min=torch.finfo(scores.dtype).min)
            sums = exponentials.sub_(highest[:, None]).exp_().sum(1)
            b = highest + sums.log()

            # A positive's term is -log( e^s / (e^s + e^b) ) = -logsigmoid(s - b), precise at both ends.
            margin = scores.sub_(b[:, None]).masked_fill_(no_positive, torch.inf)
            total -= (F.logsigmoid(margin).sum(1) / number).sum()

            # d/ds is -sigmoid(b - s) and d/db its opposite; db/d(negative's score) is that negative's softmax.
            slope = margin.neg_().sigmoid_().div_(number[:, None])
            gradient = exponentials.mul_((slope.sum(1) / sums.clamp(min=1))[:, None]).sub_(slope)
            anchor_gradient[here] = gradient @ keys
            if key_gradient is not None:
                key_gradient.addmm_(gradient.T, block)

        counted = ((positives > 0) if skip else inside).sum().clamp(min=1)
        scale = 1 / (temperature * counted)
        ctx.save_for_backward(anchor_gradient.mul_(scale), None if key_gradient is None else key_gradient.mul_(scale))
        return total / counted

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        by_anchors, by_keys = ctx.saved_tensors
        return gradients[0] * by_anchors, None if by_keys is None else gradients[0] * by_keys, *(None,) * 7
