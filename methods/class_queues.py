"""Memories of vectors of past mini-batches: a first-in, first-out queue for each class."""

import torch
from torch import Tensor, nn

from methods.processes import all_rows
from methods.ranking import places_in_group

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

        Those of class K are left out. `gather` appends the vectors of all processes, in the order of their ranks, so
        that all hold the same queues; every process must then take part in every call.
        """
        if gather:
            vectors, classes = torch.cat(all_rows(vectors)), torch.cat(all_rows(classes))
        if len(classes) == 0:
            return
        num_classes, length = len(self.vectors), self.length
        every = torch.arange(len(classes), device=classes.device)
        arrival, arriving = places_in_group(classes, every, num_groups=num_classes + 1)
        last = (classes < num_classes) & (arrival >= arriving - length)  # of more than a queue is long, the last remain
        queue = classes.clamp(max=num_classes - 1)
        place = queue * length + (self.pointer[queue] + arrival) % length
        # A row that does not remain writes once more what the first one that does writes, or if there is none what is
        # in the queues already.
        source = torch.where(last, every, last.long().argmax())
        place, memory = place[source], self.vectors.flatten(0, 1)
        memory[place] = torch.where(last[source][:, None], vectors[source].to(memory.dtype), memory[place])
        numbers = (classes[:, None] == torch.arange(num_classes, device=classes.device)).sum(0)
        self.pointer.add_(numbers).remainder_(length)
        self.filled.add_(numbers).clamp_(max=length)

    def rows(self) -> tuple[Tensor, Tensor]:
        """A copy of all stored vectors [M, d], and their classes int64 [M]."""
        stored = torch.arange(self.length, device=self.filled.device) < self.filled[:, None]
        return self.vectors[stored], stored.nonzero()[:, 0]

    def fill(self) -> Tensor:
        """The filled share of each queue, [K]."""
        return self.filled / self.length
