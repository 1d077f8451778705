"""From an image to a label map, by the protocols that papers report."""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.models.segmenter import Segmenter

# Multi-scale and flip as the papers test: 0.75 to 2.0, step 0.25 (metrics.md, "Inference protocols").
SCALES = (0.75, 1.0, 1.25, 1.5, 1.75, 2.0)


@torch.inference_mode()
def predict(network: Segmenter, image: np.ndarray, protocol: str) -> np.ndarray:
    """Predict one image, uint8 [H, W, 3] RGB, on the network's device.

    Returns train ids, uint8 [H, W]. `whole`: argmax of the logits at the image's size. `ms_flip`: argmax of the mean
    softmax over `SCALES` and horizontal flips. Logits are resized bilinearly, align_corners as the network's.
    """
    size = image.shape[:2]
    if protocol == "whole":
        scores = logits_at(network, _to_batch(network, image), size)
    else:
        scores = multi_scale_probabilities(network, image)
    return scores.argmax(dim=1)[0].to(torch.uint8).cpu().numpy()


@torch.inference_mode()
def multi_scale_probabilities(network: Segmenter, image: np.ndarray) -> Tensor:
    """The mean softmax over scales and flips, float32 [1, K, H, W]."""
    height, width = image.shape[:2]
    total: Tensor | None = None
    for scale in SCALES:
        # Half a pixel is rounded up, as in mmsegmentation's test-time augmentation.
        size = (int(width * scale + 0.5), int(height * scale + 0.5))
        scaled = image if scale == 1 else cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        batch = _to_batch(network, scaled)
        for flipped in (False, True):
            logits = network(batch.flip(-1) if flipped else batch).float()
            logits = logits.flip(-1) if flipped else logits
            probabilities = _resize(network, logits, (height, width)).softmax(dim=1)
            total = probabilities if total is None else total.add_(probabilities)
    assert total is not None
    return total / (2 * len(SCALES))


def logits_at(network: Segmenter, images: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits of images uint8 [B, 3, H, W], float32 [B, K, *size]."""
    return _resize(network, network(images).float(), size)


def _resize(network: Segmenter, logits: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(logits, size, mode="bilinear", align_corners=network.align_corners)


def _to_batch(network: Segmenter, image: np.ndarray) -> Tensor:
    device = next(network.parameters()).device
    batch = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].to(device)
    return batch.contiguous(memory_format=torch.channels_last)
