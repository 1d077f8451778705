"""Contextrast++: Contextrast with learned fusion of its anchors, which are also contrasted with a memory of anchors.

Sung et al., arXiv 2608.22679; equation numbers are the paper's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import torch
from annotated_types import Ge
from torch import Tensor, nn

from methods.anchor_fusions import AnchorFusion
from methods.class_queues import Queues
from methods.contextrast import Contextrast
from methods.contrast_diagnostics import drawn_chance, drawn_diagnostics
from methods.info_nce import Contrast, masked_info_nce
from methods.pixel_embeddings import PixelVectors
from methods.ranking import rank_within_group

HEADS = 8  # of multi_head_self_attention; the paper does not say how many


class ContextrastPP(Contextrast):
    """Contextrast with a module M_i that fuses each layer's anchors, and an additional anchor-anchor (AA) loss.

    Choices made here where the paper is open: the memory starts empty and stores the anchors after their loss is
    computed; it has no gradient, and each process has its own; "the same number drawn for each class" is that of the
    class with the fewest stored anchors, ignoring empty classes; the loss is the mean over the classes with stored
    anchors. No code was released, so there is no `variant`.

    Peak extra memory (HRNet-W48's maps at 512x1024, batch 8, float32, heads included): 0.87 GiB.
    """

    title = "Contextrast++"
    paper = "Contextrast++"
    venue = "arXiv"
    year = 2026
    url = "https://arxiv.org/abs/2608.22679"
    idea = "Contextrast with a learned fusion of the class means and a memory of them to contrast with."
    left_open = "No code was released; the number of attention heads and how the memory fills are choices made here."

    @dataclass(frozen=True, kw_only=True)
    class Options(Contextrast.Options):
        """Contextrast's options and these."""

        former_names: ClassVar[Mapping[str, str]] = {**Contextrast.Options.former_names, "memory": "memory_size"}

        # "adaptive": equation (3); "static": equation (2), as in Contextrast; the others: methods/anchor_fusions.py
        fusion: Literal[
            "static",
            "adaptive",
            "concat_mlp",
            "multi_head_self_attention",
            "cross_attention",
            "self_attention_weighted_sum",
            "self_attention_sum_mlp",
            "gated_scalar",
            "gated_channel",
        ] = "adaptive"
        memory_size: Annotated[int, Ge(1)] = 100  # K_M, anchors stored per class
        # The layers whose anchors are contrasted and stored, for the classes present at layer 1 (table XIV).
        # "class_prioritized": the deepest layer at which the class still exists; "earliest_layer"; "deepest_layer" (for
        # classes that exist there); "all_layers".
        stored: Literal["class_prioritized", "earliest_layer", "deepest_layer", "all_layers"] = "class_prioritized"

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.detach_anchors and self.fusion != "static":  # the AA loss alone would still train the fusion
                raise ValueError(
                    f"detach_anchors is True, but must be false with fusion {self.fusion!r}, which learns by them"
                )
            weighted = ("static", "self_attention_weighted_sum")
            if self.low_weight != Contextrast.Options.low_weight and self.fusion not in weighted:
                raise ValueError(
                    f"low_weight is {self.low_weight}, but only fusions {' and '.join(weighted)} have such a weight"
                )
            if self.fusion == "multi_head_self_attention" and self.dim % HEADS:
                raise ValueError(f"dim is {self.dim}, but must be a multiple of {HEADS} with fusion {self.fusion!r}")

    options: Options

    def __init__(self, channels: Sequence[int], num_classes: int, ignore_index: int = 255, **options: Any) -> None:
        super().__init__(channels, num_classes, ignore_index, **options)
        fusion, dim, low_weight = self.options.fusion, self.options.dim, self.options.low_weight
        modules = 0 if fusion == "static" else len(channels) - 1
        self.fusions = nn.ModuleList(AnchorFusion(fusion, dim, low_weight, HEADS) for _ in range(modules))
        self.memory = Queues(num_classes, self.options.memory_size, dim)

    def terms(self, vectors: Sequence[PixelVectors], logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """{"pixel_anchor": weight * L_PA, "anchor_anchor": weight * L_AA}, from the embeddings of the pixels."""
        layers = self.layers(vectors, logits.argmax(1), labels)
        anchors = self.anchors(layers)
        return {
            "pixel_anchor": self.options.weight * self.pixel_anchor(layers, anchors),
            "anchor_anchor": self.options.weight * self.anchor_anchor(anchors),
        }

    def fuse(self, layer: int, mean: Tensor, coarsest: Tensor) -> Tensor:
        """Equation (3) for a layer i < I; the coarsest layer's anchors are unchanged."""
        if layer >= len(self.fusions):
            return super().fuse(layer, mean, coarsest)
        return self.fusions[layer](mean, coarsest)

    def anchor_anchor(self, anchors: Sequence[Tensor]) -> Tensor:
        """L_AA, equations (7) to (11), against the memory, which then stores the anchors."""
        current, contrasted = torch.cat(list(anchors)), self.contrasted(torch.stack(list(anchors))).flatten()
        memory = self.memory.vectors.flatten(0, 1).to(current.dtype, copy=True)  # [K memory_size, d], as it is now
        classes = torch.arange(self.num_classes, device=current.device)
        drawn, ages = self.drawn(), self.memory.ages()
        own, stored = classes.repeat(len(anchors)), classes.repeat_interleave(self.memory.length)
        same, pairs = own[:, None] == stored, contrasted[:, None] & drawn.flatten()
        scores = current @ memory.T / self.options.temperature  # a.a'/t, [I K, K memory_size]
        contrast = Contrast(scores, pairs & same, scores, pairs & ~same)
        loss = masked_info_nce(contrast)
        self.memory.push(current.detach(), torch.where(contrasted, own, self.num_classes))

        if self.observing:
            found = drawn_diagnostics(contrast, self.options.temperature, contrasted.sum())
            found["memory_age"] = (ages * drawn).sum() / drawn.sum().clamp(min=1)
            self.diagnostics |= {f"anchor_anchor/{name}": value for name, value in found.items()}
            self.diagnostics["chance/anchor_anchor"] = self.options.weight * drawn_chance(contrast)
            self.diagnostics |= {"anchor_anchor/loss": loss.detach(), "anchor_anchor/memory_fill": self.memory.fill()}
        return loss

    def contrasted(self, anchors: Tensor) -> Tensor:
        """Bool [I, K]: which of the anchors [I, K, d] take part in the AA loss."""
        exists = anchors.detach().any(2)
        chosen = exists & exists[0]
        if self.options.stored == "class_prioritized":
            deeper = chosen.flip(0).cumsum(0).flip(0) - chosen.long()
            chosen = chosen & (deeper == 0)
        elif self.options.stored != "all_layers":
            only = 0 if self.options.stored == "earliest_layer" else len(anchors) - 1
            chosen = chosen & (torch.arange(len(anchors), device=anchors.device) == only)[:, None]
        return chosen

    def drawn(self) -> Tensor:
        """Bool [K, memory_size]: random stored anchors, of each class as many as the class with the fewest has."""
        filled, length = self.memory.filled, self.memory.length
        fewest = torch.where(filled > 0, filled, length).min()
        stored = torch.arange(length, device=filled.device) < filled[:, None]
        queue = torch.where(stored, torch.arange(self.num_classes, device=filled.device)[:, None], self.num_classes)
        return stored & (rank_within_group(queue.flatten()).view_as(stored) < fewest)
