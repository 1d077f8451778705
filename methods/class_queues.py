"""Memories of vectors of past mini-batches: a first-in, first-out queue for each class."""

import torch
from torch import Tensor, nn

from methods.fixed_sizes import rows_for
from methods.processes import all_rows
from methods.ranking import places_in_group

MAX_SCORES = 2**25  # similarities with a memory, or elements made for them, at a time: 128 MiB in float32


class Queues(nn.Module):
    """The last `length` vectors [d] of each of K classes, as constants without a gradient.

    The buffers are saved with a checkpoint: the vectors [K, length, d], of which class k holds the first filled[k], and
    the slot pointer[k] that class k writes next, which is its oldest vector once the queue is full.
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
        """Append vectors [N, d] of classes int64 [N] in order; in a full queue each replaces the oldest.

        Vectors of class K are left out. `gather` appends the vectors of all processes by rank, so that all hold the
        same queues; every process must then take part in every call.
        """
        if gather:
            vectors, classes = torch.cat(all_rows(vectors)), torch.cat(all_rows(classes))
        if len(classes) == 0:
            return
        num_classes, length = len(self.vectors), self.length
        every = torch.arange(len(classes), device=classes.device)
        arrival, arriving = places_in_group(classes, every, num_groups=num_classes + 1)
        last = (classes < num_classes) & (arrival >= arriving - length)  # no more than fit
        queue = classes.clamp(max=num_classes - 1)
        place = queue * length + (self.pointer[queue] + arrival) % length
        # To keep the shapes fixed, a row that is left out repeats the write of the first row that is kept. If there is
        # none, it writes what is already there.
        source = torch.where(last, every, last.long().argmax())
        place, memory = place[source], self.vectors.flatten(0, 1)
        memory[place] = torch.where(last[source][:, None], vectors[source].to(memory.dtype), memory[place])
        numbers = (classes[:, None] == torch.arange(num_classes, device=classes.device)).sum(0)
        self.pointer.add_(numbers).remainder_(length)
        self.filled.add_(numbers).clamp_(max=length)

    def slots(self) -> tuple[Tensor, Tensor]:
        """The first slots of all classes [K, L, d], L <= length, a view; and which hold a vector, bool [K, L].

        The others hold none (see rows_for).
        """
        number = rows_for(self.filled.max().clamp(min=1), self.length)
        return self.vectors[:, :number], torch.arange(number, device=self.filled.device) < self.filled[:, None]

    def fill(self) -> Tensor:
        """The filled share of each queue, [K]."""
        return self.filled / self.length
