"""Memory banks of vectors from past mini-batches: a first-in, first-out queue per class."""

import torch
from torch import Tensor, nn

from methods.fixed_sizes import rows_for
from methods.processes import all_rows
from methods.ranking import places_in_group

MAX_SCORES = 2**25  # similarities with a memory (or intermediate elements) at a time: 128 MiB in float32


class Queues(nn.Module):
    """The last `length` vectors [d] of each of K classes, as constants without a gradient.

    The buffers are part of checkpoints: the vectors [K, length, d], of which the first filled[k] of class k are valid;
    the slot pointer[k] that class k writes next (its oldest vector once the queue is full); and for each vector its
    purity and the number of the push that stored it, [K, length].
    """

    vectors: Tensor
    purity: Tensor
    pushed: Tensor
    pushes: Tensor
    pointer: Tensor
    filled: Tensor

    def __init__(self, num_classes: int, length: int, dim: int) -> None:
        super().__init__()
        self.length = length
        self.register_buffer("vectors", torch.zeros(num_classes, length, dim))
        self.register_buffer("purity", torch.zeros(num_classes, length))
        self.register_buffer("pushed", torch.zeros(num_classes, length, dtype=torch.long))
        self.register_buffer("pushes", torch.zeros((), dtype=torch.long))
        self.register_buffer("pointer", torch.zeros(num_classes, dtype=torch.long))
        self.register_buffer("filled", torch.zeros(num_classes, dtype=torch.long))

    @torch.no_grad()
    def push(self, vectors: Tensor, classes: Tensor, gather: bool = False, purity: Tensor | None = None) -> None:
        """Append vectors [N, d] of classes int64 [N] in order; in a full queue each replaces the oldest.

        Vectors of class K are skipped. `gather` appends the vectors of all ranks, in rank order, so that all have the
        same queues; every rank must then take part in every call. purity: the share [N] of correctly classified pixels
        behind each vector; None: 1.
        """
        purity = torch.ones_like(vectors[:, 0]) if purity is None else purity
        if gather:
            vectors, classes, purity = (torch.cat(all_rows(each)) for each in (vectors, classes, purity))
        self.pushes.add_(1)
        if len(classes) == 0:
            return
        num_classes, length = len(self.vectors), self.length
        every = torch.arange(len(classes), device=classes.device)
        arrival, arriving = places_in_group(classes, every, num_groups=num_classes + 1)
        last = (classes < num_classes) & (arrival >= arriving - length)  # at most `length` per class
        queue = classes.clamp(max=num_classes - 1)
        place = queue * length + (self.pointer[queue] + arrival) % length
        # To keep shapes fixed, a skipped row repeats the write of the first row that is kept or, if there is none,
        # rewrites the existing value.
        source = torch.where(last, every, last.long().argmax())
        place, last = place[source], last[source]
        for buffer, values in (
            (self.vectors, vectors),
            (self.purity, purity),
            (self.pushed, self.pushes.expand(len(vectors))),
        ):
            memory, kept = buffer.flatten(0, 1), last[:, None] if buffer.dim() > 2 else last
            memory[place] = torch.where(kept, values[source].to(memory.dtype), memory[place])
        numbers = (classes[:, None] == torch.arange(num_classes, device=classes.device)).sum(0)
        self.pointer.add_(numbers).remainder_(length)
        self.filled.add_(numbers).clamp_(max=length)

    def slots(self) -> tuple[Tensor, Tensor]:
        """A view of all classes' first L <= length slots [K, L, d], and which are filled, bool [K, L].

        L covers all filled slots (see rows_for).
        """
        number = rows_for(self.filled.max().clamp(min=1), self.length)
        return self.vectors[:, :number], torch.arange(number, device=self.filled.device) < self.filled[:, None]

    def ages(self) -> Tensor:
        """The age of each vector in pushes, int64 [K, length]: 1 for those of the last push."""
        return self.pushes - self.pushed + 1

    def fill(self) -> Tensor:
        """The filled share of each queue, [K]."""
        return self.filled / self.length
