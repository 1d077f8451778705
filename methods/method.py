"""The interface of a method: terms that are added to the cross entropy in training. Inference does not use methods."""

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
    options       values of the fields of the class's `Options`; available as `self.options`

    `loss` puts detached values to plot into `diagnostics`: scalars; vectors [K] with one value per class; vectors named
    "distance_bins/..." with one value per bin of the distance from an edge (negative_diagnostics.DISTANCES and one bin
    beyond them), NaN for an empty bin; vectors named "by_layer/..." with one value per map, fine to coarse. They are
    tensors on the loss's device, and need to be computed only while `observing`, which the trainer sets in the
    iterations that it logs.

    A step must not make the host wait for a GPU, and its shapes must not depend on data: no `item`, `nonzero` or
    boolean indexing, but masks, zero weights and fixed sizes. It can then be captured in a CUDA graph. Random choices
    use torch's generator of the tensors' device. State is kept in buffers.

    A subclass describes itself in plain literals, which `list methods` and docs/methods.md show: `title` (its name in
    tables), `idea` (one sentence) and, if there is a paper, `paper` (its title), `venue`, `year`, `url` (of the paper
    or its code) and `left_open` (what they leave open).

    A method that replaces the main head's cross entropy, or a part of it, sets the attribute or option
    `cross_entropy_weight`, the factor of the cross entropy while the method's terms count. Auxiliary heads are not
    affected. `align_corners` says how the network resizes its logits to the labels; the trainer sets it.

    Raises ValueError, naming the option, for a value of the wrong type or range, or one that does not fit the maps.
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
        """Raw embeddings [B, d, H_i, W_i] of the encoder maps [B, C_i, H_i, W_i], fine to coarse; by default none."""
        return []

    @abstractmethod
    def loss(self, embeddings: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int) -> dict[str, Tensor]:
        """{name: scalar}, the weighted terms to add to the cross entropy: always finite, always differentiable.

        Every batch has all of them, also one without anything to contrast: 0 times a sum of the embeddings, say.

        embeddings  the result of `embed`
        logits      float [B, K, h, w], of the main head
        labels      int64 [B, H, W], 0..K-1 or ignore_index
        iteration   from 0
        """

    def forward(self, features: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int) -> dict[str, Tensor]:
        """The loss from the encoder maps; keeps their embeddings while `observing`."""
        embeddings = self.embed(features)
        self.embeddings = [each.detach() for each in embeddings] if self.observing else []
        return self.loss(embeddings, logits, labels, iteration)


def full_precision(loss: "Loss[M]") -> "Loss[M]":
    """A decorator for a method's `loss`: autocast is off, and half-precision embeddings become float32."""

    @functools.wraps(loss)
    def wrapped(
        self: M, embeddings: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int
    ) -> dict[str, Tensor]:
        with torch.autocast(labels.device.type, enabled=False):
            raised = [z.float() if z.dtype in (torch.float16, torch.bfloat16) else z for z in embeddings]
            return loss(self, raised, logits, labels, iteration)

    return wrapped
