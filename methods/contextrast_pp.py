"""Contextrast++: Contextrast with learned fusion of its anchors and a memory of them to contrast with.

Sung et al., arXiv 2608.22679; equation numbers are the paper's.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from methods.anchor_fusions import FUSIONS, AnchorFusion
from methods.class_queues import Queues
from methods.contextrast import Contextrast
from methods.contrast_diagnostics import label_diagnostics
from methods.info_nce import supervised_info_nce
from methods.method import full_precision
from methods.options import require_choice, require_count
from methods.ranking import rank_within_group

WEIGHTED = ("static", "self_attention_weighted_sum")  # fusions that low_weight is for
STORED = ("class_prioritized", "earliest_layer", "deepest_layer", "all_layers")


class ContextrastPP(Contextrast):
    """Contextrast, where the anchors of a layer are fused by a module M_i, and an anchor-anchor (AA) loss is added.

    fusion  "adaptive": equation (3); "static": equation (2), as in Contextrast; or another of methods/anchor_fusions.py
    memory  K_M, the number of anchors that are stored for each class
    stored  the anchors that are contrasted and stored, of the classes present at layer 1. "class_prioritized": that of
            the deepest layer at which the class still exists; "earliest_layer", "deepest_layer" (classes that exist
            there alone), "all_layers": those layers' (the paper's table XIV)

    The other options are Contextrast's. Choices made where the paper is open: the memory starts empty and takes in the
    anchors after their own loss; it holds no gradient, and each process has its own; "the same number drawn for each
    class" is the number that the class with the fewest stored anchors has, classes with none left aside; the loss is
    the mean over the classes with stored anchors. `detach_anchors` does not reach the AA loss, which has no other
    gradient, and takes from a learned fusion the PA loss, all that trains it by default: it needs "static".
    `low_weight` is for the fusions that have it, "static" and "self_attention_weighted_sum". There is no released code,
    so no `variant`.

    Peak extra memory (HRNet-W48's maps at 512x1024, batch 8, float32, heads included): 1.35 GiB.
    Raises ValueError for a value outside its range.
    """

    def __init__(
        self,
        channels: Sequence[int],
        num_classes: int,
        ignore_index: int = 255,
        *,
        fusion: str = "adaptive",
        memory: int = 100,
        stored: str = "class_prioritized",
        **options: Any,
    ) -> None:
        super().__init__(channels, num_classes, ignore_index, **options)
        require_choice("fusion", fusion, ("static", *FUSIONS))
        require_choice("stored", stored, STORED)
        require_count(memory=memory)
        if self.detach_anchors and fusion != "static":
            raise ValueError(f"detach_anchors is True, but must be false with fusion {fusion!r}, which learns by them")
        if self.low_weight != 0.5 and fusion not in WEIGHTED:  # not its default
            raise ValueError(f"low_weight is {self.low_weight}, but fusion {fusion!r} has no such weight")
        modules = 0 if fusion == "static" else len(channels) - 1
        self.fusions = nn.ModuleList(AnchorFusion(fusion, self.dim, self.low_weight) for _ in range(modules))
        self.stored = stored
        self.memory = Queues(num_classes, memory, self.dim)

    @full_precision
    def loss(self, embeddings: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int) -> dict[str, Tensor]:
        """{"pixel_anchor": alpha L_PA, "anchor_anchor": alpha L_AA}. Arguments as in Method.loss."""
        prediction = logits.argmax(1)
        layers = [self.layer(z, prediction, labels) for z in embeddings]
        anchors = self.anchors(layers)
        return {
            "pixel_anchor": self.alpha * self.pixel_anchor(layers, anchors),
            "anchor_anchor": self.alpha * self.anchor_anchor(anchors),
        }

    def fuse(self, layer: int, mean: Tensor, coarsest: Tensor) -> Tensor:
        """Equation (3) for a layer i < I; the coarsest layer's anchors stay as they are."""
        if layer >= len(self.fusions):
            return super().fuse(layer, mean, coarsest)
        at_both = (mean.detach().any(1) & coarsest.detach().any(1)).nonzero().squeeze(1)  # attention costs K d^2
        return mean.index_copy(0, at_both, self.fusions[layer](mean[at_both], coarsest[at_both]))

    def anchor_anchor(self, anchors: Sequence[Tensor]) -> Tensor:
        """L_AA, equations (7) to (11), against the memory, which then takes in the anchors."""
        current, classes = self.contrasted(torch.stack(list(anchors)))
        memory, memory_classes = self.memory.rows()
        filled = self.memory.filled
        fewest = torch.where(filled > 0, filled, self.memory.length).min()
        drawn = rank_within_group(memory_classes) < fewest
        pairs = (current, classes, memory[drawn].to(current.dtype), memory_classes[drawn])
        loss = supervised_info_nce(*pairs, self.temperature)
        self.memory.push(current.detach(), classes)

        found = label_diagnostics(*pairs, self.num_classes)
        self.diagnostics |= {f"anchor_anchor/{name}": value for name, value in found.items()}
        self.diagnostics |= {"anchor_anchor/loss": loss.detach(), "anchor_anchor/memory_fill": self.memory.fill()}
        return loss

    def contrasted(self, anchors: Tensor) -> tuple[Tensor, Tensor]:
        """The anchors [M, d], of anchors [I, K, d], that take part in the AA loss, and their classes int64 [M]."""
        exists = anchors.detach().any(2)
        chosen = exists & exists[0]
        if self.stored == "class_prioritized":
            deeper = chosen.flip(0).cumsum(0).flip(0) - chosen.long()
            chosen = chosen & (deeper == 0)
        elif self.stored == "earliest_layer":
            chosen[1:] = False
        elif self.stored == "deepest_layer":
            chosen[:-1] = False
        return anchors[chosen], chosen.nonzero()[:, 1]
