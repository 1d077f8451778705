"""Supervised pixel contrast within an image or across two images, for training with few labels.

Zhao et al., "Contrastive Learning for Label Efficient Semantic Segmentation", ICCV 2021.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt
from torch import Tensor

from methods.heads import ProjectingMethod
from methods.info_nce import masked_logsumexp
from methods.labels import nearest
from methods.method import full_precision
from methods.options import LayerOptions


class SupervisedPixelContrast(ProjectingMethod):
    """Every sampled pixel is contrasted with the other sampled pixels of its image and, optionally, of a second image.

        L = mean over images, over pixels p, and over the pixels q of p's class (including p) of
            -log exp(s_pq) / (exp(s_pq) + sum_n exp(s_pn)),   s the cosine over temperature

    with n the pixels of other classes in p's own image, even if `across` takes q from two images: the image and the
    next one of the mini-batch. An image without a valid pixel does not count.

    The paper first trains the network only with this loss, and then only with cross entropy. An arm does so with
    {weight: 1, cross_entropy_weight: 0, ends_at: 0.5}; by default the loss is added to cross entropy instead, and a
    schedule's `train_share` limits the number of labels. The paper contrasts all pixels of features resized to 65x65,
    of two differently coloured versions of each image; here `pixels_per_image` random pixels of one version are used.

    Peak extra memory (HRNet-W48's maps at 512x1024, batch 8, float32, heads included): 3.77 GiB.
    """

    title = "Supervised pixel contrast"
    paper = "Contrastive Learning for Label Efficient Semantic Segmentation"
    venue = "ICCV"
    year = 2021
    url = "https://arxiv.org/abs/2012.06985"
    idea = "Pixels of an image are pulled to those of their class, also in a second image, and pushed from the others."
    left_open = "The released code is for the first of two stages, on two versions of every image."

    @dataclass(frozen=True, kw_only=True)
    class Options(LayerOptions):
        """Temperature and channels are the released code's; that the loss is an auxiliary one is a choice made here."""

        dim: Annotated[int, Ge(1)] = 256  # channels of the embeddings
        temperature: Annotated[float, Gt(0)] = 0.07  # tau
        weight: Annotated[float, Ge(0)] = 0.1  # of the loss
        cross_entropy_weight: Annotated[float, Ge(0)] = 1.0  # of the network's own loss
        across: Literal["within_image", "two_images"] = "within_image"  # images that positives are taken from
        pixels_per_image: Annotated[int, Ge(1)] = 1024  # number of sampled pixels per image

    options: Options

    @full_precision
    def loss(self, embeddings: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int) -> dict[str, Tensor]:
        """{"supervised_pixel_contrast": weight * L}. Arguments as in Method.loss; the logits are not used."""
        (embedding,) = embeddings
        y = nearest(labels, (embedding.shape[2], embedding.shape[3])).flatten(1)
        # Valid pixels first, in random order.
        order = torch.rand(y.shape, device=y.device) + (y != self.ignore_index)
        drawn = order.topk(min(self.options.pixels_per_image, y.shape[1])).indices
        y = y.gather(1, drawn)  # [B, n]
        by_pixel = embedding.flatten(2).mT
        vectors = F.normalize(by_pixel.gather(1, drawn[:, :, None].expand(-1, -1, by_pixel.shape[2])), dim=2)
        image = torch.zeros_like(y)
        if self.options.across == "two_images":
            vectors, y = torch.cat([vectors, vectors.roll(-1, 0)], 1), torch.cat([y, y.roll(-1, 0)], 1)
            image = torch.cat([image, image + 1], 1)

        valid = y != self.ignore_index
        pairs = valid[:, :, None] & valid[:, None]
        same = y[:, :, None] == y[:, None]
        negative = pairs & ~same & (image[:, :, None] == image[:, None])
        scores = (vectors / self.options.temperature) @ vectors.mT  # [B, n, n]
        terms = -F.logsigmoid(scores - masked_logsumexp(scores, negative, dim=2)[:, :, None])
        positive = pairs & same
        per_pixel = terms.where(positive, 0).sum(2) / positive.sum(2).clamp(min=1)
        loss = self.mean(per_pixel, valid)
        self.diagnostics = {}
        if self.observing:
            # If all pairs are equally similar, a positive's term is log(1 + number of its pixel's negatives).
            chance = self.mean((1 + negative.sum(2)).to(loss.dtype).log(), valid)
            fixed = scores.detach() * self.options.temperature
            self.diagnostics = {
                "anchors": valid.sum(),
                "positive_similarity": (fixed * positive).sum() / positive.sum().clamp(min=1),
                "negative_similarity": (fixed * negative).sum() / negative.sum().clamp(min=1),
                "chance/supervised_pixel_contrast": self.options.weight * chance,
            }
        return {"supervised_pixel_contrast": self.options.weight * loss}

    @staticmethod
    def mean(values: Tensor, valid: Tensor) -> Tensor:
        """The mean of the values [B, n] over each image's valid pixels, and then over the images with any."""
        number = valid.sum(1)
        return ((values * valid).sum(1) / number.clamp(min=1)).sum() / (number > 0).sum().clamp(min=1)
