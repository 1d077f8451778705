"""Contextrast: contextual contrastive learning with boundary-aware negatives.

Sung et al., CVPR 2024 (arXiv 2404.10633). Equation numbers are those of its extended version, Contextrast++ (arXiv
2608.22679), which restates them. Where the papers leave a choice open, it is an option of the class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn

from methods.boundary_aware import NONE, boundary_aware
from methods.class_means import mean_of, one_hot
from methods.heads import relu_norm_head
from methods.info_nce import masked_logsumexp
from methods.labels import nearest
from methods.method import Method, full_precision
from methods.negative_diagnostics import negative_diagnostics, shares_by_layer
from methods.options import check_weights_per_map
from methods.pixel_embeddings import PixelVectors
from methods.processes import all_logsumexp, all_rows, all_sum
from methods.ranking import rank_within_group
from methods.unit_vectors import unit


class Layer(NamedTuple):
    """The N pixels of one layer, all images together. K is the number of classes."""

    vectors: PixelVectors  # z
    labels: Tensor  # [N], g(z); K at ignored pixels
    of_class: Tensor  # [N, K], one-hot labels; 0 at ignored pixels, which therefore do not count
    marks: Tensor  # [N], the class of the error region that a pixel belongs to, or NONE
    edge: Tensor  # int32 [N], squared distance to the edge of that region, in pixels; meaningless outside regions
    hard: Tensor  # bool [N], whether BANE sampling chose the pixel


class Contextrast(Method):
    """Pixel-anchor loss over several layers, with anchors fused with the coarsest layer's and BANE negatives.

    No code was released. NOT VERIFIED, and chosen here: the form of the heads, and the options that `Options` names;
    config/ablations.yaml has an arm for each other reading of these.

    With `sync_anchors` each rank returns the loss of the whole batch, otherwise that of its own images.

    Peak extra memory (HRNet-W48's maps at 512x1024, batch 8, float32, heads included): 0.84 GiB.
    """

    title = "Contextrast"
    paper = "Contextrast: Contextual Contrastive Learning for Semantic Segmentation"
    venue = "CVPR"
    year = 2024
    url = "https://arxiv.org/abs/2404.10633"
    idea = (
        "At every encoder map, pixels are contrasted with class means fused with the coarsest map's; the negatives are "
        "misclassified pixels nearest to the edge of their error region."
    )
    left_open = (
        "No code was released; the temperature, the fusion weights, who the negatives are, and the heads are choices "
        "made here."
    )

    @dataclass(frozen=True, kw_only=True)
    class Options(Method.Options):
        """The papers give `dim`, `weight`, `layer_weights` and `keep`; the other defaults are choices made here.

        Not confirmed by the papers or by code: `temperature` (that of the methods it builds on), `low_weight` (the
        neutral value), `negatives`, `ties`, `normalize` and `detach_anchors`.
        """

        former_names: ClassVar[Mapping[str, str]] = {"alpha": "weight"}

        dim: Annotated[int, Ge(1)] = 256  # d, channels of the embeddings
        temperature: Annotated[float, Gt(0)] = 0.1  # t, by which similarities are divided
        weight: Annotated[float, Ge(0)] = 0.1  # alpha, the factor of the loss
        # lambda, fine to coarse; with fewer feature maps the last ones are used
        layer_weights: tuple[Annotated[float, Ge(0)], ...] = (0.1, 0.3, 0.7, 1.0)
        low_weight: Annotated[float, Interval(ge=0, le=1)] = 0.5  # w_l in equation (2); w_h is 1 - w_l
        # The negatives of class n. "missed_of_other_classes": pixels that BANE samples from the missed pixels of all
        # other classes; "false_positives": from pixels wrongly predicted as n; "as_printed": from the missed pixels of
        # n itself; "random", "semi_hard": as many as with the first rule, from all valid pixels of other classes, at
        # random or the most similar to the anchor.
        negatives: Literal["missed_of_other_classes", "false_positives", "as_printed", "random", "semi_hard"] = (
            "missed_of_other_classes"
        )
        keep: Annotated[float, Interval(gt=0, le=1)] = 0.5  # K_s, the share of an error region that is sampled
        by_distance: bool = True  # sample the pixels nearest to the region's edge; false: at random, as a control
        # "exact": exactly that share, ties in distance broken at random; "percentile": every pixel up to that distance
        ties: Literal["exact", "percentile"] = "exact"
        normalize: bool = True  # make embeddings and anchors unit vectors
        detach_anchors: bool = False  # no gradient through the anchors
        sync_anchors: bool = False  # compute anchors, positives and negatives over all processes' images
        # use at most this many random positives per layer, class and process; null: all
        max_positives: Annotated[int, Ge(1)] | None = None

        def check_maps(self, number: int) -> None:
            """Every map needs a weight."""
            check_weights_per_map("layer_weights", self.layer_weights, number)

    options: Options

    def __init__(self, channels: Sequence[int], num_classes: int, ignore_index: int = 255, **options: Any) -> None:
        super().__init__(channels, num_classes, ignore_index, **options)
        self.layer_weights = self.options.layer_weights[-len(channels) :]
        self.heads = nn.ModuleList(relu_norm_head(c, self.options.dim) for c in channels)

    def embed(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Encoder maps [B, C_i, H_i, W_i] -> Z_i = pi_i(F_i), [B, d, H_i, W_i]."""
        return [head(feature) for head, feature in zip(self.heads, features, strict=True)]

    @full_precision
    def loss(self, embeddings: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int) -> dict[str, Tensor]:
        """{"pixel_anchor": weight * L_PA}, equation (6). Arguments as in Method.loss."""
        return self.terms([PixelVectors.of_map(z) for z in embeddings], logits, labels)

    def forward(self, features: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int) -> dict[str, Tensor]:
        """The loss from the encoder maps, without materialising the embeddings if possible (`PixelVectors`)."""
        vectors = [PixelVectors.of_head(head, feature) for head, feature in zip(self.heads, features, strict=True)]
        with torch.autocast(labels.device.type, enabled=False):
            self.embeddings = [z.as_map() for z in vectors] if self.observing else []
            return self.terms(vectors, logits, labels)

    def terms(self, vectors: Sequence[PixelVectors], logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The terms of `loss`, from the embeddings of the layers' pixels."""
        layers = self.layers(vectors, logits.argmax(1), labels)
        return {"pixel_anchor": self.options.weight * self.pixel_anchor(layers, self.anchors(layers))}

    def layers(self, vectors: Sequence[PixelVectors], prediction: Tensor, labels: Tensor) -> list[Layer]:
        """The layers' pixels with these embeddings, including BANE sampling's choice."""
        truth, marks = [], []
        for size in (z.size for z in vectors):
            label, predicted = nearest(labels, size), nearest(prediction, size)
            valid = label != self.ignore_index
            wrong_class = predicted if self.options.negatives == "false_positives" else label
            marks.append(wrong_class.masked_fill(~valid | (predicted == label), NONE))
            truth.append(label.masked_fill(~valid, self.num_classes).flatten())
        given = self.options
        chosen = boundary_aware(marks, self.num_classes, given.keep, given.ties, given.by_distance)
        layers = []
        for z, label, mark, (hard, edge) in zip(vectors, truth, marks, chosen, strict=True):
            of_class = one_hot(label, self.num_classes, z.x.dtype)
            z = z.unit() if given.normalize else z
            layers.append(Layer(z, label, of_class, mark.flatten(), edge.flatten(), hard.flatten()))
        return layers

    def anchors(self, layers: Sequence[Layer]) -> list[Tensor]:
        """The fused anchors â_i, [K, d] for each layer, equations (1) and (2); 0 for a class absent from a layer."""
        means = [
            mean_of(layer.vectors.sums(layer.of_class), layer.of_class.sum(0), self.options.sync_anchors)
            for layer in layers
        ]
        coarsest, coarsest_count = means[-1]
        fused = []
        for i, (mean, count) in enumerate(means):
            at_both = (count > 0) & (coarsest_count > 0)
            anchors = torch.where(at_both[:, None], self.fuse(i, mean, coarsest), mean)
            fused.append(unit(anchors) if self.options.normalize else anchors)
        return fused

    def fuse(self, layer: int, mean: Tensor, coarsest: Tensor) -> Tensor:
        """Equation (2): the fused anchors [K, d] of layer 0..I-1, from its means and the coarsest layer's, [K, d]."""
        return self.options.low_weight * mean + (1 - self.options.low_weight) * coarsest

    def pixel_anchor(self, layers: Sequence[Layer], anchors: Sequence[Tensor]) -> Tensor:
        """L_PA, equations (5) and (6). Its cost is linear in the number of pixels."""
        self.diagnostics = {}
        losses, chances = [], []
        for i, (layer, anchor) in enumerate(zip(layers, anchors, strict=True)):
            anchor = anchor.detach() if self.options.detach_anchors else anchor
            similarity = layer.vectors.products(anchor / self.options.temperature)  # â.z/t, [N, K]
            negatives = self.negatives_of(similarity, layer)
            # -log( e^s / (e^s + e^b) ) = -logsigmoid(s - b), with b the negatives' logsumexp, -inf without any
            repulsion = masked_logsumexp(similarity, negatives, dim=0)
            margin = similarity - (all_logsumexp(repulsion) if self.options.sync_anchors else repulsion)
            # Ignored pixels take some class here, and have no part in any mean: their row of `positive` is 0.
            own = layer.labels.clamp(max=self.num_classes - 1)[:, None]
            terms, positive = -F.logsigmoid(margin.gather(1, own)), self.positives_of(layer)  # [N, 1] and [N, K]
            per_class, number = mean_of(positive.T @ terms, positive.sum(0), self.options.sync_anchors)
            losses.append(per_class.sum() / (number > 0).sum().clamp(min=1))
            if self.observing:  # if all similarities are equal, a pixel's term is log(1 + number of negatives)
                alone = torch.log1p(self.of_batch(negatives.sum(0)).to(similarity.dtype))
                chances.append((alone * (number > 0)).sum() / (number > 0).sum().clamp(min=1))
            if self.observing and i == 0:
                self.diagnostics |= self.negative_diagnostics(layer, similarity, negatives)
        if self.observing:
            self.diagnostics |= shares_by_layer([(each.marks, each.edge, each.hard) for each in layers], self.of_batch)
            self.diagnostics |= {f"pixel_anchor/layer{i}": loss.detach() for i, loss in enumerate(losses, start=1)}
            self.diagnostics["chance/pixel_anchor"] = self.options.weight * self.over_layers(chances)
        return self.over_layers(losses)

    def over_layers(self, losses: Sequence[Tensor]) -> Tensor:
        """The weighted sum over the layers, lambda in equation (6)."""
        return torch.stack([weight * loss for weight, loss in zip(self.layer_weights, losses, strict=True)]).sum()

    def positives_of(self, layer: Layer) -> Tensor:
        """[N, K]: 1 if the pixel is a positive of the class."""
        most = self.options.max_positives
        if most is None:
            return layer.of_class
        drawn = rank_within_group(layer.labels, num_groups=self.num_classes + 1) < most
        return layer.of_class * drawn[:, None]

    def negatives_of(self, similarity: Tensor, layer: Layer) -> Tensor:
        """Bool [N, K]: whether the pixel is a negative of the class; similarity [N, K].

        Only this rank's pixels; with `sync_anchors` the batch's negatives are those of all ranks together.
        """
        negatives = layer.hard[:, None] & self.opposed(layer.marks)
        if self.options.negatives not in ("random", "semi_hard"):
            return negatives
        order = torch.rand_like(similarity) if self.options.negatives == "random" else similarity.detach()
        others = (layer.labels < self.num_classes)[:, None] & (layer.of_class == 0)
        return self.place_in_batch(order.masked_fill(~others, -torch.inf)) < self.of_batch(negatives.sum(0))

    def opposed(self, marks: Tensor) -> Tensor:
        """Bool [N, K]: the classes of which a sampled pixel with each of these marks [N] (not NONE) is a negative."""
        of_class = marks[:, None] == torch.arange(self.num_classes, device=marks.device)
        return of_class if self.options.negatives in ("as_printed", "false_positives") else ~of_class

    def of_batch(self, values: Tensor) -> Tensor:
        """The sum over all ranks with `sync_anchors`, otherwise the values unchanged."""
        return all_sum(values) if self.options.sync_anchors else values

    def place_in_batch(self, scores: Tensor) -> Tensor:
        """The position of each score [N, K] in descending order of its column, among all scores in the loss."""
        parts = all_rows(scores) if self.options.sync_anchors else [scores]
        order = torch.cat(parts).argsort(dim=0, descending=True, stable=True)
        ranks = order.argsort(dim=0)
        if len(parts) == 1:
            return ranks
        return ranks.split([len(part) for part in parts])[torch.distributed.get_rank()]

    def negative_diagnostics(self, layer: Layer, similarity: Tensor, negatives: Tensor) -> dict[str, Tensor]:
        """Diagnostics of a layer's negatives; similarity and negatives [N, K]."""
        pixels = layer.of_class, layer.marks, layer.edge, layer.hard
        opposed, t = self.opposed(layer.marks), self.options.temperature
        return negative_diagnostics(*pixels, similarity, negatives, opposed, t, self.of_batch)
