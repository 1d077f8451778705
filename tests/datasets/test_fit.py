import numpy as np
import pytest

from harness.datasets.augmentation import Augmentation


def size_after(fit, scale, height, width):
    """Height and width of the part of the crop that the resized image covers."""
    augmentation = Augmentation((300, 300), scale=(scale, scale), flip=0, cat_max_ratio=1, fit=fit)
    _, label = augmentation(np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8), (0,))
    covered = label == 0
    return covered.any(1).sum(), covered.any(0).sum()


@pytest.mark.parametrize(
    ("fit", "scale", "image", "wanted"),
    [
        ((200, 50), 1.0, (100, 160), (50, 80)),  # the short side binds: 50 / 100
        ((200, 50), 1.0, (160, 100), (80, 50)),  # whichever way round
        ((120, 100), 1.0, (100, 160), (75, 120)),  # the long side binds: 120 / 160
        ((200, 50), 2.0, (100, 160), (100, 160)),  # the factor is of the box
        (None, 0.5, (100, 160), (50, 80)),
    ],
)
def test_the_image_is_fitted_into_the_box_and_then_scaled(fit, scale, image, wanted):
    assert size_after(fit, scale, *image) == wanted
