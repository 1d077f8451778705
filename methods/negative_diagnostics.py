"""What the negatives of a layer are like: how many are kept, how similar they are, and where they lie."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from methods.boundary_aware import NONE

# A misclassified pixel falls into the first bin whose edge its distance does not exceed, or into a last one. Distances
# are those to the edge of its error region: Euclidean, in pixels of the layer's grid, 1 next to the edge.
DISTANCES = (1, 2, 4, 8, 16)


@torch.no_grad()
def negative_diagnostics(
    labels: Tensor,
    marks: Tensor,
    squared: Tensor,
    hard: Tensor,
    similarity: Tensor,
    scores: Tensor,
    mask: Tensor,
    opposed: Tensor,
    temperature: float,
    of_batch: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> dict[str, Tensor]:
    """Of the N valid pixels of a layer.

    labels, marks int64 [N], squared int [N], hard bool [N]: as in contextrast.Layer
    similarity [N, K], scores [M, K]: similarities over temperature, of the pixels and of the negatives to the anchors
    mask bool [M, K]: the negatives of class n are those where column n is true
    opposed bool [N, K]: the anchors that a misclassified pixel is, or if chosen would be, a negative of
    of_batch: makes of a sum over these pixels that over the pixels of all processes, if the loss is about those
    """
    present = of_batch(torch.bincount(labels, minlength=similarity.shape[1])) > 0
    wrong, mask = marks != NONE, mask & present
    pixels, missed, kept = of_batch(torch.stack([labels.new_tensor(len(labels)), wrong.sum(), hard.sum()])).unbind()
    negatives, repulsion = of_batch(mask.sum(0)), of_batch((scores * mask).sum())
    attraction = of_batch(similarity.gather(1, labels[:, None]).sum())
    opposed = opposed[wrong] & present
    binned = _by_distance(squared[wrong], hard[wrong], temperature * similarity[wrong], opposed, of_batch)
    return {
        "kept_share": kept / missed.clamp(min=1),
        "misclassified_share": missed / pixels.clamp(min=1),
        "anchors": present.sum(),
        "positives": pixels,
        "negatives": negatives,  # [K]
        "positive_similarity": temperature * attraction / pixels.clamp(min=1),
        "negative_similarity": temperature * repulsion / negatives.sum().clamp(min=1),
        **{f"distance_bins/{name}": value for name, value in binned.items()},
    }


@torch.no_grad()
def shares_by_layer(
    layers: Sequence[tuple[Tensor, Tensor, Tensor]], of_batch: Callable[[Tensor], Tensor] = lambda sums: sums
) -> dict[str, Tensor]:
    """Of the misclassified pixels of each of I layers, given as (marks, squared, hard): two shares [I], 0 without any.

    `kept`: a share near 1 says that the sampling takes nearly all that is wrong, as where many regions are of one
    pixel. `next_to_edge`, at a distance of 1: near 1, the distances tie, and chance decides what is kept.
    """
    counts = [
        torch.stack([(marks != NONE).sum(), hard.sum(), ((marks != NONE) & (squared == 1)).sum()])
        for marks, squared, hard in layers
    ]
    missed, kept, edge = of_batch(torch.stack(counts)).unbind(1)
    return {"by_layer/kept": kept / missed.clamp(min=1), "by_layer/next_to_edge": edge / missed.clamp(min=1)}


def _by_distance(
    squared: Tensor, hard: Tensor, similarity: Tensor, opposed: Tensor, of_batch: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """By the distance of misclassified pixels: vectors [len(DISTANCES) + 1].

    Their number and that of the chosen ones; and of the chosen and of the others the mean similarity to the opposed
    anchor that a pixel is most similar to, NaN where there are none.
    """
    bins = torch.bucketize(squared, squared.new_tensor([distance**2 for distance in DISTANCES]))
    nearest = similarity.masked_fill(~opposed, -torch.inf).amax(1)
    compared = nearest.isfinite()  # false where no class but the pixel's own is there

    def total(values: Tensor) -> Tensor:
        return of_batch(values.new_zeros(len(DISTANCES) + 1).index_add(0, bins, values))

    def mean(chosen: Tensor) -> Tensor:
        return total(nearest.where(chosen, 0.0)) / total(chosen.to(nearest.dtype))

    return {
        "misclassified": total(torch.ones_like(bins)),
        "kept": total(hard.long()),
        "kept_similarity": mean(hard & compared),
        "left_similarity": mean(~hard & compared),
    }
