import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.ndimage import distance_transform_edt

from methods import label_distance
from methods.label_distance import NO_EDGE, squared_distance_to_other_mark

MAPS = array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=9).flatmap(
    lambda shape: arrays(np.int64, shape, elements=st.integers(-1, 2))
)


def brute_force(marks):
    """Squared distance from every pixel to each pixel with another mark, the least of them."""
    pixels = np.argwhere(np.ones_like(marks, dtype=bool))
    apart = ((pixels[:, None] - pixels[None]) ** 2).sum(-1)
    differs = marks.ravel()[:, None] != marks.ravel()[None]
    return np.where(differs, apart, NO_EDGE).min(1).reshape(marks.shape)


@given(MAPS)
def test_every_distance_equals_brute_force(marks):
    found = squared_distance_to_other_mark(torch.from_numpy(marks)).numpy()
    np.testing.assert_array_equal(found, [brute_force(image) for image in marks])


def test_rows_in_parts_give_the_distances_of_all_at_once(monkeypatch):
    marks = torch.randint(0, 3, (2, 5, 6), generator=torch.Generator().manual_seed(0)).repeat_interleave(5, 1)
    whole = squared_distance_to_other_mark(marks)
    for sums in (1, 7 * marks.numel()):
        monkeypatch.setattr(label_distance, "SUMS_AT_A_TIME", sums)
        assert squared_distance_to_other_mark(marks).equal(whole)


def test_thick_regions_equal_the_distance_transform_of_each_region():
    generator = np.random.default_rng(0)
    centres = generator.integers(0, 64, (12, 2))
    grid = np.stack(np.meshgrid(np.arange(48), np.arange(64), indexing="ij"), -1)
    marks = ((grid[:, :, None] - centres) ** 2).sum(-1).argmin(-1) % 5  # Voronoi cells of up to 30 pixels
    found = squared_distance_to_other_mark(torch.from_numpy(marks[None]))[0].numpy()
    for mark in np.unique(marks):
        region = marks == mark
        expected = distance_transform_edt(region)[region] ** 2
        np.testing.assert_array_equal(found[region], expected.round())


def test_the_frame_is_no_edge():
    marks = torch.zeros(1, 5, 7, dtype=torch.long)
    marks[0, :, 6] = 1
    found = squared_distance_to_other_mark(marks)
    assert found[0, 0].tolist() == [36, 25, 16, 9, 4, 1, 1]


def test_a_map_with_one_mark_has_no_edge_while_its_neighbour_in_the_batch_has():
    marks = torch.zeros(2, 4, 4, dtype=torch.long)
    marks[1, 0, 0] = 1
    found = squared_distance_to_other_mark(marks)
    assert (found[0] == NO_EDGE).all()
    assert found[1, 3, 3] == 18
