"""Label maps by the inference protocols that papers use, equal to mmsegmentation's."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from harness.models.segmenter import Segmenter

# Multi-scale and flip as the papers test: 0.75 to 2.0, step 0.25 (metrics.md, "Inference protocols").
SCALES = (0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
Size = tuple[int, int]


@dataclass(frozen=True)
class Window:
    """The window of the protocol `slide` and its stride, (height, width) in pixels."""

    size: Size
    stride: Size

    @classmethod
    def of(cls, size: Size, stride: Size | None = None) -> "Window":
        """A window with mmsegmentation's usual stride, two thirds of the size, if none is given."""
        return cls(size, stride or (round(size[0] * 2 / 3), round(size[1] * 2 / 3)))


def predict(
    network: Segmenter, image: np.ndarray, protocol: str, window: Window | None = None, fit: Size | None = None
) -> np.ndarray:
    """The label map of one image, uint8 [H, W, 3] RGB: the argmax of `scores`, uint8 [H, W] train ids.

    Arguments as for `scores`.
    """
    return label_maps(scores(network, image, protocol, window, fit))[0].cpu().numpy()


def label_maps(scored: Tensor) -> Tensor:
    """The classes with the highest scores: [B, K, H, W] -> uint8 [B, H, W] train ids."""
    return scored.argmax(dim=1).to(torch.uint8)


@torch.inference_mode()
def scores(
    network: Segmenter, image: np.ndarray, protocol: str, window: Window | None = None, fit: Size | None = None
) -> Tensor:
    """Scores of one image, uint8 [H, W, 3] RGB: float32 [1, K, H, W].

    whole: the logits. slide: the mean logits of the windows over each pixel; needs `window`. ms_flip: the mean softmax
    over `SCALES` and horizontal flips. fit: first scale the image into this box (long and short side in pixels). Logits
    are resized bilinearly to the network's input size, then to the image's.
    """
    batches = [to_batch([view], _device(network)) for view in views(image, protocol, fit)]
    return scores_of_views(network, batches, protocol, (image.shape[0], image.shape[1]), window)


def views(image: np.ndarray, protocol: str, fit: Size | None = None) -> list[np.ndarray]:
    """The network's inputs, uint8 [h, w, 3]: for `ms_flip` the image at each of `SCALES` (no flips), otherwise one."""
    seen = image if fit is None else _scaled(image, fit)
    if protocol != "ms_flip":
        return [seen]
    height, width = seen.shape[:2]
    return [_scaled(seen, (_rounded(width * scale), _rounded(height * scale))) for scale in SCALES]


def to_batch(images: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Images uint8 [h, w, 3] of one size as a batch on the device, uint8 [B, 3, h, w] in channels last."""
    batch = torch.empty(len(images), *images[0].shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
    np.stack(images, out=batch.numpy())
    batch = batch.to(device, non_blocking=True).permute(0, 3, 1, 2)
    # On a CPU, a single image's strides select the convolution kernel and so affect the last digits: keep them.
    return batch[0][None] if device.type == "cpu" and len(batch) == 1 else batch


@torch.inference_mode()
def scores_of_views(
    network: Segmenter, seen: Sequence[Tensor], protocol: str, size: Size, window: Window | None = None
) -> Tensor:
    """`scores` of B images of one `size` whose `views` are `seen`, each uint8 [B, 3, h, w]: float32 [B, K, *size].

    On a GPU, images and their flips form one batch; on a CPU they do not, so that results equal a single image's to the
    bit.
    """
    if protocol == "ms_flip":
        return _mean_probabilities(network, seen, size)
    (images,) = seen
    if protocol == "whole":
        logits = _logits(network, images)
    elif protocol == "slide" and window is not None:
        logits = _window_mean(network, images, window)
    else:
        raise ValueError("slide needs a window" if protocol == "slide" else f"there is no protocol {protocol}")
    return _resize(network, logits, size)


def _mean_probabilities(network: Segmenter, seen: Sequence[Tensor], size: Size) -> Tensor:
    """The mean softmax over scales and flips."""
    total: Tensor | None = None
    for images in seen:
        for logits in _logits_of_both(network, images):
            probabilities = _resize(network, logits, size).softmax(dim=1)
            total = probabilities if total is None else total.add_(probabilities)
    assert total is not None
    return total.div_(2 * len(seen))


def _logits_of_both(network: Segmenter, images: Tensor) -> Iterator[Tensor]:
    """The logits of images, and those of their flips, flipped back."""
    if images.device.type == "cuda":
        plain, flipped = _logits(network, torch.cat([images, images.flip(-1)])).chunk(2)
        yield from (plain, flipped.flip(-1))
    else:
        yield _logits(network, images)
        yield _logits(network, images.flip(-1)).flip(-1)


def _window_mean(network: Segmenter, images: Tensor, window: Window) -> Tensor:
    """Mean logits over windows: images [B, 3, H, W] -> [B, K, H, W]. Windows at the far edges are moved inwards."""
    height, width = images.shape[-2:]
    tall, wide = min(window.size[0], height), min(window.size[1], width)
    total = torch.zeros(len(images), network.num_classes, height, width, device=images.device)
    count = torch.zeros(1, 1, height, width, device=images.device)
    for top in _starts(height, tall, window.stride[0]):
        for left in _starts(width, wide, window.stride[1]):
            part = (..., slice(top, top + tall), slice(left, left + wide))
            total[part] += _logits(network, images[part])
            count[part] += 1
    return total / count


def _starts(length: int, window: int, stride: int) -> list[int]:
    """The start of each window along a side: every `stride` pixels; the last window ends with the image."""
    return [min(start, length - window) for start in range(0, length - window + stride, stride)]


def _logits(network: Segmenter, images: Tensor) -> Tensor:
    """Images uint8 [B, 3, H, W] -> float32 [B, K, H, W]."""
    return _resize(network, network(images).float(), images.shape[-2:])


def _resize(network: Segmenter, logits: Tensor, size: Size | torch.Size) -> Tensor:
    return F.interpolate(logits, size, mode="bilinear", align_corners=network.align_corners)


def _scaled(image: np.ndarray, box: Size) -> np.ndarray:
    """`image` at the largest size inside `box`, in either orientation, with its aspect ratio."""
    height, width = image.shape[:2]
    factor = min(max(box) / max(height, width), min(box) / min(height, width))
    size = (_rounded(width * factor), _rounded(height * factor))
    return image if size == (width, height) else cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)


def _rounded(length: float) -> int:
    """Whole pixels, rounded half up as in mmcv, at least one."""
    return max(1, int(length + 0.5))


def _device(network: Segmenter) -> torch.device:
    return next(network.parameters()).device
