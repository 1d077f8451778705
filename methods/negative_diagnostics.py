"""Diagnostics of a layer's negatives: how many are kept, how similar they are, and how far from an edge."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from methods.boundary_aware import NONE

# Upper limits of the bins for the distance of a misclassified pixel to the edge of its error region; larger distances
# have one more bin. Euclidean, in pixels of the layer's grid, 1 next to the edge.
DISTANCES = (1, 2, 4, 8, 16)


@torch.no_grad()
def negative_diagnostics(
    of_class: Tensor,
    marks: Tensor,
    squared: Tensor,
    hard: Tensor,
    similarity: Tensor,
    negatives: Tensor,
    opposed: Tensor,
    temperature: float,
    of_batch: Callable[[Tensor], Tensor] = lambda sums: sums,
) -> dict[str, Tensor]:
    """{name: value} for the N pixels of a layer.

    of_class [N, K], marks int64 [N], squared int [N], hard bool [N]: as in contextrast.Layer
    similarity [N, K]: similarities over temperature, of the pixels to the anchors
    negatives bool [N, K]: column n marks the negatives of class n
    opposed bool [N, K]: the anchors of which a misclassified pixel is a negative, or would be if it was sampled
    of_batch: sums a value over all ranks if the loss is computed over all ranks' pixels
    """
    present = of_batch(of_class.sum(0)) > 0
    wrong, negatives = marks != NONE, negatives & present
    pixels, missed, kept = of_batch(torch.stack([(of_class > 0).sum(), wrong.sum(), hard.sum()])).unbind()
    number, repulsion = of_batch(negatives.sum(0)), of_batch((similarity * negatives).sum())
    attraction = of_batch((similarity * of_class).sum())
    binned = _by_distance(squared, wrong, hard, temperature * similarity, opposed & present, of_batch)
    return {
        "kept_share": kept / missed.clamp(min=1),
        "misclassified_share": missed / pixels.clamp(min=1),
        "anchors": present.sum(),
        "positives": pixels,
        "negatives": number,  # [K]
        "positive_similarity": temperature * attraction / pixels.clamp(min=1),
        "negative_similarity": temperature * repulsion / number.sum().clamp(min=1),
        **{f"distance_bins/{name}": value for name, value in binned.items()},
    }


@torch.no_grad()
def shares_by_layer(
    layers: Sequence[tuple[Tensor, Tensor, Tensor]], of_batch: Callable[[Tensor], Tensor] = lambda sums: sums
) -> dict[str, Tensor]:
    """Two shares [I] of the misclassified pixels of I layers, given as (marks, squared, hard); 0 without any.

    `kept`: if near 1, the sampling takes nearly all misclassified pixels, as when many regions have only one pixel.
    `next_to_edge` (at a distance of 1): if near 1, distances tie and the sampling is random.
    """
    counts = [
        torch.stack([(marks != NONE).sum(), hard.sum(), ((marks != NONE) & (squared == 1)).sum()])
        for marks, squared, hard in layers
    ]
    missed, kept, edge = of_batch(torch.stack(counts)).unbind(1)
    return {"by_layer/kept": kept / missed.clamp(min=1), "by_layer/next_to_edge": edge / missed.clamp(min=1)}


def _by_distance(
    squared: Tensor,
    wrong: Tensor,
    hard: Tensor,
    similarity: Tensor,
    opposed: Tensor,
    of_batch: Callable[[Tensor], Tensor],
) -> dict[str, Tensor]:
    """Vectors [len(DISTANCES) + 1] over the bins of the misclassified pixels' distances.

    The number of misclassified and of sampled pixels; and for the sampled and the other ones the mean similarity to
    their most similar opposed anchor, NaN if there are none.
    """
    place = torch.stack([squared > distance**2 for distance in DISTANCES]).sum(0)
    bins = wrong[:, None] & (place[:, None] == torch.arange(len(DISTANCES) + 1, device=squared.device))
    nearest = similarity.masked_fill(~opposed, -torch.inf).amax(1)
    compared = nearest.isfinite()  # false if only the pixel's own class is present

    def number(chosen: Tensor) -> Tensor:
        return of_batch((bins & chosen[:, None]).sum(0))

    def mean(chosen: Tensor) -> Tensor:
        return of_batch((bins * nearest.where(chosen, 0.0)[:, None]).sum(0)) / number(chosen)

    return {
        "misclassified": number(wrong),
        "kept": number(hard),
        "kept_similarity": mean(hard & compared),
        "left_similarity": mean(wrong & ~hard & compared),
    }
