"""Prototypes: pixels are contrasted with several prototypes per class, which are updated online.

Zhou et al., "Rethinking Semantic Segmentation: A Prototype View" (ProtoSeg), CVPR 2022.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from methods.class_means import one_hot
from methods.heads import ProjectingMethod
from methods.labels import nearest
from methods.method import full_precision
from methods.options import LayerOptions
from methods.processes import all_sum
from methods.unit_vectors import unit

ITERATIONS, EPSILON = 3, 0.05  # of the Sinkhorn algorithm, as released


class Prototypes(ProjectingMethod):
    """ProtoSeg's two losses as an auxiliary term, without its nonparametric classifier (so this is not ProtoSeg).

    Every class c has M prototypes p_cm, unit vectors. A pixel i of class c with the unit embedding z_i is assigned to
    one of them, m(i), by the Sinkhorn algorithm, which spreads the pixels of a class evenly over its prototypes.

        contrast  mean over i of -log softmax over all classes' prototypes of (z_i . p / temperature) at p_c,m(i)
        distance  mean over i of (1 - z_i . p_c,m(i))^2

    After the loss, a prototype moves by 1 - momentum towards the sum of those of its pixels that are nearest to a
    prototype of their own class. Prototypes are constants for the gradient and the same on all ranks.

    In ProtoSeg the nearest prototype is the prediction, and cross entropy on it trains the embedding. Here the network
    keeps its own classifier, and only these two losses train the projection of the encoder maps, upsampled to the
    finest of them and concatenated. In `variant: official`, as released:
    - the contrast has no temperature
    - a prototype's pixels are drawn with Gumbel noise, mostly other ones than those assigned to it
    - the distance has a tenth of the contrast's weight
    Not reproduced from the release: with several processes it averages their prototypes; here their pixels are summed.

    Peak extra memory (HRNet-W48's maps at 512x1024, batch 8, float32, heads included): 4.00 GiB.
    """

    title = "Prototypes"
    paper = "Rethinking Semantic Segmentation: A Prototype View"
    venue = "CVPR"
    year = 2022
    url = "https://arxiv.org/abs/2203.15102"
    idea = "ProtoSeg's contrast with, and distance to, several prototypes per class, without its classifier."
    left_open = "The released code has no temperature, and moves prototypes to pixels that are drawn at random."

    @dataclass(frozen=True, kw_only=True)
    class Options(LayerOptions):
        """The released constants; temperature and distance_weight are the paper's, which could not be checked."""

        variant: Literal["paper", "official"] = "paper"  # "official": as the released code does it
        dim: Annotated[int, Ge(1)] = 256  # channels of the embeddings; ProtoSeg: 720
        prototypes: Annotated[int, Ge(1)] = 10  # M, prototypes per class
        momentum: Annotated[float, Interval(ge=0, lt=1)] = 0.999  # of the prototypes
        temperature: Annotated[float, Gt(0)] | None = None  # of the contrast; None: 0.1, or official 1
        contrast_weight: Annotated[float, Ge(0)] = 0.01  # of the contrast
        distance_weight: Annotated[float, Ge(0)] | None = None  # of the distance; None: 0.01, or official 0.001

    options: Options
    prototypes: Tensor  # [K, M, dim]

    def __init__(self, channels: Sequence[int], num_classes: int, ignore_index: int = 255, **options: Any) -> None:
        super().__init__(channels, num_classes, ignore_index, **options)
        given = self.options
        self.official = given.variant == "official"
        self.temperature = given.temperature or (1.0 if self.official else 0.1)
        default = 0.001 if self.official else 0.01
        self.distance_weight = default if given.distance_weight is None else given.distance_weight
        self.norm = nn.LayerNorm(given.dim)
        start = F.normalize(torch.randn(num_classes, given.prototypes, given.dim), dim=2)
        self.register_buffer("prototypes", start)

    @full_precision
    def loss(self, embeddings: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int) -> dict[str, Tensor]:
        """{"prototype_contrast", "prototype_distance"}, weighted. Arguments as in Method.loss; logits are not used."""
        (embedding,) = embeddings
        y = nearest(labels, (embedding.shape[2], embedding.shape[3])).flatten()
        valid = y != self.ignore_index
        of_class = one_hot(y, self.num_classes, embedding.dtype)  # [N, K], 0 for an ignored pixel
        z = unit(self.norm(F.normalize(embedding.movedim(1, -1).flatten(0, 2))))
        number = self.options.prototypes
        fixed = self.prototypes.flatten(0, 1).to(z.dtype, copy=True)  # they move before the backward pass
        cosines = z @ fixed.T  # [N, K M]
        own = torch.where(valid, y, 0)
        with torch.no_grad():
            nearness = cosines.view(len(z), self.num_classes, number)
            mine = nearness.gather(1, own[:, None, None].expand(-1, 1, number)).squeeze(1)  # [N, M]
            shares = sinkhorn(mine, of_class)
            assigned = shares.argmax(1)
            right = valid & (nearness.amax(2).argmax(1) == own)
        target, count = own * number + assigned, valid.sum().clamp(min=1)
        terms = F.cross_entropy(cosines / self.temperature, target, reduction="none")
        contrast = (terms * valid).sum() / count
        at_own = cosines.gather(1, target[:, None]).squeeze(1)
        distance = ((1 - at_own).square() * valid).sum() / count
        self.diagnostics = {}
        if self.observing:
            level = self.options.contrast_weight * math.log(self.num_classes * number)
            self.diagnostics = {
                "right_share": right.sum() / count,
                "own_similarity": (at_own.detach() * valid).sum() / count,
                "chance/prototype_contrast": torch.full((), level, device=z.device),
            }
        if self.training:
            self.move(z.detach(), of_class * right[:, None], shares, assigned)
        return {
            "prototype_contrast": self.options.contrast_weight * contrast,
            "prototype_distance": self.distance_weight * distance,
        }

    @torch.no_grad()
    def move(self, z: Tensor, of_class: Tensor, shares: Tensor, assigned: Tensor) -> None:
        """Update the prototypes; of_class [N, K] is 0 for pixels to ignore."""
        if self.official:
            chosen = F.gumbel_softmax(shares, tau=0.5, hard=True)
        else:
            chosen = one_hot(assigned, self.options.prototypes, z.dtype)
        weights = (of_class[:, :, None] * chosen[:, None]).flatten(1)  # [N, K M]
        sums, counts = all_sum(weights.T @ z), all_sum(weights.sum(0))
        direction = F.normalize(sums).view_as(self.prototypes).to(self.prototypes.dtype)
        moved = self.options.momentum * self.prototypes + (1 - self.options.momentum) * direction
        there = (counts > 0).view(self.num_classes, -1, 1)
        self.prototypes.copy_(torch.where(there, F.normalize(moved, dim=2), self.prototypes))


def sinkhorn(similarity: Tensor, of_class: Tensor) -> Tensor:
    """Soft assignment [N, M] of each pixel to the prototypes of its class, such that a class's prototypes share evenly.

    similarity [N, M] with the prototypes of a pixel's own class; of_class [N, K], its one-hot class, 0 for a pixel to
    ignore, whose assignment is meaningless. Columns are normalised to equal sums within a class, then rows to 1.
    """
    shares = (similarity / EPSILON).exp()
    for _ in range(ITERATIONS):
        columns = of_class.T @ shares  # [K, M]
        shares = shares / (of_class @ columns).where(of_class.any(1, keepdim=True), 1)
        shares = shares / shares.sum(1, keepdim=True)
    return shares
