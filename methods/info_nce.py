"""Supervised InfoNCE: one positive at a time against all negatives."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def masked_logsumexp(scores: Tensor, mask: Tensor, dim: int) -> Tensor:
    """Logsumexp over `dim` of the scores where the mask is true; -inf, with no gradient, where nothing is."""
    some = mask.any(dim)
    kept = scores.masked_fill(~mask & some.unsqueeze(dim), -torch.inf)  # an all -inf row would have NaN gradients
    return kept.logsumexp(dim).where(some, -torch.inf)


class Contrast(NamedTuple):
    """Scores s = anchor . key / temperature of the positives and the negatives of A anchors, each with its own keys."""

    positives: Tensor  # [A, P]
    is_positive: Tensor  # bool [A, P]; elements where it is false do not count
    negatives: Tensor  # [A, N]
    is_negative: Tensor  # bool [A, N]


def masked_info_nce(contrast: Contrast) -> Tensor:
    """The loss of supervised_info_nce for anchors with keys of their own; those without positives are left out."""
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
    temperature: float,
    exclude_self: bool = False,
    missing_positives: str = "skip",
    max_entries: int | None = None,
    num_classes: int | None = None,
) -> Tensor:
    """Mean over the anchors of the mean over each one's positives of -log exp(s+) / (exp(s+) + sum exp(s-)).

    anchors [A, d] and keys [M, d] are unit vectors, labels int [A] and [M], s = anchor . key / temperature. The
    positives of an anchor are the keys of its label, the negatives all other keys. The denominator holds one positive
    beside the negatives, not the other positives (Wang et al., ICCV 2021, equation 3).

    exclude_self       the keys are the anchors themselves, and none is its own positive
    missing_positives  anchors without positives are left out of the mean ("skip") or count as 0 ("zero")
    max_entries        hold so many of the A M similarities at a time, or those of one anchor if they are more; None:
                       all at once. The result is the same, and the backward pass holds none of them
    num_classes        anchors and keys labelled so or higher take no part: they fill up to a fixed number; None: all
                       take part

    An anchor without negatives has loss 0; with nothing to contrast the result is 0, with a graph.
    Raises ValueError for another value of missing_positives.
    """
    if missing_positives not in ("skip", "zero"):
        raise ValueError(f"missing_positives is {missing_positives!r}, but must be 'skip' or 'zero'")
    rows = len(anchors) if max_entries is None else max_entries // (len(keys) + 1)
    first = torch.iinfo(torch.int64).max if num_classes is None else num_classes
    no_anchor, no_key = anchor_labels >= first, key_labels >= first
    options = (no_anchor, no_key, temperature, exclude_self, missing_positives == "skip", max(rows, 1))
    return _SupervisedInfoNCE.apply(anchors, keys, anchor_labels, key_labels, *options)


class _SupervisedInfoNCE(torch.autograd.Function):
    """Loss and gradient in one pass over blocks of anchors, so that no block's similarities outlive its turn."""

    @staticmethod
    def forward(
        ctx: Any,
        anchors: Tensor,
        keys: Tensor,
        anchor_labels: Tensor,
        key_labels: Tensor,
        no_anchor: Tensor,
        no_key: Tensor,
        temperature: float,
        exclude_self: bool,
        skip: bool,
        rows: int,
    ) -> Tensor:
        # One more key, which takes no part: where there are no keys the maximum over them exists all the same.
        keys, key_labels = torch.cat([keys, keys.new_zeros(1, keys.shape[1])]), F.pad(key_labels, (0, 1))
        no_key = F.pad(no_key, (0, 1), value=True)
        anchor_gradient, key_gradient = torch.zeros_like(anchors), torch.zeros_like(keys)
        total, counted = anchors.new_zeros(()), anchors.new_zeros(())
        for start in range(0, max(len(anchors), 1), rows):
            block, labels = anchors[start : start + rows], anchor_labels[start : start + rows]
            scores = (block / temperature) @ keys.T
            inside = ~no_anchor[start : start + rows]
            same = labels[:, None] == key_labels
            left_out = same | no_key
            same &= inside[:, None] & ~no_key
            if exclude_self:
                same.diagonal(start).fill_(False)
                left_out.diagonal(start).fill_(True)
            negatives = scores.masked_fill(left_out, -torch.inf)

            # The negatives' exponentials, in place, and b, their logsumexp: -inf where there are none.
            highest = negatives.amax(1).clamp(min=torch.finfo(scores.dtype).min)
            exponentials = negatives.sub_(highest[:, None]).exp_()
            sums = exponentials.sum(1)
            b = highest + sums.log()

            # A positive's term is -log( e^s / (e^s + e^b) ) = -logsigmoid(s - b), precise at both ends.
            margin = scores.sub_(b[:, None])
            positives = same.sum(1)
            number = positives.clamp(min=1)
            total += (F.logsigmoid(margin).masked_fill_(~same, 0).sum(1) / -number).sum()
            counted += (positives > 0).sum() if skip else inside.sum()

            # Its derivative by s is -sigmoid(b - s), by b the opposite, and that of b by a negative's score its share.
            slope = margin.neg_().sigmoid_().masked_fill_(~same, 0).div_(number[:, None])
            gradient = exponentials.mul_((slope.sum(1) / sums.clamp(min=1))[:, None]).sub_(slope)
            anchor_gradient[start : start + rows] = gradient @ keys
            key_gradient.addmm_(gradient.T, block)

        scale = 1 / (temperature * counted.clamp(min=1))
        ctx.save_for_backward(anchor_gradient.mul_(scale), key_gradient[:-1].mul_(scale))
        return total / counted.clamp(min=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        by_anchors, by_keys = ctx.saved_tensors
        return gradients[0] * by_anchors, gradients[0] * by_keys, *(None,) * 8
