"""Online hard example mining: cross entropy over the hardest pixels only, instead of all pixels.

Shrivastava et al., "Training Region-based Object Detectors with Online Hard Example Mining", CVPR 2016, mine regions;
Wu et al., "High-performance Semantic Segmentation Using Very Deep Fully Convolutional Networks", arXiv 1604.04339,
mine pixels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch.nn.functional as F
from annotated_types import Interval
from torch import Tensor

from methods.logits import at_labels
from methods.method import Method, full_precision


class OHEM(Method):
    """Mean cross entropy of the pixels whose true class has a low probability, but at least of a share `keep`.

        L = mean over the valid pixels with p_y <= max(threshold, q) of -log p_y,
        with q the largest p_y among the share `keep` of the mini-batch's pixels that has the smallest

    It replaces the main head's cross entropy; auxiliary heads keep theirs. The rule is that of mmsegmentation, HRNet's
    code and others, with one difference: they give the minimum number in pixels (mmsegmentation 100,000 per image,
    HRNet 131,072 per process), here it is a share, so that it does not depend on the crop. The schedule's class weights
    are not used. mmsegmentation divides by all pixels instead of the selected ones, so its loss shrinks as fewer are
    selected.

    Peak extra memory (HRNet-W48's maps at 512x1024, batch 8, float32, heads included): 0.89 GiB.
    """

    title = "OHEM"
    paper = "Training Region-based Object Detectors with Online Hard Example Mining"
    venue = "CVPR"
    year = 2016
    url = "https://arxiv.org/abs/1604.03540"
    idea = "The cross entropy of only the hardest pixels, instead of all pixels."
    left_open = "The threshold, the minimum number of pixels and the divisor differ between implementations."

    @dataclass(frozen=True, kw_only=True)
    class Options(Method.Options):
        """The threshold of mmsegmentation's configurations; the share is a choice made here."""

        # pixels with a smaller probability of their class are selected; None: only the share `keep`
        threshold: Annotated[float, Interval(gt=0, le=1)] | None = 0.7
        keep: Annotated[float, Interval(gt=0, le=1)] = 0.0625  # select at least this share of the mini-batch's pixels

    options: Options
    cross_entropy_weight = 0.0

    @full_precision
    def loss(self, embeddings: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int) -> dict[str, Tensor]:
        """{"ohem": L}. Arguments as in Method.loss."""
        scores = at_labels(logits, labels, self.align_corners)
        terms = F.cross_entropy(scores, labels, ignore_index=self.ignore_index, reduction="none")
        valid = labels != self.ignore_index
        # -log p_y orders pixels like p_y, but also distinguishes probabilities that round to 1.
        ordered = terms.detach().masked_fill(~valid, -1)
        limit = ordered.flatten().topk(max(1, round(self.options.keep * labels.numel()))).values[-1]
        if self.options.threshold is not None:
            limit = limit.clamp(max=-math.log(self.options.threshold))
        chosen = valid & (ordered >= limit)
        self.diagnostics = {"kept_share": chosen.sum() / valid.sum().clamp(min=1)} if self.observing else {}
        return {"ohem": (terms * chosen).sum() / chosen.sum().clamp(min=1)}
