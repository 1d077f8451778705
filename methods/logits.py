"""The main head's logits on the grid of the labels."""

import torch.nn.functional as F
from torch import Tensor


def at_labels(logits: Tensor, labels: Tensor, align_corners: bool) -> Tensor:
    """The logits [B, K, h, w] resized to the labels' [B, H, W], as for the network's cross entropy: [B, K, H, W].

    bfloat16 and float16 become float32.
    """
    size = (labels.shape[1], labels.shape[2])
    wide = logits if logits.dtype.itemsize >= 4 else logits.float()
    return F.interpolate(wide, size, mode="bilinear", align_corners=align_corners) if wide.shape[2:] != size else wide
