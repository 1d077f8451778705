"""Sums over many rows, block by block, to bound memory."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def sum_over_blocks(function: Callable[..., Tensor], rows: Sequence[Tensor], size: int) -> Tensor:
    """The sum of function(*block) over the blocks of `size` rows of the tensors [N, ...]; one empty block if N is 0.

    The function returns a tensor of the same shape for every block and must not draw random numbers. Its intermediate
    results are not kept but recomputed in the backward pass, block by block.
    """
    blocks = zip(*(tensor.split(size) for tensor in rows), strict=True)
    sums = [checkpoint(function, *block, use_reentrant=False, preserve_rng_state=False) for block in blocks]
    return torch.stack(sums).sum(0)
