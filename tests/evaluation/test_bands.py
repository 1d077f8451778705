import numpy as np
import pytest

from harness.evaluation.bands import edge_levels, radius

# That bands are those of the rule is tested where they are counted, in test_counts.py.


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
