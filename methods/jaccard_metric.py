"""Jaccard metric loss: a soft Jaccard or Dice loss that is a metric and therefore also works with soft labels.

Wang et al., "Jaccard Metric Losses: Optimizing the Jaccard Index with Soft Labels", NeurIPS 2023, and "Dice Semimetric
Losses", MICCAI 2023.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from methods.class_means import one_hot
from methods.logits import at_labels
from methods.method import Method, full_precision


class JaccardMetric(Method):
    """The soft Jaccard (or Dice) loss of each class in the L1 form, plus a quarter of the cross entropy; no heads.

        TP = (|f| + |y| - |f - y|) / 2,  FP = |f| - TP,  FN = |y| - TP,  with |.| the sum over pixels of a class
        L = mean over the classes of 1 - (TP + s) / (TP + a FP + a FN + s),  a = 1 for Jaccard, 1/2 for Dice

    with f the softmax, y the labels and s a constant that keeps the quotient finite. With hard labels it equals the
    usual soft Jaccard loss; it differs only with soft labels (`label_smoothing`). The paper's gains come with several
    kinds of soft labels, of which boundary smoothing and distillation are not implemented here.

    Sums and classes are those of the mini-batch (mIoU-D) or of each image; in the latter case half of the loss averages
    over the classes of an image first and half over the images of a class first (mIoU-I and mIoU-C). The released
    configurations apply this loss to the main and an auxiliary head, half each; here auxiliary heads keep their cross
    entropy.

    Peak extra memory (HRNet-W48's maps at 512x1024, batch 8, float32, heads included): 2.98 GiB.
    """

    title = "Jaccard metric loss"
    paper = "Jaccard Metric Losses: Optimizing the Jaccard Index with Soft Labels"
    venue = "NeurIPS"
    year = 2023
    url = "https://arxiv.org/abs/2302.05666"
    idea = "The soft Jaccard index of the mini-batch, or of each image, in a form that allows soft labels."
    left_open = (
        "The paper's gains come with soft labels; the released configurations use other constants than the code."
    )

    @dataclass(frozen=True, kw_only=True)
    class Options(Method.Options):
        """The values of the released configurations."""

        index: Literal["jaccard", "dice"] = "jaccard"  # intersection over union, or the Dice coefficient
        over: Literal["batch", "images"] = "batch"  # whose pixels are summed up
        weight: Annotated[float, Ge(0)] = 0.75  # of the loss
        cross_entropy_weight: Annotated[float, Ge(0)] = 0.25  # of the network's own loss
        smooth: Annotated[float, Ge(0)] = 1.0  # s, in pixels; the released class's default is 0.001
        # the share of every label that is spread over all classes; if above 0, the mean is over all classes, otherwise
        # over those present
        label_smoothing: Annotated[float, Interval(ge=0, lt=1)] = 0.0

    options: Options

    @full_precision
    def loss(self, embeddings: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int) -> dict[str, Tensor]:
        """{"jaccard_metric": weight * L}. Arguments as in Method.loss."""
        scores = at_labels(logits, labels, self.align_corners)
        valid = (labels != self.ignore_index)[:, None].to(scores.dtype)
        soft = scores.softmax(1) * valid
        smoothing = self.options.label_smoothing
        hard = one_hot(labels, self.num_classes, soft.dtype).movedim(-1, 1)
        target = (1 - smoothing) * hard + smoothing / self.num_classes * valid
        sums = torch.stack([(soft - target).abs(), soft, target]).sum((3, 4))  # [3, B, K]
        difference, predicted, true = (sums.sum(1, keepdim=True) if self.options.over == "batch" else sums).unbind()
        counted = (true > 0) if smoothing else hard.sum((2, 3)) > 0
        counted = counted.any(0, keepdim=True) if self.options.over == "batch" else counted

        hit = (predicted + true - difference) / 2
        share = {"jaccard": 1.0, "dice": 0.5}[self.options.index]
        union = hit + share * (predicted + true - 2 * hit)
        # Without smoothing, an absent class gives 0 / 0: it is left out, and its gradient must not become NaN.
        safe = torch.where(counted, union + self.options.smooth, 1)
        losses = torch.where(counted, 1 - (hit + self.options.smooth) / safe, 0)  # [1 or B, K]
        if self.options.over == "batch":
            loss = losses.sum() / counted.sum().clamp(min=1)
        else:
            loss = (_mean_of_means(losses, counted, 1) + _mean_of_means(losses, counted, 0)) / 2
        self.diagnostics = {}
        if self.observing:
            self.diagnostics["soft_jaccard_loss"] = losses.detach().sum(0) / counted.sum(0).clamp(min=1)
        return {"jaccard_metric": self.options.weight * loss}


def _mean_of_means(losses: Tensor, counted: Tensor, dim: int) -> Tensor:
    """The mean of the counted losses along `dim`, then over the rows with any; losses not counted must be 0."""
    number = counted.sum(dim)
    return (losses.sum(dim) / number.clamp(min=1)).sum() / (number > 0).sum().clamp(min=1)
