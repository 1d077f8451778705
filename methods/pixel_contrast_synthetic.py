"""Pixel contrast with a memory and synthetic hard negatives.

Zhou and Wang, "Cross-Image Pixel Contrasting for Semantic Segmentation", TPAMI 2024.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from methods.pixel_contrast import PixelContrast


class PixelContrastSynthetic(PixelContrast):
    """PixelContrast with memory, in which mixtures of each anchor's hardest negatives are additional negatives.

    A mixture of two negatives n, m is the unit vector along w n + (1 - w) m, w uniform from 0 to 1; a mixture of the
    anchor a and a negative is the one along w a + (1 - w) n, w uniform from 0 to `anchor_share`. Both are constants for
    the gradient, like the memory. The paper's text was not available: only that both kinds exist is known; everything
    else is chosen here and NOT VERIFIED, including the options' constants. On CamVid, drawing from the hardest tenth
    collapses: all embeddings end up in one direction. Drawing from all keys does not (`semi_hard: 1.0`,
    synthetic_all_keys in config/diagnosis.yaml).

    Peak extra memory (HRNet-W48's maps at 512x1024, batch 8, float32, heads included): 3.77 GiB.
    """

    title = "Pixel contrast with synthetic negatives"
    paper = "Cross-Image Pixel Contrasting for Semantic Segmentation"
    venue = "TPAMI"
    year = 2024
    url = ""  # not the one of pixel contrast
    idea = "Pixel contrast with a memory, where mixtures of an anchor's hardest negatives join its negatives."
    left_open = (
        "The paper's text was not available: how mixtures are drawn and all their constants are choices made here."
    )

    @dataclass(frozen=True, kw_only=True)
    class Options(PixelContrast.Options):
        """PixelContrast's options and these, none of them verified. The memory cannot be left out."""

        memory: bool = True  # synthetic negatives need one
        # number of an anchor's most similar negatives to mix, within the share `semi_hard`
        hardest: Annotated[int, Ge(1)] = 256
        pair_mixes: Annotated[int, Ge(1)] = 128  # mixtures of two of them, per anchor
        anchor_mixes: Annotated[int, Ge(1)] = 64  # mixtures of one of them with the anchor, per anchor
        anchor_share: Annotated[float, Interval(gt=0, le=0.5)] = 0.5  # the anchor's largest weight in these

        def __post_init__(self) -> None:
            super().__post_init__()
            if not self.memory:
                raise ValueError(
                    "memory is False, but must be true: the synthetic negatives are mixtures of its vectors"
                )

    options: Options

    def elements_per_anchor(self, number: int) -> int:
        """The largest number of elements per anchor of any tensor in `draw`, with `number` keys."""
        return max(number, self.options.pair_mixes * self.options.dim)

    def negatives(
        self, anchors: Tensor, keys: Tensor, scores: Tensor, near: Tensor, number: Tensor
    ) -> tuple[Tensor, Tensor]:
        """PixelContrast's negatives and the mixtures. Arguments as there."""
        drawn, is_drawn = super().negatives(anchors, keys, scores, near, number)
        available = number.clamp(1, self.options.hardest)  # without negatives, the mask below drops the mixtures
        mixed = [
            self.mix_pairs(keys, scores, near, available),
            self.mix_with_anchor(anchors, scores, near, available),
        ]
        exists = (number > 0).expand(-1, self.options.pair_mixes + self.options.anchor_mixes)
        return torch.cat([drawn, *mixed], dim=1), torch.cat([is_drawn, exists], dim=1)

    def mix_pairs(self, keys: Tensor, scores: Tensor, ranked: Tensor, available: Tensor) -> Tensor:
        """Scores [A, pair_mixes] of mixtures of two different keys from the first available [A, 1] columns ranked."""
        shape = (len(ranked), self.options.pair_mixes)
        first = random_below(available, shape)
        second = (first + 1 + random_below(available - 1, shape)) % available  # the same key if there is only one
        n, m = ranked.gather(1, first), ranked.gather(1, second)
        weight = torch.rand(shape, dtype=scores.dtype, device=scores.device)
        length = torch.lerp(keys[m], keys[n], weight[..., None]).norm(dim=-1)
        return torch.lerp(scores.gather(1, m), scores.gather(1, n), weight) / not_tiny(length)

    def mix_with_anchor(self, anchors: Tensor, scores: Tensor, ranked: Tensor, available: Tensor) -> Tensor:
        """Scores [A, anchor_mixes] of mixtures of the anchor and one of the first available [A, 1] columns ranked."""
        shape = (len(ranked), self.options.anchor_mixes)
        n = scores.gather(1, ranked.gather(1, random_below(available, shape)))
        weight = self.options.anchor_share * torch.rand(shape, dtype=scores.dtype, device=scores.device)
        own = (anchors * anchors.detach()).sum(1, keepdim=True) / self.options.temperature
        cosine = self.options.temperature * n.detach()
        length = (weight**2 + (1 - weight) ** 2 + 2 * weight * (1 - weight) * cosine).clamp(min=0).sqrt()
        return torch.lerp(n, own, weight) / not_tiny(length)


def random_below(limit: Tensor, shape: tuple[int, int]) -> Tensor:
    """Random integers from 0 to limit - 1, int64 of this shape; limit int64 [A, 1]; 0 if the limit is 0."""
    return (torch.rand(shape, dtype=torch.double, device=limit.device) * limit).long()


def not_tiny(length: Tensor) -> Tensor:
    """The length of a mixture, clamped: if opposite vectors cancel out, rounding must not become a unit vector."""
    return length.clamp(min=1e-3)
