"""Pixel contrast, in-batch: supervised InfoNCE among sampled pixels.

Wang et al., "Exploring Cross-Image Pixel Contrast for Semantic Segmentation", ICCV 2021, as the paper describes it. The
released code scales the loss by temperature / 0.07 and leaves out classes of up to 100 pixels: neither is done here.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from methods.heads import norm_relu_head
from methods.info_nce import supervised_info_nce
from methods.labels import nearest
from methods.method import Method, full_precision
from methods.options import require_count, require_not_negative, require_positive
from methods.pair_sampling import sample_pairs
from methods.unit_vectors import unit


class PixelContrast(Method):
    """Pixels sampled per (image, class) pair are anchors, positives and negatives of each other over the mini-batch.

    dim                channels of the embeddings
    temperature        tau
    weight             of the loss
    anchors_per_image  budget of sampled pixels, shared by the classes of an image
    max_views          sampled pixels per (image, class), at most
    min_pixels         a class takes part in an image if it has more pixels than this on the grid of the embeddings
    layers             indices of the encoder maps that are used, from the finest; None: all. They are upsampled to the
                       finest of them and concatenated. The paper takes all four of HRNet's, the last of DeepLabV3's.

    Raises ValueError for a value outside its range.
    """

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
        ignore_index: int = 255,
        *,
        dim: int = 256,
        temperature: float = 0.1,
        weight: float = 0.1,
        anchors_per_image: int = 512,
        max_views: int = 100,
        min_pixels: int = 0,
        layers: Sequence[int] | None = None,
    ) -> None:
        super().__init__(channels, num_classes, ignore_index)
        require_count(dim=dim, anchors_per_image=anchors_per_image, max_views=max_views)
        require_positive(temperature=temperature)
        require_not_negative(weight=weight, min_pixels=min_pixels)
        self.layers = tuple(range(len(channels)) if layers is None else layers)
        if not self.layers or any(
            not (isinstance(i, int) and -len(channels) <= i < len(channels)) for i in self.layers
        ):
            raise ValueError(f"layers is {layers}, but must name some of the {len(channels)} feature maps")
        self.temperature, self.weight = temperature, weight
        self.anchors_per_image, self.max_views, self.min_pixels = anchors_per_image, max_views, min_pixels
        self.head = norm_relu_head(sum(channels[i] for i in self.layers), dim)

    def embed(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Encoder maps [B, C_i, H_i, W_i] -> one map [B, dim, H, W] on the grid of the finest one used."""
        used = [features[i] for i in self.layers]
        size = max((feature.shape[-2:] for feature in used), key=lambda shape: shape.numel())
        same_size = [F.interpolate(feature, size, mode="bilinear", align_corners=True) for feature in used]
        return [self.head(torch.cat(same_size, dim=1))]

    @full_precision
    def loss(self, embeddings: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int) -> dict[str, Tensor]:
        """{"pixel_contrast": weight * L}. Arguments as in Method.loss."""
        (embedding,) = embeddings
        size = (embedding.shape[2], embedding.shape[3])
        labels, prediction = nearest(labels, size), nearest(logits.argmax(1), size)
        sampled = sample_pairs(
            labels,
            prediction,
            self.num_classes,
            self.ignore_index,
            pixels_per_image=self.anchors_per_image,
            max_views=self.max_views,
            min_pixels=self.min_pixels,
        )
        anchors, classes = unit(embedding.movedim(1, -1)[sampled]), labels[sampled]
        hard = (prediction != labels)[sampled]
        self.diagnostics = {"anchors": hard.new_tensor(len(hard), dtype=torch.long)}
        self.diagnostics["hard_share"] = hard.sum() / self.diagnostics["anchors"].clamp(min=1)
        loss = supervised_info_nce(anchors, classes, anchors, classes, self.temperature, exclude_self=True)
        return {"pixel_contrast": self.weight * loss}
