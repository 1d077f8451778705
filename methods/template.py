"""Template: one line that says what it does.

Authors, title, venue, year, and the equations that the functions below follow. This is already a complete method: it
pulls each pixel's embedding to the mean of its class and pushes it away from the other classes' means.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor

from methods.class_means import class_means
from methods.heads import relu_norm_head
from methods.labels import nearest
from methods.method import Method, full_precision


class Template(Method):
    """Contrast of every pixel with the means of the classes in the mini-batch, on the finest encoder map."""

    title = "Template"
    idea = "A pixel is pulled to the mean of its class and pushed from the other classes' means."

    @dataclass(frozen=True, kw_only=True)
    class Options(Method.Options):
        """The options that an arm of an experiment can set, with their allowed values."""

        dim: Annotated[int, Ge(1)] = 64  # channels of the embeddings
        temperature: Annotated[float, Gt(0)] = 0.1  # divides the cosines
        weight: Annotated[float, Ge(0)] = 0.1  # of the loss

    options: Options

    def __init__(self, channels: Sequence[int], num_classes: int, ignore_index: int = 255, **options: Any) -> None:
        super().__init__(channels, num_classes, ignore_index, **options)
        self.head = relu_norm_head(channels[0], self.options.dim)

    def embed(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Encoder maps [B, C_i, H_i, W_i], fine to coarse -> one map of raw embeddings [B, dim, H_1, W_1]."""
        return [self.head(features[0])]

    @full_precision
    def loss(self, embeddings: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int) -> dict[str, Tensor]:
        """{"template": weight * L}. Arguments as in Method.loss; `logits` holds the current prediction."""
        (embedding,) = embeddings
        labels = nearest(labels, (embedding.shape[2], embedding.shape[3]))
        valid = (labels != self.ignore_index).flatten()  # a mask, since shapes must not depend on data
        labels = torch.where(valid, labels.flatten(), self.num_classes)  # [N]; K is no class
        vectors = F.normalize(embedding.movedim(1, -1).flatten(0, 2))  # [N, dim]

        means, counts = class_means(vectors, labels, self.num_classes)
        similarity = vectors @ F.normalize(means).T / self.options.temperature  # [N, K]
        similarity = similarity.masked_fill(counts == 0, -torch.inf)  # absent classes
        terms = F.cross_entropy(similarity, labels, ignore_index=self.num_classes, reduction="sum")

        self.diagnostics = {"classes": (counts > 0).sum()} if self.observing else {}  # plotted over the iterations
        return {"template": self.options.weight * terms / valid.sum().clamp(min=1)}  # finite even without valid pixels
