"""Sums over many rows, a block of rows at a time, so that what a block computes is never held for all rows at once."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def sum_over_blocks(function: Callable[..., Tensor], rows: Sequence[Tensor], size: int) -> Tensor:
    """The sum of function(*block) over the blocks of `size` rows of the tensors [N, ...]; one empty block if N is 0.

    The function returns a tensor of the same shape for every block, and draws nothing at random. Nothing inside it is
    kept for the backward pass: that computes it again, block by block.
    """
    blocks = zip(*(tensor.split(size) for tensor in rows), strict=True)
    sums = [checkpoint(function, *block, use_reentrant=False, preserve_rng_state=False) for block in blocks]
    return torch.stack(sums).sum(0)
