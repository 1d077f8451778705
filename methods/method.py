"""The contract of a method: terms added to the cross entropy in training. Inference uses nothing of a method."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from methods.options import BaseOptions

M = TypeVar("M", bound="Method")
Loss = Callable[[M, Sequence[Tensor], Tensor, Tensor, int], dict[str, Tensor]]


class Method(nn.Module, ABC):
    """Base class of all methods.

    channels      channels of the encoder maps, fine to coarse
    num_classes   K: labels are 0..K-1
    ignore_index  the label of pixels to ignore
    options       values of the fields of the class's `Options`, which `self.options` then holds

    `loss` leaves values to plot in `diagnostics`, detached: scalars; one value per class as a vector [K]; under a name
    that starts with "distance_bins/", one value per bin of the distance from an edge (negative_diagnostics.DISTANCES
    and one bin beyond them), NaN for an empty bin; under "by_layer/...", one value per map, fine to coarse.
    They are tensors on the loss's device, and only there while `observing`: the trainer sets it at the iterations whose
    diagnostics it logs.

    Nothing in a step may make the host wait for a GPU, or have a shape that depends on data: no `item`, `nonzero` or
    boolean index, but masks, weights of 0 and fixed numbers. A step can then be captured in a CUDA graph.
    Random choices use torch's generator of the tensors' device. State lives in buffers.

    A subclass says what it is in `title` (its name in tables) and `idea` (one sentence), and where there is a paper in
    `paper` (its title), `venue`, `year`, `url` (of the paper or its code) and `left_open` (what they leave open): plain
    literals, which `list methods` and docs/methods.md show.

    A method that replaces the main head's cross entropy, or part of it, sets `cross_entropy_weight`, an attribute or an
    option: the cross entropy's factor while the method's terms count. Auxiliary heads keep theirs. `align_corners` is
    how the network resizes its logits to the labels; the trainer sets it.

    Raises ValueError, naming the option, for a value of the wrong type or range, or one that the maps do not allow.
    """

    @dataclass(frozen=True, kw_only=True)
    class Options(BaseOptions):
        """No options. A method with options overrides this class, with the same decorator."""

    title: str
    idea: str
    paper: str = ""
    venue: str = ""
    year: int = 0
    url: str = ""
    left_open: str = ""

    cross_entropy_weight: float = 1.0
    align_corners: bool = False

    options: BaseOptions
    observing: bool = True  # whether `loss` computes diagnostics

    def __init__(self, channels: Sequence[int], num_classes: int, ignore_index: int = 255, **options: Any) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.options = self.Options(**options)
        self.options.check_maps(len(self.channels))
        self.cross_entropy_weight = getattr(self.options, "cross_entropy_weight", self.cross_entropy_weight)
        self.diagnostics: dict[str, Tensor] = {}
        self.embeddings: list[Tensor] = []

    def embed(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Encoder maps [B, C_i, H_i, W_i], fine to coarse -> raw embeddings [B, d, H_i, W_i]; by default none."""
        return []

    @abstractmethod
    def loss(self, embeddings: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int) -> dict[str, Tensor]:
        """Named scalar terms to add to the cross entropy, already weighted: always finite, always with a graph.

        embeddings  what `embed` returned
        logits      float [B, K, h, w], of the main head
        labels      int64 [B, H, W], 0..K-1 or ignore_index
        iteration   from 0
        """

    def forward(self, features: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int) -> dict[str, Tensor]:
        """The loss of the encoder maps' embeddings, which are kept while the method is `observing`."""
        embeddings = self.embed(features)
        self.embeddings = [each.detach() for each in embeddings] if self.observing else []
        return self.loss(embeddings, logits, labels, iteration)


def full_precision(loss: "Loss[M]") -> "Loss[M]":
    """Decorates a method's `loss` to run with autocast off and to receive half-precision embeddings as float32."""

    @functools.wraps(loss)
    def wrapped(
        self: M, embeddings: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int
    ) -> dict[str, Tensor]:
        with torch.autocast(labels.device.type, enabled=False):
            raised = [z.float() if z.dtype in (torch.float16, torch.bfloat16) else z for z in embeddings]
            return loss(self, raised, logits, labels, iteration)

    return wrapped
