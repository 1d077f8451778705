"""Whether a method learns: how its embeddings spread, and how its terms move the encoder.

Measured on the batches of the logged iterations, without making the host wait for a GPU. On a CPU it takes 0.2 % of a
training with Contextrast in config/camvid-small.yaml, 0.2 to 0.4 % in config/smoke.yaml and, with PNE there, 1.3 %.
`runs.health` says what the figures mean. A method adds its own chance level as `chance/TERM` in its diagnostics.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.datasets import IGNORE_INDEX

SAMPLE = 512  # embeddings of a map, evenly spaced over the batch, that are compared with each other
# What is measured. With several processes each measures its own images; the history averages over them.
MEASURED = ("effective_rank", "similarity_within", "similarity_between", "gradient_ratio", "gradient_cosine")


@torch.no_grad()
def embedding_health(embeddings: Sequence[Tensor], labels: Tensor) -> dict[str, Tensor]:
    """How many directions embeddings fill and how far classes are apart: float32 scalars, and vectors [maps].

    embeddings: [B, d, h, w] for each map, fine to coarse; labels: int64 [B, H, W]. The scalars are the finest map's,
    "by_layer/..." has all maps. With the embeddings of at most `SAMPLE` valid pixels as rows z of length 1:

    - effective_rank: (sum of the eigenvalues of Z'Z)^2 / sum of their squares, from 1 (all in one direction) to
      min(d, SAMPLE). This is the exponential of the Renyi entropy of order 2, which needs no decomposition.
    - similarity_within, similarity_between: the mean cosine of two pixels of the same class, and of different classes.
    """
    found: dict[str, list[Tensor]] = {}
    for each in embeddings:
        for name, value in _of_map(each, labels).items():
            found.setdefault(name, []).append(value)
    return _scalars_and_layers(found)


class EncoderGradients:
    """Compares the gradient at the encoder's maps from a method's terms with that from cross entropy.

    features: the encoder's maps [B, C_i, h_i, w_i], fine to coarse; terms: of the method, one at least. Make it before
    the backward pass of the whole loss, and call `health` after it. That costs a second backward pass of the method,
    down to these maps: cross entropy's gradient there is the whole loss's less the terms'.
    """

    def __init__(self, features: Sequence[Tensor], terms: Mapping[str, Tensor]) -> None:
        total = torch.stack([term.float() for term in terms.values()]).sum()
        found = torch.autograd.grad(total, list(features), retain_graph=True, allow_unused=True)
        self._own = [torch.zeros_like(f) if g is None else g for f, g in zip(features, found, strict=True)]
        self._whole = [torch.zeros_like(feature) for feature in features]
        self._hooks = [f.register_hook(partial(self._whole.__setitem__, i)) for i, f in enumerate(features)]

    def health(self) -> dict[str, Tensor]:
        """float32 scalars for all maps together, and vectors [maps] under "by_layer/".

        gradient_ratio, the norm of the terms' gradient over cross entropy's, and gradient_cosine between the two.
        """
        for hook in self._hooks:
            hook.remove()
        pairs = [(own.float(), whole.float() - own.float()) for own, whole in zip(self._own, self._whole, strict=True)]
        own, other = (torch.stack([pair[i].square().sum() for pair in pairs]) for i in (0, 1))
        products = torch.stack([(mine * theirs).sum() for mine, theirs in pairs])

        def compared(own: Tensor, other: Tensor, products: Tensor) -> tuple[Tensor, Tensor]:
            return (own / other).sqrt(), products / (
                own * other
            ).sqrt()  # not finite where a map is in one of them alone

        ratio, cosine = compared(own.sum(), other.sum(), products.sum())
        by_layer = compared(own, other, products)
        return {
            "gradient_ratio": ratio,
            "gradient_cosine": cosine,
            "by_layer/gradient_ratio": by_layer[0],
            "by_layer/gradient_cosine": by_layer[1],
        }


def _of_map(embeddings: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """The figures of one map, NaN where the sample has no such pixels or pairs."""
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
