"""Lovasz-Softmax: a convex surrogate of the mean intersection over union, on the main head's logits.

Berman et al., "The Lovasz-Softmax loss: A tractable surrogate for the optimization of the intersection-over-union
measure in neural networks", CVPR 2018.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from methods.logits import at_labels
from methods.method import Method, full_precision


class LovaszSoftmax(Method):
    """The Lovasz extension of the Jaccard loss of each class, on the softmax's errors; no heads, no pairs.

        m_i(c) = 1 - f_i(c) if c is the label of pixel i, else f_i(c), with f the softmax
        L = mean over the classes c in the mini-batch of the Lovasz extension of 1 - IoU(c) at m(c)

    The paper trains with cross entropy and fine-tunes with this loss, or trains only with this loss. Here it is added
    to cross entropy, as in mmsegmentation and Active Boundary Loss; `cross_entropy_weight: 0` and an arm's `starts_at`
    give the paper's two ways. Values and gradients equal the released code's, except that the loss is 0 without any
    labelled pixel, for which the release returns an empty tensor.

    Peak extra memory (HRNet-W48's maps at 512x1024, batch 8, float32, heads included): 4.02 GiB.
    """

    title = "Lovasz-Softmax"
    paper = (
        "The Lovasz-Softmax loss: A tractable surrogate for the optimization of the intersection-over-union measure in "
        "neural networks"
    )
    venue = "CVPR"
    year = 2018
    url = "https://arxiv.org/abs/1705.08790"
    idea = "A convex surrogate of the mean IoU of the mini-batch, on every pixel's softmax, added to cross entropy."
    left_open = "How to combine it with cross entropy: the paper fine-tunes with it; here both count from the start."

    @dataclass(frozen=True, kw_only=True)
    class Options(Method.Options):
        """The weights are choices made here; the averaging is the released code's default."""

        weight: Annotated[float, Ge(0)] = 1.0  # of the loss
        cross_entropy_weight: Annotated[float, Ge(0)] = 1.0  # of the network's own loss
        per_image: bool = False  # the mean of each image's loss; false: one loss over the mini-batch

    options: Options

    @full_precision
    def loss(self, embeddings: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int) -> dict[str, Tensor]:
        """{"lovasz_softmax": weight * L}. Arguments as in Method.loss."""
        probabilities = at_labels(logits, labels, self.align_corners).softmax(1)
        loss, per_class = lovasz_softmax(probabilities, labels, self.ignore_index, self.options.per_image)
        self.diagnostics = {"soft_jaccard_loss": per_class} if self.observing else {}
        return {"lovasz_softmax": self.options.weight * loss}


def lovasz_softmax(
    probabilities: Tensor, labels: Tensor, ignore_index: int, per_image: bool = False
) -> tuple[Tensor, Tensor]:
    """L over the classes present, and the detached loss of each class [K], 0 for an absent one.

    probabilities [B, K, H, W]; labels int64 [B, H, W], 0..K-1 or ignore_index. L is 0 without any valid pixel.
    """
    images, num_classes = (len(labels) if per_image else 1), probabilities.shape[1]
    of_class = torch.arange(num_classes, device=labels.device)[:, None, None] == labels[:, None]  # [B, K, H, W]
    errors = (of_class.to(probabilities.dtype) - probabilities).abs() * (labels != ignore_index)[:, None]
    errors, of_class = (
        tensor.movedim(1, 0).reshape(num_classes, images, -1).movedim(0, 1) for tensor in (errors, of_class)
    )  # [images, K, pixels]
    valid = (labels != ignore_index).view(images, 1, -1)
    weights = _extension_weights(errors.detach().masked_fill(~valid, -1), of_class)
    terms = (errors * weights).sum(2)
    present = of_class.any(2)
    means = terms.where(present, 0).sum(1) / present.sum(1).clamp(min=1)
    seen = present.any(1)
    per_class = terms.detach().where(present, 0).sum(0) / present.sum(0).clamp(min=1)
    return means.sum() / seen.sum().clamp(min=1), per_class


@torch.no_grad()
def _extension_weights(errors: Tensor, of_class: Tensor) -> Tensor:
    """The gradient of the Lovasz extension of the Jaccard loss at the errors [..., pixels], the paper's algorithm 1.

    of_class bool [..., pixels]: the pixels of the class. Pixels to leave out have the lowest errors and no class.
    """
    order = errors.argsort(dim=-1, descending=True, stable=True)
    in_order = of_class.gather(-1, order)
    total = of_class.sum(-1, keepdim=True)
    intersection = total - in_order.cumsum(-1, dtype=torch.int32)
    union = total + (~in_order).cumsum(-1, dtype=torch.int32)
    jaccard = 1 - intersection.to(errors.dtype) / union
    steps = jaccard.diff(dim=-1, prepend=jaccard.new_zeros(*jaccard.shape[:-1], 1))
    return torch.empty_like(steps).scatter_(-1, order, steps)
