import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from harness.evaluation.counts import count_image
from harness.evaluation.objects import SIZES, component_areas, runs, size_groups

CLASSES = 4
EIGHT = np.ones((3, 3))
maps = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(1, 14), st.integers(1, 14)),
    elements=st.sampled_from([0, 0, 0, 1, 1, 2, 3, 255]),
)


def plain_areas(labels):
    """The area of each pixel's object, one label and one object at a time."""
    areas = np.zeros(labels.shape, np.int64)
    for value in np.unique(labels):
        objects, number = ndimage.label(labels == value, EIGHT)
        for index in range(1, number + 1):
            areas[objects == index] = (objects == index).sum()
    return areas


def plain_group(areas):
    return np.select([areas <= 256, areas <= 1024, areas <= 9216], [0, 1, 2], 3)


def plain_counts(prediction, label, size):
    """TP, FP, FN of each class for one size, as metrics.md words it."""
    prediction = np.where(label == 255, 255, prediction)
    of_truth, of_guess = (plain_group(plain_areas(each)) == SIZES.index(size) for each in (label, prediction))
    return [
        [
            ((label == c) & (prediction == c) & of_truth).sum(),
            ((label != c) & (prediction == c) & of_guess).sum(),
            ((label == c) & (prediction != c) & of_truth).sum(),
        ]
        for c in range(CLASSES)
    ]


@given(maps)
def test_areas_equal_those_of_labelling_one_class_at_a_time(labels):
    areas = component_areas(labels)
    assert areas.dtype == np.int32
    assert np.array_equal(areas, plain_areas(labels))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([[1, 0], [0, 1]], [[2, 2], [2, 2]]),  # both diagonals cross
        ([[1, 0, 0], [0, 0, 1]], [[1, 4, 4], [4, 4, 1]]),  # the end of a row does not touch the next row's start
        ([[1, 0, 1], [1, 0, 1], [1, 1, 1]], [[7, 2, 7], [7, 2, 7], [7, 7, 7]]),  # joined at the bottom only
        ([[0, 0, 255, 0, 0]], [[2, 2, 1, 2, 2]]),  # an ignored pixel parts objects
    ],
)
def test_areas_by_hand(labels, expected):
    assert component_areas(np.array(labels, np.uint8)).tolist() == expected


def test_a_spiral_is_one_object():
    labels = np.zeros((31, 31), np.uint8)
    row = column = 0
    for turn, length in enumerate(length for side in range(30, 0, -2) for length in (side, side)):
        down, right = ((0, 1), (1, 0), (0, -1), (-1, 0))[turn % 4]
        for _ in range(length):
            labels[row, column] = 1
            row, column = row + down, column + right
    assert ndimage.label(labels, EIGHT)[1] == 1
    assert set(component_areas(labels)[labels == 1].tolist()) == {int(labels.sum())}


def test_maps_as_large_and_wild_as_they_come():
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, (300, 400)).astype(np.uint8)
    objects, _ = ndimage.label(labels == 1, EIGHT)
    expected = np.bincount(objects.ravel())[objects]
    assert np.array_equal(component_areas(labels)[labels == 1], expected[labels == 1])
    assert component_areas(np.full((1024, 2048), 7, np.uint8))[5, 5] == 1024 * 2048


@given(maps, maps.filter(lambda each: each.size > 1))
def test_runs_are_the_longest_stretches_of_a_row_in_which_all_maps_are_constant(first, second):
    second = np.resize(second, first.shape)
    starts, lengths = runs(first, second)
    expected = []
    for row in range(first.shape[0]):
        for column in range(first.shape[1]):
            here = (first[row, column], second[row, column])
            if column == 0 or here != (first[row, column - 1], second[row, column - 1]):
                expected.append([row * first.shape[1] + column, 0])
            expected[-1][1] += 1
    assert np.stack([starts, lengths], 1).tolist() == expected


def test_groups_end_at_16_32_and_96_squared():
    areas = np.array([1, 256, 257, 1024, 1025, 9216, 9217, 2**31 - 1], np.int32)
    assert [SIZES[group] for group in size_groups(areas)] == [
        *("tiny", "tiny", "small", "small", "medium", "medium", "large", "large")
    ]


@st.composite
def scaled_pairs(draw):
    """A label map with a prediction, enlarged so that objects of every size occur."""
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    label = draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 1, 2, 3, 255])))
    prediction = draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 1, 2, 3])))
    scale = draw(st.sampled_from([1, 16, 30, 50]))
    label, prediction = (np.kron(each, np.ones((scale, scale), np.uint8)) for each in (label, prediction))
    return np.roll(prediction, draw(st.integers(0, 3)), axis=1), label


@given(scaled_pairs())
def test_counts_by_size_equal_the_definition_written_class_by_class(pair):
    tables = count_image(*pair, CLASSES)
    for size in SIZES:
        assert np.array_equal(tables[f"objects@{size}"], plain_counts(*pair, size))


@given(scaled_pairs())
def test_the_sizes_together_are_the_region(pair):
    tables = count_image(*pair, CLASSES)
    assert np.array_equal(sum(tables[f"objects@{size}"] for size in SIZES), tables["region"])


def test_golden_objects_counted_by_hand():
    # Class 1: a square of 16x16 (tiny) of which the right half is missed, and one of 20x20 (small) that is found and
    # predicted two columns too wide: 20 x 22 = 440 pixels, small too.
    label = np.zeros((60, 100), np.uint8)
    label[2:18, 2:18] = label[30:50, 40:60] = 1
    prediction = np.zeros_like(label)
    prediction[2:18, 2:10] = prediction[30:50, 40:62] = 1
    # A false alarm of 5x5, tiny, and one that is there only where the label is ignored.
    prediction[5:10, 80:85] = prediction[50:58, 80:90] = 1
    label[50:58, 80:90] = 255
    tables = count_image(prediction, label, 2)
    assert [tables[f"objects@{size}"][1].tolist() for size in SIZES] == [
        [128, 25, 128],
        [400, 40, 0],
        [0, 0, 0],
        [0, 0, 0],
    ]
    # Class 0 is one object of 60 x 100 - 256 - 400 - 80 = 5264 pixels, medium; so is its prediction.
    assert tables["objects@medium"][0].tolist() == [5264 - 40 - 25, 128, 65]


def test_a_false_positive_counts_where_the_predicted_object_belongs_not_the_true_one():
    # A tiny object that is buried in a prediction of 40x40 (medium): its TP is tiny, the FP around it are medium.
    label = np.zeros((50, 50), np.uint8)
    label[20:25, 20:25] = 1
    prediction = np.zeros_like(label)
    prediction[5:45, 5:45] = 1
    tables = count_image(prediction, label, 2)
    assert tables["objects@tiny"][1].tolist() == [25, 0, 0]
    assert tables["objects@medium"][1].tolist() == [0, 1600 - 25, 0]
