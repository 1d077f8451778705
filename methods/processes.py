"""Reductions over the ranks of a distributed training; with one process, its own values."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, distributed


def several() -> bool:
    """Whether there is more than one rank."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def all_sum(values: Tensor) -> Tensor:
    """The sum over all ranks of tensors of the same shape; gradients flow back to all ranks."""
    return _AllSum.apply(values) if several() else values


def all_most(values: Tensor) -> Tensor:
    """The elementwise maximum over all ranks, without a gradient."""
    values = values.detach().clone()
    if several():
        distributed.all_reduce(values, distributed.ReduceOp.MAX)
    return values


def all_logsumexp(values: Tensor) -> Tensor:
    """The elementwise log(sum over ranks of exp(values)); -inf, with no gradient, if all are -inf."""
    if not several():
        return values
    highest = all_most(values).clamp(min=torch.finfo(values.dtype).min)
    sums = all_sum((values - highest).exp())
    some = sums > 0
    return torch.where(some, highest + torch.where(some, sums, 1).log(), -torch.inf)


def all_rows(rows: Tensor) -> list[Tensor]:
    """The tensors [N_r, ...] of all ranks r, in order, without a gradient."""
    if not several():
        return [rows.detach()]
    numbers = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(distributed.get_world_size())]
    distributed.all_gather(numbers, torch.full_like(numbers[0], len(rows)))
    most = int(torch.cat(numbers).max())  # all_gather takes tensors of one size
    own = F.pad(rows.detach(), (0, 0) * (rows.dim() - 1) + (0, most - len(rows))).contiguous()
    parts = [torch.empty_like(own) for _ in numbers]
    distributed.all_gather(parts, own)
    return [part[: int(number)] for part, number in zip(parts, numbers, strict=True)]


class _AllSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _summed(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _summed(gradients[0])


def _summed(values: Tensor) -> Tensor:
    values = values.detach().clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(values)
    return values
