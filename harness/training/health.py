"""Whether a method learns: what its embeddings are worth, and what its terms do to the encoder.

Measured at the logged iterations alone, on that iteration's batch, without waiting for the device: 0.8 to 0.9 % of a
training on CamVid that logs every 50 iterations, on a CPU; 2 % with every 20. `runs.health` says what the figures mean.
A method's own part is its chance level: `chance/TERM` in its diagnostics.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.datasets import IGNORE_INDEX

SAMPLE = 512  # embeddings of a map that are compared with each other, evenly spaced over the batch
# What is measured. Each of several processes measures its own images, and the history averages over the processes.
MEASURED = ("effective_rank", "similarity_within", "similarity_between", "gradient_ratio", "gradient_cosine")


@torch.no_grad()
def embedding_health(embeddings: Sequence[Tensor], labels: Tensor) -> dict[str, Tensor]:
    """How much of their space embeddings fill, and whether classes lie apart, as float32 scalars and vectors [maps].

    embeddings: [B, d, h, w] for each map, fine to coarse; labels: int64 [B, H, W]. Of `SAMPLE` valid pixels as unit
    vectors z, the scalars for the finest map and "by_layer/..." for all of them:

    - effective_rank, (sum of the eigenvalues of Z'Z)^2 / sum of their squares, from 1 (all along one direction) to
      min(d, SAMPLE). It is the exponential of the Renyi entropy of order 2, and needs no decomposition.
    - similarity_within, similarity_between: mean cosine of two random pixels of one class, of two classes.
    """
    found: dict[str, list[Tensor]] = {}
    for each in embeddings:
        for name, value in _of_map(each, labels).items():
            found.setdefault(name, []).append(value)
    return _scalars_and_layers(found)


def gradient_health(
    features: Sequence[Tensor], cross_entropy: Mapping[str, Tensor], terms: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Who moves the encoder: the gradient at its maps from a method's terms beside that from cross entropy.

    features: the encoder's maps [B, C_i, h_i, w_i], fine to coarse, with the graph of both losses. float32 scalars for
    all maps together and "by_layer/..." vectors [maps]: gradient_ratio, the norm of the terms' gradient over that of
    cross entropy's, and gradient_cosine between the two. Costs the backward pass of decoder and method once more, and
    none of the encoder's. Empty without terms.
    """
    if not terms:
        return {}
    pairs = []
    for losses in (cross_entropy, terms):
        total = torch.stack([loss.float() for loss in losses.values()]).sum()
        found = torch.autograd.grad(total, list(features), retain_graph=True, allow_unused=True)
        pairs.append([torch.zeros_like(f) if g is None else g for f, g in zip(features, found, strict=True)])
    squares = [torch.stack([gradient.float().square().sum() for gradient in gradients]) for gradients in pairs]
    products = torch.stack([(one.float() * other.float()).sum() for one, other in zip(*pairs, strict=True)])
    own, others = squares[1], squares[0]

    def compared(own: Tensor, others: Tensor, products: Tensor) -> tuple[Tensor, Tensor]:
        return (own / others).sqrt(), products / (own * others).sqrt()  # NaN where a map is in one of them alone

    ratio, cosine = compared(own.sum(), others.sum(), products.sum())
    by_layer = compared(own, others, products)
    return {
        "gradient_ratio": ratio,
        "gradient_cosine": cosine,
        "by_layer/gradient_ratio": by_layer[0],
        "by_layer/gradient_cosine": by_layer[1],
    }


def _of_map(embeddings: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The figures of one map; NaN where the sample holds no valid pixel, or no pair of the kind."""
    size = (embeddings.shape[2], embeddings.shape[3])
    vectors = embeddings.movedim(1, -1).flatten(0, 2).float()
    classes = F.interpolate(labels[:, None].float(), size, mode="nearest").flatten()
    chosen = torch.linspace(0, len(vectors) - 1, min(SAMPLE, len(vectors)), device=vectors.device).long()
    vectors, classes = F.normalize(vectors[chosen], dim=1), classes[chosen]
    valid = classes != IGNORE_INDEX
    similarity = vectors @ vectors.T
    pairs = valid[:, None] & valid & ~torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    same = classes[:, None] == classes

    def mean(where: Tensor) -> Tensor:
        return (similarity * where).sum() / where.sum()

    # The eigenvalues of Z'Z are those of ZZ', whose trace is the number of vectors.
    both = valid[:, None] & valid
    return {
        "effective_rank": valid.sum() ** 2 / (similarity.square() * both).sum(),
        "similarity_within": mean(pairs & same),
        "similarity_between": mean(pairs & ~same),
    }


def _scalars_and_layers(found: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
    scalars = {name: values[0] for name, values in found.items()}
    return scalars | {f"by_layer/{name}": torch.stack(list(values)) for name, values in found.items()}
