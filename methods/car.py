"""CAR: class-aware regularisation of the features, with class centres instead of pairs of pixels.

Huang et al., "CAR: Class-aware Regularizations for Semantic Segmentation", ECCV 2022.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from methods.class_means import class_means
from methods.heads import ProjectingMethod
from methods.labels import nearest
from methods.method import full_precision
from methods.options import LayerOptions


class CAR(ProjectingMethod):
    """Pulls features to the centre of their class, and pushes centres and features away from other classes' centres.

    The paper applies the terms to the features x in front of the classifier, through a linear layer that inference can
    merge with the next one. Here x is a linear projection, used in training only, of the encoder maps, upsampled to the
    finest of them and concatenated. A centre mu_c is the mean of x over the pixels of class c in the mini-batch.

    The terms, with sg(.) a constant for the gradient:

    intra             ( mean |sg(mu_y) - x| )^2, the mean over pixels and channels
    centre_to_centre  ( mean_i sum_{j != i} [ p_ij - centre_margin / (K - 1) ]+ )^2, with
                      p_i = softmax over j of mu_i . sg(mu_j) / sqrt(dim)
    centre_to_pixel   the same with pixel_margin, over pixels i with p_i = softmax over j of
                      x_i . sg(mu_j) / sqrt(dim), where the entry of the pixel's own class y is |sg(mu_y)|^2 / sqrt(dim)

    In `variant: paper` the K classes are those with a centre, and the pixels are those with a label. In "official", as
    released:
    - absent classes are included with a centre of zero, and K is the number of all classes
    - ignored pixels are included in centre-to-pixel, where every class is an other class for them
    - ignored pixels are included in the intra term's mean, with a distance of 0
    The intra term grows with the square of the features' scale, and nothing here bounds that scale.
    Not reproduced from the release: it drops terms below about 1e-5, and centre-to-pixel is off by default.

    Peak extra memory (HRNet-W48's maps at 512x1024, batch 8, float32, heads included): 4.29 GiB.
    """

    title = "CAR"
    paper = "CAR: Class-aware Regularizations for Semantic Segmentation"
    venue = "ECCV"
    year = 2022
    url = "https://arxiv.org/abs/2203.07160"
    idea = "Features move to the centre of their class, and centres and features away from other classes' centres."
    left_open = "The released code counts absent classes and ignored pixels, and leaves the centre-to-pixel term off."

    @dataclass(frozen=True, kw_only=True)
    class Options(LayerOptions):
        """The paper's constants."""

        former_names: ClassVar[Mapping[str, str]] = {
            "intra": "intra_weight",
            "centre_to_centre": "centre_to_centre_weight",
            "centre_to_pixel": "centre_to_pixel_weight",
        }

        variant: Literal["paper", "official"] = "paper"  # "official": as the released code does it
        dim: Annotated[int, Ge(1)] = 512  # channels of x, but never more than the concatenated maps have
        intra_weight: Annotated[float, Ge(0)] = 1.0  # of the term intra
        centre_to_centre_weight: Annotated[float, Ge(0)] = 1.0  # of the term centre_to_centre
        centre_to_pixel_weight: Annotated[float, Ge(0)] = 1.0  # of the term centre_to_pixel
        # the total probability of all other classes that costs nothing in centre_to_centre
        centre_margin: Annotated[float, Ge(0)] = 0.5
        pixel_margin: Annotated[float, Ge(0)] = 0.25  # the same in centre_to_pixel
        sync_means: bool = True  # centres are means over the pixels of all processes

    options: Options

    def __init__(self, channels: Sequence[int], num_classes: int, ignore_index: int = 255, **options: Any) -> None:
        super().__init__(channels, num_classes, ignore_index, **options)
        self.official = self.options.variant == "official"

    def make_head(self, channels: int, dim: int) -> nn.Module:
        """A linear projection to at most as many channels as its input has."""
        return nn.Conv2d(channels, min(dim, channels), 1)

    @full_precision
    def loss(self, embeddings: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int) -> dict[str, Tensor]:
        """{"intra", "centre_to_centre", "centre_to_pixel"}, weighted. Arguments as in Method.loss."""
        (embedding,) = embeddings
        x = embedding.movedim(1, -1).flatten(0, 2)  # [N, d]
        y = nearest(labels, (embedding.shape[2], embedding.shape[3])).flatten()
        valid = y != self.ignore_index
        y = torch.where(valid, y, self.num_classes)
        centres, counts = class_means(x, y, self.num_classes, self.options.sync_means)
        taking_part = torch.ones_like(counts, dtype=torch.bool) if self.official else counts > 0
        counted = torch.ones_like(valid) if self.official else valid
        pixels = counted.sum().clamp(min=1)

        fixed, root = centres.detach(), centres.shape[1] ** 0.5
        own = fixed[y.clamp(max=self.num_classes - 1)]
        distance = ((own - x).abs().sum(1) * valid).sum() / (pixels * x.shape[1])
        similarity = centres @ fixed.T / root
        classes = torch.arange(self.num_classes, device=y.device)
        centre_excess = excess(similarity, classes, taking_part, self.options.centre_margin) * taking_part
        similarity = x @ fixed.T / root
        similarity = torch.where(y[:, None] == classes, fixed.square().sum(1) / root, similarity)
        pixel_excess = excess(similarity, y, taking_part, self.options.pixel_margin) * counted
        means = {
            "intra": distance,
            "centre_to_centre": centre_excess.sum() / taking_part.sum().clamp(min=1),
            "centre_to_pixel": pixel_excess.sum() / pixels,
        }
        self.diagnostics = {}
        if self.observing:
            self.diagnostics = {f"{name}/mean": mean.detach() for name, mean in means.items()}
            self.diagnostics |= self.chances(taking_part.sum(), (counted & ~valid).sum() / pixels)
            self.diagnostics |= self.centre_diagnostics(x.detach(), own, valid, fixed, counts)
        return {name: getattr(self.options, f"{name}_weight") * mean.square() for name, mean in means.items()}

    def chances(self, number: Tensor, classless: Tensor) -> dict[str, Tensor]:
        """The chance levels of the terms between classes: all K = `number` classes have a softmax of 1 / K.

        classless: the share of pixels in centre-to-pixel without a class, for which all K classes are other classes.
        Intra has no chance level: identical features reach its best value, 0.
        """
        found = {}
        for kind, others in (("centre", number - 1), ("pixel", number - 1 + classless)):
            margin, weight = getattr(self.options, f"{kind}_margin"), getattr(self.options, f"centre_to_{kind}_weight")
            over = (1 / number.clamp(min=1) - margin / (number - 1).clamp(min=1)).relu()
            found[f"chance/centre_to_{kind}"] = weight * (others.clamp(min=0) * over).square()
        return found

    def centre_diagnostics(
        self, x: Tensor, own: Tensor, valid: Tensor, centres: Tensor, counts: Tensor
    ) -> dict[str, Tensor]:
        """Pixels per class, number of centres, and mean cosines of a pixel and its centre and of two centres."""
        present = counts > 0
        pairs = (present.sum() ** 2 - present.sum()).clamp(min=1)
        directions = F.normalize(centres)
        return {
            "pixels": counts.detach(),
            "centres": present.sum(),
            "own_centre_similarity": (F.cosine_similarity(x, own) * valid).sum() / valid.sum().clamp(min=1),
            "centre_similarity": (directions.sum(0).square().sum() - directions.square().sum()) / pairs,
        }


def excess(similarity: Tensor, own: Tensor, taking_part: Tensor, margin: float) -> Tensor:
    """The total by which the softmax of classes other than a row's own exceeds margin / (K - 1): [N].

    similarity [N, C]; own int64 [N], C for none; taking_part bool [C], true for the K classes of the
    softmax.
    """
    lowest = torch.finfo(similarity.dtype).min  # not -inf, whose softmax is NaN if no class takes part
    share = similarity.masked_fill(~taking_part, lowest).softmax(1)
    allowed = margin / (taking_part.sum() - 1).clamp(min=1).to(similarity.dtype)
    other = taking_part & (own[:, None] != torch.arange(len(taking_part), device=own.device))
    return ((share - allowed).relu() * other).sum(1)
