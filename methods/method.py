"""The contract of a method: what it adds to the cross entropy during training. Nothing of it is left at inference."""

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound="Method")
Loss = Callable[[M, Sequence[Tensor], Tensor, Tensor, int], dict[str, Tensor]]


class Method(nn.Module, ABC):
    """Base class of all methods.

    channels      channels of the encoder maps, fine to coarse
    num_classes   K: labels are 0..K-1
    ignore_index  the label of pixels that take no part in anything

    `loss` leaves in `diagnostics` what is worth plotting, detached: scalars; one value per class as a vector [K]; or,
    named "distance_bins/...", one value per bin of the distance from an edge (negative_diagnostics.DISTANCES and one
    beyond them), NaN in a bin without any pixel; or, named "by_layer/...", one per map, fine to coarse.
    Random choices draw from torch's generator of the tensors' device; state lives in buffers.
    """

    def __init__(self, channels: Sequence[int], num_classes: int, ignore_index: int = 255) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.diagnostics: dict[str, Tensor] = {}

    @abstractmethod
    def embed(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Encoder maps [B, C_i, H_i, W_i], fine to coarse -> raw embeddings [B, d, H_i, W_i]."""

    @abstractmethod
    def loss(self, embeddings: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int) -> dict[str, Tensor]:
        """Named scalar terms, already weighted, to be added to the cross entropy: finite, and with a graph.

        embeddings  what `embed` returned
        logits      float [B, K, h, w], of the main head
        labels      int64 [B, H, W], 0..K-1 or ignore_index
        iteration   from 0
        """

    def forward(self, features: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int) -> dict[str, Tensor]:
        """The loss of the encoder maps' embeddings."""
        return self.loss(self.embed(features), logits, labels, iteration)


def full_precision(loss: "Loss[M]") -> "Loss[M]":
    """Decorates a method's `loss`: autocast is off inside it, and half-precision embeddings arrive as float32."""

    @functools.wraps(loss)
    def wrapped(
        self: M, embeddings: Sequence[Tensor], logits: Tensor, labels: Tensor, iteration: int
    ) -> dict[str, Tensor]:
        with torch.autocast(labels.device.type, enabled=False):
            raised = [z.float() if z.dtype in (torch.float16, torch.bfloat16) else z for z in embeddings]
            return loss(self, raised, logits, labels, iteration)

    return wrapped
