"""Implicit pixel embeddings: lengths, sums and products for a loss, without materialising the embeddings."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from methods.unit_vectors import unit


class PixelVectors(NamedTuple):
    """Vectors z = basis @ x of N pixels.

    A head ends in a linear layer z = W y + b, so that basis = [W b] and x = (y, 1). Sums of z and products with z are
    linear in those of x, and |z|^2 is a quadratic form of x. If y has fewer channels than z, x takes less memory than
    z, which is never materialised.
    """

    x: Tensor  # [N, c]
    basis: Tensor | None  # [d, c]; None: the identity, so that x is z
    size: tuple[int, int]  # height h and width w of the map: N is B h w

    @classmethod
    def of_map(cls, map_: Tensor) -> "PixelVectors":
        """The vectors of a map [B, d, h, w]."""
        return cls(map_.movedim(1, -1).flatten(0, 2), None, (map_.shape[2], map_.shape[3]))

    @classmethod
    def of_head(cls, head: nn.Module, features: Tensor) -> "PixelVectors":
        """The output vectors of a head for features [B, C, h, w]; its last layer is a 1x1 convolution with a bias.

        They are materialised if y has at least as many channels. Half precision is converted to float32.
        """
        *inner, last = head.children()
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        wide = last.in_channels >= last.out_channels
        map_ = (head if wide else nn.Sequential(*inner))(features)
        y = cls.of_map(map_.float() if map_.dtype in (torch.float16, torch.bfloat16) else map_)
        if wide:
            return y
        basis = torch.cat([last.weight.flatten(1), last.bias[:, None]], dim=1)
        return y._replace(x=F.pad(y.x, (0, 1), value=1), basis=basis)

    @torch.no_grad()
    def as_map(self) -> Tensor:
        """The vectors as a map [B, d, h, w], detached."""
        vectors = self.x if self.basis is None else self.x @ self.basis.T
        return vectors.unflatten(0, (-1, *self.size)).movedim(-1, 1)

    def unit(self) -> "PixelVectors":
        """The vectors divided by their lengths; a zero vector stays zero."""
        if self.basis is None:
            return self._replace(x=unit(self.x))
        squared = ((self.x @ (self.basis.T @ self.basis)) * self.x).sum(1, keepdim=True)
        return self._replace(x=self.x * squared.clamp_min(1e-24).rsqrt())

    def sums(self, weights: Tensor) -> Tensor:
        """Weighted sums [K, d] of the vectors, with weights [N, K]."""
        sums = weights.T @ self.x
        return sums if self.basis is None else sums @ self.basis.T

    def products(self, others: Tensor) -> Tensor:
        """Products [N, K] of the vectors with others [K, d]."""
        return self.x @ (others if self.basis is None else others @ self.basis).T
