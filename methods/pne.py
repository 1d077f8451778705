"""PNE: misclassified pixels are contrasted with as many correct pixels of their true as of their predicted class.

Wang et al., "Positive-Negative Equal Contrastive Loss for Semantic Segmentation", Neurocomputing 2023.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, MinLen
from torch import Tensor

from methods.blocks import sum_over_blocks
from methods.heads import chosen_layers, concatenated, norm_relu_head
from methods.labels import nearest
from methods.method import Method, full_precision
from methods.options import check_layers
from methods.ranking import draw_from_groups
from methods.unit_vectors import unit

ELEMENTS_AT_A_TIME = 2**24  # of the confusions' vectors: 64 MiB


class Confusions(NamedTuple):
    """C confusions: the pixels of one image with one true and one predicted class. Indices of pixels, n in each set."""

    anchors: Tensor  # [C, n], misclassified
    positives: Tensor  # [C, n], correctly classified, of the true class
    negatives: Tensor  # [C, n], correctly classified, of the predicted class; the anchors where there are none
    misclassified: Tensor  # [C], how many pixels the confusion has


class PNE(Method):
    """For each confusion of an image: its pixels a, with correct pixels p of the true and n of the predicted class.

        l_a = log( 1 + sum_n exp(cos(a, n) / tau) / sum_p w_p exp(cos(a, p) / tau) ),    L = mean l_a * M / (C size)

    with w_p the largest softmax probability at p, C confusions, and M misclassified pixels in them. The vectors p and n
    and the length of a are constants for the gradient. A set with more pixels than `size` is cut, and one with fewer is
    repeated. Confusions with more than `max_pixels` pixels or without positives are left out; a grid finer than the
    paper's, which has stride 8, leaves out more of them.

    The paper uses the decode head's ASPP output. Here, for all models, the embedding is a projection of the encoder
    maps, upsampled to the finest of them and concatenated.

    In `variant: paper` sets are cut and repeated in random order. In "official", as released:
    - the sets are in raster order, so a cut keeps the top of the image
    - a confusion with a class that has no pixel in the image is left out

    Peak extra memory (HRNet-W48's maps at 512x1024, batch 8, float32, heads included): 3.52 GiB.
    """

    title = "PNE"
    paper = "Positive-Negative Equal Contrastive Loss for Semantic Segmentation"
    venue = "Neurocomputing"
    year = 2023
    url = "https://arxiv.org/abs/2207.01417"
    idea = (
        "Misclassified pixels are contrasted with as many correct pixels of their true class as of the predicted one."
    )
    left_open = (
        "The released code cuts sets in raster order and skips confusions with a class that is not in the image."
    )

    @dataclass(frozen=True, kw_only=True)
    class Options(Method.Options):
        """The released code's constants."""

        variant: Literal["paper", "official"] = "paper"  # "official": as the released code does it
        dim: Annotated[int, Ge(1)] = 256  # channels of the embeddings
        temperature: Annotated[float, Gt(0)] = 1.0  # tau
        weight: Annotated[float, Ge(0)] = 1.3  # of the loss
        size: Annotated[int, Ge(1)] = 100  # pixels in each set
        max_pixels: Annotated[int, Ge(1)] = 199  # of a confusion that is used
        # indices of the encoder maps that are used, from the finest; None: all
        layers: Annotated[tuple[int, ...], MinLen(1)] | None = None

        def check_maps(self, number: int) -> None:
            """`layers` must name maps that exist."""
            check_layers(self.layers, number)

    options: Options

    def __init__(self, channels: Sequence[int], num_classes: int, ignore_index: int = 255, **options: Any) -> None:
        super().__init__(channels, num_classes, ignore_index, **options)
        self.official = self.options.variant == "official"
        self.layers = chosen_layers(self.options.layers, len(channels))
        self.head = norm_relu_head(sum(channels[i] for i in self.layers), self.options.dim)

    def embed(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Encoder maps [B, C_i, H_i, W_i] -> one map [B, dim, H, W] on the grid of the finest one used."""
        return [self.head(concatenated(features, self.layers))]

    @full_precision
    def loss(self, embeddings: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int) -> dict[str, Tensor]:
        """{"pne": weight * L}. Arguments as in Method.loss."""
        (embedding,) = embeddings
        size = (embedding.shape[2], embedding.shape[3])
        labels = nearest(labels, size)
        valid = labels != self.ignore_index
        scores = F.interpolate(logits.detach().to(embedding.dtype), size, mode="nearest").movedim(1, -1)[valid]
        image = torch.arange(len(labels), device=labels.device)[:, None, None].expand_as(labels)[valid]
        confusions = self.confusions(image, labels[valid], scores.argmax(1), len(labels))

        vectors = embedding.movedim(1, -1)[valid]
        fixed, log_weight = unit(vectors.detach()), scores.log_softmax(1).amax(1)
        anchors = vectors / vectors.detach().norm(dim=1, keepdim=True).clamp_min(1e-12)

        def losses(a: Tensor, p: Tensor, n: Tensor) -> Tensor:
            """[3]: sums of l_a, of the cosines with the positives and of those with the negatives."""
            rows = anchors.index_select(0, a.flatten()).view(*a.shape, anchors.shape[1])
            positive, negative = rows @ fixed[p].mT, rows @ fixed[n].mT
            attraction = (positive / self.options.temperature + log_weight[p][:, None]).logsumexp(2)
            repulsion = (negative / self.options.temperature).logsumexp(2)
            return torch.stack([F.softplus(repulsion - attraction).sum(), positive.sum(), negative.sum()])

        block = max(ELEMENTS_AT_A_TIME // (self.options.size * vectors.shape[1]), 1)
        loss, positive, negative = sum_over_blocks(losses, confusions[:3], block)
        slots = max(confusions.anchors.numel(), 1)
        pixels = confusions.misclassified.sum()
        loss = loss / slots * pixels / slots
        self.diagnostics = {
            "confusions": pixels.new_tensor(len(confusions.anchors)),
            "anchors": pixels,
            "positive_similarity": positive.detach() / (slots * self.options.size),
            "negative_similarity": negative.detach() / (slots * self.options.size),
        }
        if self.observing:  # with all cosines alike, l_a is log(1 + 1 / mean w_p)
            level = F.softplus(math.log(self.options.size) - log_weight[confusions.positives].logsumexp(1)).sum()
            chance = self.options.weight * level * self.options.size / slots * pixels / slots
            self.diagnostics["chance/pne"] = chance
        return {"pne": self.options.weight * loss}

    def confusions(self, image: Tensor, labels: Tensor, prediction: Tensor, images: int) -> Confusions:
        """The confusions that are used, of pixels [N] given by image, label and prediction, each int64 [N]."""
        true = image * self.num_classes + labels
        wrong = (prediction != labels).nonzero().squeeze(1)
        right = (prediction == labels).nonzero().squeeze(1)
        kinds, confusion, pixels = torch.unique(
            true[wrong] * self.num_classes + prediction[wrong], return_inverse=True, return_counts=True
        )
        of_true = kinds // self.num_classes
        of_predicted = of_true // self.num_classes * self.num_classes + kinds % self.num_classes

        missed, _ = draw_from_groups(confusion, len(kinds), self.options.size, shuffle=not self.official)
        correct, number = draw_from_groups(true[right], images * self.num_classes, self.options.size, not self.official)
        used = (pixels <= self.options.max_pixels) & (number[of_true] > 0)
        if self.official:
            used &= torch.bincount(true, minlength=images * self.num_classes)[of_predicted] > 0
        of_true, of_predicted = of_true[used], of_predicted[used]
        anchors = wrong[missed[used]]
        alone = (number[of_predicted] == 0)[:, None]
        negatives = torch.where(alone, anchors, right[correct[of_predicted]])
        return Confusions(anchors, right[correct[of_true]], negatives, pixels[used])
