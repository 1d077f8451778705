import mmcv
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from harness.evaluation.inference import SCALES, multi_scale_probabilities, predict


class Network(nn.Module):
    """Stands for a Segmenter: logits at stride 4."""

    align_corners = False

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(3, 5, 5, stride=4, padding=2)

    def forward(self, images):
        return self.layer(images.float() / 255)


@pytest.fixture
def network():
    return Network().eval()


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (37, 50, 3), dtype=np.uint8)


def logits_of(network, image, size):
    with torch.inference_mode():
        logits = network(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])
        return F.interpolate(logits, size, mode="bilinear", align_corners=False)


def test_whole_is_the_argmax_of_the_logits_at_the_images_size(network, image):
    expected = logits_of(network, image, (37, 50)).argmax(1)[0].numpy()
    predicted = predict(network, image, "whole")
    assert (predicted.dtype, predicted.shape) == (np.uint8, (37, 50))
    assert (predicted == expected).all()


def test_ms_flip_is_the_mean_softmax_over_scales_and_flips(network, image):
    assert SCALES == (0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
    probabilities = []
    for scale in SCALES:
        scaled = mmcv.imrescale(image, scale)
        for flip in (False, True):
            logits = logits_of(network, mmcv.imflip(scaled) if flip else scaled, (37, 50)).double().numpy()
            exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
            softmax = exponentials / exponentials.sum(axis=1, keepdims=True)
            probabilities.append(softmax[..., ::-1] if flip else softmax)
    expected = np.mean(probabilities, axis=0)
    found = multi_scale_probabilities(network, image).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (predict(network, image, "ms_flip") == found.argmax(1)[0]).all()


def test_ms_flip_of_a_mirrored_image_is_mirrored(network, image):
    mirrored = multi_scale_probabilities(network, np.ascontiguousarray(image[:, ::-1]))
    # OpenCV's resize of 8-bit images is not mirrored exactly: it rounds.
    torch.testing.assert_close(mirrored.flip(-1), multi_scale_probabilities(network, image), atol=2e-3, rtol=0)
