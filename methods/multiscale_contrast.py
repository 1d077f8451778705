"""Multi-scale and cross-scale contrast: supervised InfoNCE among the pixels of each scale, and between scales.

Pissas et al., "Multi-scale and Cross-scale Contrastive Learning for Semantic Segmentation", ECCV 2022.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from methods.contrast_diagnostics import label_chance, label_diagnostics
from methods.equal_sampling import sample_pairs_equally
from methods.heads import relu_norm_head
from methods.info_nce import supervised_info_nce
from methods.labels import nearest
from methods.method import Method, full_precision
from methods.options import check_weights_per_map
from methods.pair_sampling import gather_pixels
from methods.unit_vectors import unit

BUDGET = {"paper": 5_000, "official": 10_000}
SIMILARITIES_AT_A_TIME = 2**24  # 64 MiB; ten thousand pixels per scale have a hundred million


class Samples(NamedTuple):
    """The pixels drawn at one scale, all images together."""

    vectors: Tensor  # [N, d], unit vectors
    classes: Tensor  # [N]


class MultiscaleContrast(Method):
    """Pixels sampled at every scale are contrasted within their scale, and the finest scale with the two coarsest.

    In `variant: paper` every image has its own budget and its own V, independent of the number of processes and images.
    In "official", as released:
    - all images of a process share a budget of 10,000 pixels per scale
    - all images of a process share one V, the rarest pair's
    Not reproduced from the release: it drops the last class of data sets without an extra class for ignored pixels, and
    it crashes without any valid pixel.

    Every map of a model is a scale; of DeepLabV3 the paper uses layers 1 and 4, or 1, 3 and 4.

    A step makes the host wait for a GPU once, to read the number of sampled pixels: the rarest class determines it, and
    the cost is quadratic in it. With a fixed size for the whole budget, a step would compute 130 to 380 times as many
    similarities (medians on CamVid's labels at 180x240 and 360x480).

    Peak extra memory (HRNet-W48's maps at 512x1024, batch 8, float32, heads included): 1.29 GiB.
    """

    title = "Multi-scale contrast"
    paper = "Multi-scale and Cross-scale Contrastive Learning for Semantic Segmentation"
    venue = "ECCV"
    year = 2022
    url = "https://arxiv.org/abs/2203.13409"
    idea = (
        "Pixels drawn at every encoder scale are contrasted within their scale, and the finest scale with the coarsest "
        "two."
    )
    left_open = "The released code drops the last class where no class stands for ignored pixels."

    @dataclass(frozen=True, kw_only=True)
    class Options(Method.Options):
        """The paper's constants."""

        variant: Literal["paper", "official"] = "paper"  # "official": as the released code does it
        dim: Annotated[int, Ge(1)] = 256  # channels of the embeddings
        temperature: Annotated[float, Gt(0)] = 0.1  # tau
        weight: Annotated[float, Ge(0)] = 0.1  # of the loss
        # w, fine to coarse; with fewer feature maps the first ones are used
        scale_weights: tuple[Annotated[float, Ge(0)], ...] = (1.0, 0.7, 0.4, 0.1)
        cross_scale: bool = True  # also contrast the finest scale with the coarsest and with the second coarsest
        # budget of pixels per scale, shared equally by the (image, class) pairs; None: the variant's
        samples: Annotated[int, Ge(1)] | None = None
        max_views: Annotated[int, Ge(1)] = 2500  # sampled pixels per (image, class) and scale, at most
        min_pixels: Annotated[int, Ge(1)] = 5  # pixels that a class needs in an image at a scale to be sampled

        def check_maps(self, number: int) -> None:
            """Every map needs a weight."""
            check_weights_per_map("scale_weights", self.scale_weights, number)

    options: Options

    def __init__(self, channels: Sequence[int], num_classes: int, ignore_index: int = 255, **options: Any) -> None:
        super().__init__(channels, num_classes, ignore_index, **options)
        self.scale_weights = self.options.scale_weights[: len(channels)]
        self.samples = BUDGET[self.options.variant] if self.options.samples is None else self.options.samples
        self.heads = nn.ModuleList(relu_norm_head(c, self.options.dim) for c in channels)

    def embed(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Encoder maps [B, C_i, H_i, W_i] -> [B, dim, H_i, W_i] at each scale."""
        return [head(feature) for head, feature in zip(self.heads, features, strict=True)]

    @full_precision
    def loss(self, embeddings: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int) -> dict[str, Tensor]:
        """{"multi_scale": weight * sum of w_s L_s, "cross_scale": weight * sum of L_cs}. Arguments as in Method.loss.

        "cross_scale" is there if the option is on and there is more than one map.
        """
        scales = self.sample(embeddings, labels)
        finest, last = scales[0], len(scales)
        within = [self.contrast(samples, samples, exclude_self=True) for samples in scales]
        weighted = [w * loss for w, loss in zip(self.scale_weights, within, strict=True)]
        terms = {"multi_scale": self.options.weight * torch.stack(weighted).sum()}

        coarse = [i for i in (last, last - 1) if i > 1] if self.options.cross_scale else []
        across = [self.contrast(finest, scales[i - 1], missing_positives="zero") for i in coarse]
        if across:
            terms["cross_scale"] = self.options.weight * torch.stack(across).sum()

        self.diagnostics = {}
        if self.observing:
            self.diagnostics = label_diagnostics(*finest, *finest, self.num_classes, exclude_self=True)
            for i, (samples, loss) in enumerate(zip(scales, within, strict=True), start=1):
                self.diagnostics[f"samples/scale{i}"] = torch.ones_like(samples.classes).sum()
                self.diagnostics[f"multi_scale/scale{i}"] = loss.detach()
            self.diagnostics |= {f"cross_scale/1-{i}": loss.detach() for i, loss in zip(coarse, across, strict=True)}
            self.diagnostics |= self.chances(scales, coarse)
        return terms

    def chances(self, scales: Sequence[Samples], coarse: Sequence[int]) -> dict[str, Tensor]:
        """The chance levels of the terms; coarse: the scales, from 1, that the finest is contrasted with."""
        classes, number = [samples.classes for samples in scales], self.num_classes
        within = [label_chance(each, each, number, exclude_self=True) for each in classes]
        across = [label_chance(classes[0], classes[i - 1], number, skip=False) for i in coarse]
        weighted = [w * chance for w, chance in zip(self.scale_weights, within, strict=True)]
        found = {"multi_scale": weighted, "cross_scale": across} if across else {"multi_scale": weighted}
        return {f"chance/{term}": self.options.weight * torch.stack(each).sum() for term, each in found.items()}

    def sample(self, embeddings: Sequence[Tensor], labels: Tensor) -> list[Samples]:
        """The pixels that take part at each scale, from its embeddings [B, d, h, w]."""
        grids = [nearest(labels, (z.shape[2], z.shape[3])) for z in embeddings]
        drawn = [
            sample_pairs_equally(
                grid,
                self.num_classes,
                self.ignore_index,
                budget=self.samples,
                max_views=self.options.max_views,
                min_pixels=self.options.min_pixels,
                per_image=self.options.variant == "paper",
            )
            for grid in grids
        ]
        numbers = torch.stack([mask.sum() for mask in drawn]).tolist()  # the only wait of a step: see the class
        made = [gather_pixels(*each, self.num_classes) for each in zip(embeddings, grids, drawn, numbers, strict=True)]
        return [Samples(unit(vectors), classes) for vectors, classes in made]

    def contrast(
        self, anchors: Samples, keys: Samples, exclude_self: bool = False, missing_positives: str = "skip"
    ) -> Tensor:
        """InfoNCE of the anchors with the keys; across scales an anchor without positives counts as 0."""
        return supervised_info_nce(
            *anchors,
            *keys,
            self.num_classes,
            self.options.temperature,
            exclude_self=exclude_self,
            missing_positives=missing_positives,
            max_entries=SIMILARITIES_AT_A_TIME,
        )
