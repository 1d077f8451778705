import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import ndimage

from harness.evaluation.bands import edge_levels, frame_levels, radius

CLASSES = 4
maps = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(1, 14), st.integers(1, 14)),
    elements=st.sampled_from([0, 0, 0, 1, 2, 3, 255]),
)
radii_lists = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(sorted)


def distance_to(others: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Chebyshev distance to the nearest true pixel, large where there is none."""
    if not others.any():
        return np.full(others.shape, 10**6)
    return ndimage.distance_transform_cdt(~others, metric="chessboard").astype(np.int64)


@given(maps, radii_lists, st.booleans())
def test_levels_hold_the_bands_of_the_plain_rule_class_by_class(labels, radii, ignore_edge):
    levels = edge_levels(labels, radii, ignore_edge)
    for c in range(CLASSES):
        others = (labels != c) if ignore_edge else (labels != c) & (labels != 255)
        distance = distance_to(others)
        for index, reach in enumerate(radii):
            band = (levels <= index) & (labels == c)
            assert np.array_equal(band, (labels == c) & (distance <= reach))


@given(st.integers(1, 12), st.integers(1, 12), radii_lists)
def test_frame_levels_measure_the_distance_to_a_padded_frame(height, width, radii):
    padded = np.pad(np.zeros((height, width), bool), 1, constant_values=True)
    distance = distance_to(padded)[1:-1, 1:-1]
    levels = frame_levels(height, width, radii)
    for index, reach in enumerate(radii):
        assert np.array_equal(levels <= index, distance <= reach)


def test_levels_accept_equal_radii():
    labels = np.zeros((9, 9), np.uint8)
    labels[4:, :] = 1
    assert edge_levels(labels, [2, 2, 3])[:, 0].tolist() == [3, 2, 0, 0, 0, 0, 2, 3, 3]


@pytest.mark.parametrize(("width", "expected"), [("3px", 3), ("20px", 20), ("0.02", 46), ("0.0001", 1), ("0.005", 11)])
def test_radius_is_in_pixels_or_a_rounded_share_of_the_diagonal(width, expected):
    # The diagonal of 1024 x 2048 is 2289.7: 2 % is 45.8, 0.5 % is 11.4.
    assert radius(width, 1024, 2048) == expected


@pytest.mark.parametrize("width", ["0px", "-3px", "3", "2.5px", "0", "1.0", "wide", "nan", ""])
def test_radius_refuses_what_is_no_width(width):
    with pytest.raises(ValueError, match="band width"):
        radius(width, 10, 10)
