"""PNE: misclassified pixels are contrasted with equally many correct pixels of their true and predicted class.

Wang et al., "Positive-Negative Equal Contrastive Loss for Semantic Segmentation", Neurocomputing 2023.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor

from methods.blocks import sum_over_blocks
from methods.class_means import one_hot
from methods.fixed_sizes import rows_for
from methods.heads import ProjectingMethod
from methods.labels import nearest
from methods.method import full_precision
from methods.options import LayerOptions
from methods.pair_sampling import positions_of
from methods.ranking import Groups

ELEMENTS_AT_A_TIME = 2**24  # elements of the confusions' vectors at a time: 64 MiB
MOST_CONFUSIONS = 4096  # fixed size on a GPU; if more are possible, the host waits to read their number


class Confusions(NamedTuple):
    """C confusions, each the pixels of an image with one true and one predicted class; n pixel indices in each set."""

    anchors: Tensor  # [C, n], misclassified
    positives: Tensor  # [C, n], correctly classified, of the true class
    negatives: Tensor  # [C, n], correctly classified, of the predicted class; the anchors if there are none
    misclassified: Tensor  # [C], number of pixels of the confusion; 0 for padding


class PNE(ProjectingMethod):
    """For each confusion of an image: its pixels a, with correct pixels p of the true and n of the predicted class.

        l_a = log( 1 + sum_n exp(cos(a, n) / tau) / sum_p w_p exp(cos(a, p) / tau) ),    L = mean l_a * M / (C size)

    with w_p the largest softmax probability at p, C confusions, and M misclassified pixels in them. The vectors p and n
    and the length of a are constants for the gradient. A set with more pixels than `size` is truncated, and one with
    fewer is repeated. Confusions with more than `max_pixels` pixels or without positives are left out; on a grid finer
    than the paper's stride 8, these are more.

    The paper uses the decode head's ASPP output. Here, for all models, the embedding is a projection of the encoder
    maps, upsampled to the finest of them and concatenated.

    In `variant: paper` sets are truncated and repeated in random order. In "official", as released:
    - the sets are in raster order, so truncation keeps the top of the image
    - a confusion with a class that has no pixel in the image is left out

    If no pixel of the predicted class is correct, the anchors serve as negatives; the paper does not cover this case,
    and this is our reading. With many classes most confusions of an early network are of this kind, and "official"
    leaves nearly all of them out (arm pne_official of config/ablations.yaml). The factor M / (C size) makes the loss
    fall as the network improves, even if its embeddings learn nothing: compare it with its chance level. At a
    temperature of 1 they learned nothing in config/smoke.yaml; the arm pne_sharper has 0.1.

    Peak extra memory (HRNet-W48's maps at 512x1024, batch 8, float32, heads included): 3.77 GiB.
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
    class Options(LayerOptions):
        """The released code's constants."""

        variant: Literal["paper", "official"] = "paper"  # "official": as the released code does it
        dim: Annotated[int, Ge(1)] = 256  # channels of the embeddings
        temperature: Annotated[float, Gt(0)] = 1.0  # tau
        weight: Annotated[float, Ge(0)] = 1.3  # of the loss
        size: Annotated[int, Ge(1)] = 100  # pixels in each set
        max_pixels: Annotated[int, Ge(1)] = 199  # larger confusions are left out

    options: Options

    def __init__(self, channels: Sequence[int], num_classes: int, ignore_index: int = 255, **options: Any) -> None:
        super().__init__(channels, num_classes, ignore_index, **options)
        self.official = self.options.variant == "official"

    @full_precision
    def loss(self, embeddings: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int) -> dict[str, Tensor]:
        """{"pne": weight * L}. Arguments as in Method.loss."""
        (embedding,) = embeddings
        size = (embedding.shape[2], embedding.shape[3])
        scores = F.interpolate(logits.detach().to(embedding.dtype), size, mode="nearest")
        anchors, positives, negatives, pixels = self.confusions(nearest(labels, size), scores.argmax(1))
        exists = pixels > 0

        vectors = embedding.movedim(1, -1).flatten(0, 2)
        lengths = vectors.detach().norm(dim=1, keepdim=True).clamp_min(1e-12)
        divided, fixed = vectors / lengths, vectors.detach() / lengths
        log_weight = scores.log_softmax(1).amax(1).flatten()

        def losses(a: Tensor, p: Tensor, n: Tensor, there: Tensor) -> Tensor:
            """[3]: sums of l_a, of the cosines with the positives and of those with the negatives."""
            rows = divided.index_select(0, a.flatten()).view(*a.shape, vectors.shape[1])
            positive, negative = rows @ fixed[p].mT, rows @ fixed[n].mT
            attraction = (positive / self.options.temperature + log_weight[p][:, None]).logsumexp(2)
            repulsion = (negative / self.options.temperature).logsumexp(2)
            found = F.softplus(repulsion - attraction).sum(1), positive.sum((1, 2)), negative.sum((1, 2))
            return torch.where(there, torch.stack(found), 0).sum(1)

        block = max(ELEMENTS_AT_A_TIME // (self.options.size * vectors.shape[1]), 1)
        loss, positive, negative = sum_over_blocks(losses, (anchors, positives, negatives, exists), block)
        slots, misclassified = (exists.sum() * self.options.size).clamp(min=1), pixels.sum()
        loss = loss / slots * misclassified / slots
        self.diagnostics = {}
        if self.observing:
            # If all cosines are equal, l_a is log(1 + 1 / mean w_p).
            level = F.softplus(math.log(self.options.size) - log_weight[positives].logsumexp(1))
            chance = self.options.weight * torch.where(exists, level, 0).sum() * self.options.size
            self.diagnostics = {
                "confusions": exists.sum(),
                "anchors": misclassified,
                "positive_similarity": positive.detach() / (slots * self.options.size),
                "negative_similarity": negative.detach() / (slots * self.options.size),
                "chance/pne": chance / slots * misclassified / slots,
            }
        return {"pne": self.options.weight * loss}

    def confusions(self, labels: Tensor, prediction: Tensor) -> Confusions:
        """The confusions to use, from labels and prediction, int64 [B, h, w]."""
        images, number, count = len(labels), self.num_classes, self.options.size
        image = torch.arange(images, device=labels.device)[:, None, None]
        valid, right = labels != self.ignore_index, prediction == labels
        true = image * number + labels  # (image, class) pairs
        of_pair = torch.where(right & valid, true, images * number).flatten()
        confused = torch.where(~right & valid, true * number + prediction, images * number**2).flatten()
        correct = Groups.of(of_pair, images * number, shuffle=not self.official)
        wrong = Groups.of(confused, images * number**2, shuffle=not self.official)

        kinds = torch.arange(images * number**2, device=labels.device)
        of_true = kinds // number
        used = (wrong.sizes > 0) & (wrong.sizes <= self.options.max_pixels) & (correct.sizes[of_true] > 0)
        if self.official:
            there = one_hot(labels.flatten(1), number, torch.bool).any(1).flatten()
            used &= there[of_true // number * number + kinds % number]
        bound = images * min(number * (number - 1), labels[0].numel())
        kinds, exists = positions_of(used, rows_for(used.sum().clamp(min=1), bound, MOST_CONFUSIONS))
        of_true = kinds // number
        of_predicted = of_true // number * number + kinds % number

        wrong, correct_of = wrong.chosen(kinds), correct.draw(count)
        anchors = wrong.draw(count)
        negatives = torch.where((correct.sizes[of_predicted] > 0)[:, None], correct_of[of_predicted], anchors)
        return Confusions(anchors, correct_of[of_true], negatives, torch.where(exists, wrong.sizes, 0))
