"""Memories of vectors of past mini-batches: a first-in, first-out queue for each class."""

import torch
from torch import Tensor, nn

from methods.processes import all_rows
from methods.ranking import rank_within_group

MAX_SCORES = 2**25  # similarities with a memory, or elements made for them, held at a time: 128 MiB in float32


class Queues(nn.Module):
    """For each of K classes the last `length` vectors [d] pushed under it. They are constants: no gradient is kept.

    The buffers, saved with a checkpoint, are the vectors [K, length, d], of which the first filled[k] of class k count,
    and the slot pointer[k] that class k writes next, its oldest once the queue is full.
    """

    vectors: Tensor
    pointer: Tensor
    filled: Tensor

    def __init__(self, num_classes: int, length: int, dim: int) -> None:
        super().__init__()
        self.length = length
        self.register_buffer("vectors", torch.zeros(num_classes, length, dim))
        self.register_buffer("pointer", torch.zeros(num_classes, dtype=torch.long))
        self.register_buffer("filled", torch.zeros(num_classes, dtype=torch.long))

    @torch.no_grad()
    def push(self, vectors: Tensor, classes: Tensor, gather: bool = False) -> None:
        """Append vectors [N, d] of classes int64 [N], in their order; each replaces the oldest of a full queue.

        `gather` appends the vectors of all processes, in the order of their ranks, so that all hold the same queues;
        every process must then take part in every call.
        """
        if gather:
            vectors, classes = torch.cat(all_rows(vectors)), torch.cat(all_rows(classes))
        num_classes, length = len(self.vectors), self.length
        arrival = rank_within_group(classes, torch.arange(len(classes), device=classes.device))
        arriving = torch.bincount(classes, minlength=num_classes)
        last = arrival >= (arriving - length)[classes]  # of more vectors than a queue is long, the last remain
        slot = (self.pointer[classes] + arrival) % length
        self.vectors[classes[last], slot[last]] = vectors[last].to(self.vectors.dtype)
        self.pointer.add_(arriving).remainder_(length)
        self.filled.add_(arriving).clamp_(max=length)

    def rows(self) -> tuple[Tensor, Tensor]:
        """A copy of all stored vectors [M, d], and their classes int64 [M]."""
        stored = torch.arange(self.length, device=self.filled.device) < self.filled[:, None]
        return self.vectors[stored], stored.nonzero()[:, 0]

    def fill(self) -> Tensor:
        """The filled share of each queue, [K]."""
        return self.filled / self.length
