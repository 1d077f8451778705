"""Supervised InfoNCE: one positive at a time against all negatives."""

import torch
import torch.nn.functional as F
from torch import Tensor


def masked_logsumexp(scores: Tensor, mask: Tensor, dim: int) -> Tensor:
    """Logsumexp over `dim` of the scores where the mask is true; -inf, with no gradient, where nothing is."""
    some = mask.any(dim)
    kept = scores.masked_fill(~mask & some.unsqueeze(dim), -torch.inf)  # an all -inf row would have NaN gradients
    return kept.logsumexp(dim).where(some, -torch.inf)


def supervised_info_nce(
    anchors: Tensor,
    anchor_labels: Tensor,
    keys: Tensor,
    key_labels: Tensor,
    temperature: float,
    exclude_self: bool = False,
    missing_positives: str = "skip",
) -> Tensor:
    """Mean over the anchors of the mean over each one's positives of -log exp(s+) / (exp(s+) + sum exp(s-)).

    anchors [A, d] and keys [M, d] are unit vectors, labels int [A] and [M], s = anchor . key / temperature. The
    positives of an anchor are the keys of its label, the negatives all other keys. The denominator holds one positive
    beside the negatives, not the other positives (Wang et al., ICCV 2021, equation 3).

    exclude_self       the keys are the anchors themselves, and none is its own positive
    missing_positives  anchors without positives are left out of the mean ("skip") or count as 0 ("zero")

    An anchor without negatives has loss 0; with nothing to contrast the result is 0, with a graph.
    Raises ValueError for another value of missing_positives.
    """
    if missing_positives not in ("skip", "zero"):
        raise ValueError(f"missing_positives is {missing_positives!r}, but must be 'skip' or 'zero'")
    scores = anchors @ keys.T / temperature
    same = anchor_labels[:, None] == key_labels
    negatives = masked_logsumexp(scores, ~same, dim=1)
    if exclude_self:
        same = same & ~torch.eye(len(anchors), dtype=torch.bool, device=anchors.device)

    # With b the negatives' logsumexp: -log( e^s / (e^s + e^b) ) = -logsigmoid(s - b), precise at both ends.
    terms = torch.where(same, -F.logsigmoid(scores - negatives[:, None]), 0)
    positives = same.sum(1)
    counted = positives > 0 if missing_positives == "skip" else torch.ones_like(positives)
    return (terms.sum(1) / positives.clamp(min=1)).sum() / counted.sum().clamp(min=1)
