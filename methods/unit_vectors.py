"""Vectors of length one."""

from torch import Tensor


def unit(vectors: Tensor) -> Tensor:
    """The vectors [N, d] divided by their lengths; a zero vector stays zero.

    Equal to torch's `normalize`, but multiplying by the reciprocal needs fewer passes over [N, d] in the backward pass.
    """
    return vectors * vectors.norm(dim=1, keepdim=True).clamp_min(1e-12).reciprocal()
