"""Sizes of tensors whose rows depend on the data: exact where that costs nothing, else fixed."""

from torch import Tensor

FIXED = False  # whether a CPU, too, takes fixed sizes; for tests


def rows_for(number: Tensor, bound: int, limit: int | None = None) -> int:
    """How many rows to make room for: `number`, an integer scalar on a device, or its upper bound.

    On a CPU: the number. On a GPU, where reading it makes the host wait and a changing shape rules out CUDA graphs: the
    bound, unless it is above the limit, where so many rows would cost more than the wait.
    """
    fixed = FIXED or number.device.type != "cpu"
    return bound if fixed and (limit is None or bound <= limit) else int(number)
