"""Diagnostics of whether a method learns: how its embeddings spread, and how strongly its terms move the encoder.

Computed on the batches of the logged iterations, without synchronising with the GPU. On a CPU this costs 0.2 % of the
training time with Contextrast in config/camvid-small.yaml, 0.2 to 0.4 % in config/smoke.yaml, and 1.3 % with PNE there.
`runs.health` explains how to read the figures. A method reports its own chance level as `chance/TERM` in its
diagnostics.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.datasets import IGNORE_INDEX

SAMPLE = 512  # embeddings per map, evenly spaced over the batch, that are compared pairwise
# Each rank measures its own images; the history averages over the ranks.
MEASURED = ("effective_rank", "similarity_within", "similarity_between", "gradient_ratio", "gradient_cosine")


@torch.no_grad()
def embedding_health(embeddings: Sequence[Tensor], labels: Tensor) -> dict[str, Tensor]:
    """Effective rank of the embeddings and mean similarities within and between classes: float32 scalars, [maps].

    embeddings: [B, d, h, w] for each map, fine to coarse; labels: int64 [B, H, W]. The scalars are the finest map's;
    "by_layer/..." has all maps. With the embeddings of at most `SAMPLE` valid pixels as unit rows z of Z:

    - effective_rank: (sum of the eigenvalues of Z'Z)^2 / sum of their squares, from 1 (all in one direction) to
      min(d, SAMPLE). This is the exponential of the Renyi entropy of order 2, and needs no eigendecomposition.
    - similarity_within, similarity_between: mean cosine of two pixels of the same class, and of different classes.
    """
    found: dict[str, list[Tensor]] = {}
    for each in embeddings:
        for name, value in _of_map(each, labels).items():
            found.setdefault(name, []).append(value)
    return _scalars_and_layers(found)


class EncoderGradients:
    """Compares the gradients of a method's terms and of cross entropy at the encoder's maps.

    features: the encoder's maps [B, C_i, h_i, w_i], fine to coarse; terms: the method's, at least one. Construct it
    before the backward pass of the whole loss and call `health` after. This costs a second backward pass of the method
    down to these maps; cross entropy's gradient is the whole loss's minus the terms'.
    """

    def __init__(self, features: Sequence[Tensor], terms: Mapping[str, Tensor]) -> None:
        total = torch.stack([term.float() for term in terms.values()]).sum()
        found = torch.autograd.grad(total, list(features), retain_graph=True, allow_unused=True)
        self._own = [torch.zeros_like(f) if g is None else g for f, g in zip(features, found, strict=True)]
        self._whole = [torch.zeros_like(feature) for feature in features]
        self._hooks = [f.register_hook(partial(self._whole.__setitem__, i)) for i, f in enumerate(features)]

    def health(self) -> dict[str, Tensor]:
        """gradient_ratio (norm of the terms' gradient over cross entropy's) and gradient_cosine (between the two).

        float32 scalars over all maps, and vectors [maps] under "by_layer/".
        """
        for hook in self._hooks:
            hook.remove()
        pairs = [(own.float(), whole.float() - own.float()) for own, whole in zip(self._own, self._whole, strict=True)]
        own, other = (torch.stack([pair[i].square().sum() for pair in pairs]) for i in (0, 1))
        products = torch.stack([(mine * theirs).sum() for mine, theirs in pairs])

        def compared(own: Tensor, other: Tensor, products: Tensor) -> tuple[Tensor, Tensor]:
            return (own / other).sqrt(), products / (own * other).sqrt()  # not finite if one gradient is zero

        ratio, cosine = compared(own.sum(), other.sum(), products.sum())
        by_layer = compared(own, other, products)
        return {
            "gradient_ratio": ratio,
            "gradient_cosine": cosine,
            "by_layer/gradient_ratio": by_layer[0],
            "by_layer/gradient_cosine": by_layer[1],
        }


def _of_map(embeddings: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The figures of one map, NaN if the sample has no such pixels or pairs."""
    size = (embeddings.shape[2], embeddings.shape[3])
    classes = F.interpolate(labels[:, None].float(), size, mode="nearest").flatten()
    chosen = torch.linspace(0, len(classes) - 1, min(SAMPLE, len(classes)), device=classes.device).long()
    pixels = size[0] * size[1]
    vectors = embeddings.flatten(2)[chosen // pixels, :, chosen % pixels]
    vectors, classes = F.normalize(vectors.float(), dim=1), classes[chosen]
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
