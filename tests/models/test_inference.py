import mmcv
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from harness.models.inference import SCALES, Window, predict, scores


class Network(nn.Module):
    """Stands for a Segmenter: logits at stride 4."""

    align_corners = False
    num_classes = 5

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


def resized(logits, size):
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)


def logits_of(network, image):
    """At the size of `image`, from which they are resized further where that is asked for."""
    with torch.inference_mode():
        logits = network(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])
        return resized(logits, image.shape[:2])


def test_whole_is_the_argmax_of_the_logits_at_the_images_size(network, image):
    expected = logits_of(network, image).argmax(1)[0].numpy()
    predicted = predict(network, image, "whole")
    assert (predicted.dtype, predicted.shape) == (np.uint8, (37, 50))
    assert (predicted == expected).all()


def test_ms_flip_is_the_mean_softmax_over_scales_and_flips(network, image):
    assert SCALES == (0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
    probabilities = []
    for scale in SCALES:
        # As mmcv's Resize does: the scaled shape in whole pixels, and the largest image of the true shape in it.
        scaled = mmcv.imrescale(image, (int(50 * scale + 0.5), int(37 * scale + 0.5)))
        for flip in (False, True):
            logits = resized(logits_of(network, mmcv.imflip(scaled) if flip else scaled), (37, 50)).double().numpy()
            exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
            softmax = exponentials / exponentials.sum(axis=1, keepdims=True)
            probabilities.append(softmax[..., ::-1] if flip else softmax)
    expected = np.mean(probabilities, axis=0)
    found = scores(network, image, "ms_flip").numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (predict(network, image, "ms_flip") == found.argmax(1)[0]).all()


def covering(length, window, stride):
    """Where windows lie along a side: steps of `stride`, the last moved back so that it ends with the side."""
    starts, start = [], 0
    while start + window < length:
        starts.append(start)
        start += stride
    return [*starts, max(length - window, 0)]


@given(
    size=st.tuples(st.integers(9, 50), st.integers(9, 50)),
    window=st.tuples(st.integers(8, 60), st.integers(8, 60)),
    share=st.tuples(st.floats(0.2, 1), st.floats(0.2, 1)),
)
def test_slide_is_the_mean_of_the_logits_of_the_windows_over_each_pixel(size, window, share):
    network, stride = Network().eval(), tuple(max(1, int(w * s)) for w, s in zip(window, share, strict=True))
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    total, count = np.zeros((1, 5, *size)), np.zeros(size)
    for top in covering(size[0], window[0], stride[0]):
        for left in covering(size[1], window[1], stride[1]):
            part = (slice(top, top + window[0]), slice(left, left + window[1]))
            total[:, :, *part] += logits_of(network, image[part]).numpy()
            count[part] += 1
    expected = total / count
    found = scores(network, image, "slide", Window(window, stride)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (predict(network, image, "slide", Window(window, stride)) == found.argmax(1)[0]).all()


def test_slide_asks_for_its_window(network, image):
    with pytest.raises(ValueError, match="needs a window"):
        predict(network, image, "slide")


@pytest.mark.parametrize(
    ("size", "stride"), [((512, 1024), (341, 683)), ((480, 480), (320, 320)), ((769, 769), (513, 513))]
)
def test_a_windows_stride_is_two_thirds_of_it_as_in_mmsegmentations_configurations(size, stride):
    assert Window.of(size).stride == stride
    assert Window.of(size, (7, 9)) == Window(size, (7, 9))


@pytest.mark.parametrize(
    ("fit", "seen"), [((100, 20), (20, 27)), ((25, 100), (25, 34)), ((30, 30), (22, 30)), ((100, 100), (74, 100))]
)
def test_fit_shows_the_network_the_largest_image_inside_the_box(network, image, fit, seen):
    expected = resized(logits_of(network, mmcv.imresize(image, seen[::-1])), (37, 50))
    torch.testing.assert_close(scores(network, image, "whole", fit=fit), expected)
    turned = np.ascontiguousarray(image.transpose(1, 0, 2))
    expected = resized(logits_of(network, mmcv.imresize(turned, seen)), (50, 37))
    torch.testing.assert_close(scores(network, turned, "whole", fit=fit), expected)
