"""Sizes of tensors whose number of rows depends on the data: exact on a CPU, fixed on a GPU."""

from torch import Tensor

FIXED = False  # use fixed sizes on a CPU too; for tests


def rows_for(number: Tensor, bound: int, limit: int | None = None) -> int:
    """The number of rows to allocate: `number`, an integer scalar on a device, or its upper bound.

    On a CPU, `number`. On a GPU, where reading it makes the host wait and a varying shape rules out CUDA graphs, the
    bound; if that exceeds the limit, so many rows would cost more than the wait, and it is `number` again.
    """
    fixed = FIXED or number.device.type != "cpu"
    return bound if fixed and (limit is None or bound <= limit) else int(number)
