"""Deep supervision: cross entropy at several depths, the control for methods that add terms at several encoder maps.

Lee et al., "Deeply-Supervised Nets", AISTATS 2015, with the maps, layer weights and labels of Contextrast's loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from methods.labels import nearest
from methods.method import Method, full_precision
from methods.options import check_weights_per_map


class DeepSupervision(Method):
    """Cross entropy of a 1x1 convolution on every encoder map; the convolutions are dropped after training.

        L = weight * sum_i lambda_i mean over the valid pixels of map i of -log softmax(W_i F_i + b_i)[y]

    with the labels y on the grid of each map. If a contrastive loss over the same maps gains no more than this one, its
    gain is due to supervision at several depths and not to its pairs.

    The paper attaches support vector machines with a squared hinge loss to the hidden layers of a classifier, with a
    decaying weight; segmentation networks attach heads with cross entropy and a constant weight, as here.

    Peak extra memory (HRNet-W48's maps at 512x1024, batch 8, float32, heads included): 0.13 GiB.
    """

    title = "Deep supervision"
    paper = "Deeply-Supervised Nets"
    venue = "AISTATS"
    year = 2015
    url = "https://arxiv.org/abs/1409.5185"
    idea = "A 1x1 classifier with cross entropy on each encoder map that Contextrast taps, with its layer weights."
    left_open = "The weight of each depth is free; here it is Contextrast's, so that only the loss differs from it."

    @dataclass(frozen=True, kw_only=True)
    class Options(Method.Options):
        """Contextrast's weights, so that the arms differ only in the loss."""

        weight: Annotated[float, Ge(0)] = 0.1  # of the loss
        # lambda, fine to coarse; with fewer feature maps the last ones are used
        layer_weights: tuple[Annotated[float, Ge(0)], ...] = (0.1, 0.3, 0.7, 1.0)

        def check_maps(self, number: int) -> None:
            """Every map needs a weight."""
            check_weights_per_map("layer_weights", self.layer_weights, number)

    options: Options

    def __init__(self, channels: Sequence[int], num_classes: int, ignore_index: int = 255, **options: Any) -> None:
        super().__init__(channels, num_classes, ignore_index, **options)
        self.layer_weights = self.options.layer_weights[-len(channels) :]
        self.heads = nn.ModuleList(nn.Conv2d(c, num_classes, 1) for c in channels)

    def embed(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Encoder maps [B, C_i, H_i, W_i] -> logits of the classes at every map, [B, K, H_i, W_i]."""
        return [head(feature) for head, feature in zip(self.heads, features, strict=True)]

    @full_precision
    def loss(self, embeddings: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int) -> dict[str, Tensor]:
        """{"deep_supervision": weight * L}. Arguments as in Method.loss; the main head's logits are not used."""
        losses, right = [], []
        for scores in embeddings:
            grid = nearest(labels, (scores.shape[2], scores.shape[3]))
            valid = grid != self.ignore_index
            terms = F.cross_entropy(scores, grid, ignore_index=self.ignore_index, reduction="none")
            losses.append(terms.sum() / valid.sum().clamp(min=1))
            right.append((scores.argmax(1) == grid).sum() / valid.sum().clamp(min=1))
        self.diagnostics = {}
        if self.observing:
            self.diagnostics = {f"deep_supervision/layer{i}": each.detach() for i, each in enumerate(losses, start=1)}
            self.diagnostics["by_layer/pixel_accuracy"] = torch.stack(right)
        weighted = [weight * each for weight, each in zip(self.layer_weights, losses, strict=True)]
        return {"deep_supervision": self.options.weight * torch.stack(weighted).sum()}
