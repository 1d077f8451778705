"""mmsegmentation's UPerHead (Xiao et al., ECCV 2018) in two halves, so that its feature pyramid can be tapped.

The multi-scale contrast paper (Pissas et al., ECCV 2022) contrasts the pyramid's outputs before they are fused.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class PyramidMaps(list[Tensor]):
    """The pyramid's outputs, and the encoder's `stages`, which auxiliary heads decode."""

    def __init__(self, maps: Sequence[Tensor], stages: Sequence[Tensor]) -> None:
        super().__init__(maps)
        self.stages = list(stages)


def pyramid_maps(head: Any, stages: Sequence[Tensor]) -> PyramidMaps:
    """The outputs of `head`'s pyramid: stages [B, C_i, H_i, W_i], fine to coarse -> maps [B, head.channels, H_i, W_i].

    The coarsest is the pyramid pooling module's output.
    """
    inputs = head._transform_inputs(stages)
    maps = [convolve(stage) for convolve, stage in zip(head.lateral_convs, inputs, strict=False)]
    maps.append(head.psp_forward(inputs))
    for index in range(len(maps) - 1, 0, -1):
        maps[index - 1] = maps[index - 1] + _resized(head, maps[index], maps[index - 1])
    finest_first = [convolve(map_) for convolve, map_ in zip(head.fpn_convs, maps, strict=False)]
    return PyramidMaps([*finest_first, maps[-1]], stages)


def pyramid_logits(head: Any, maps: Sequence[Tensor]) -> Tensor:
    """The logits [B, K, H_0, W_0] of `head` from its pyramid's outputs, on the finest map's grid."""
    finest, *coarser = maps
    fused = head.fpn_bottleneck(torch.cat([finest, *(_resized(head, map_, finest) for map_ in coarser)], dim=1))
    return head.cls_seg(fused)


def _resized(head: Any, map_: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(map_, like.shape[-2:], mode="bilinear", align_corners=head.align_corners)
