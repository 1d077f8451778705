import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage, sparse

from harness.errors import UserError
from harness.evaluation.counts import DEFAULT_WIDTHS, Counts, confusion_image, count_image, stack
from harness.statistics.scores import miou

CLASSES = 4
WIDTHS = ("1px", "2px", "5px", "9px", "0.1")


@st.composite
def pairs(draw):
    """A label map with ignored pixels and a prediction that may hold anything where they are."""
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    label = draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 0, 1, 1, 2, 3, 255])))
    prediction = draw(hnp.arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 0, 1, 1, 2, 3])))
    junk = draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 255)))
    return np.where(label == 255, junk, prediction), label


def chessboard(others):
    if not others.any():
        return np.full(others.shape, 10**6)
    return ndimage.distance_transform_cdt(~others, metric="chessboard").astype(np.int64)


def plain_boundary(prediction, label, c, reach, ignore_edge=True):
    """TP, FP, FN of the two bands of class c, written as the definition: one binary mask at a time, frame padded on."""
    bands = []
    for values in (np.where(label == 255, 255, prediction), label):
        mask = np.pad(values == c, 1)
        others = ~mask
        if not ignore_edge:
            others &= ~np.pad(values == 255, 1)
        bands.append((mask & (chessboard(others) <= reach))[1:-1, 1:-1])
    guess, truth = bands
    return [(guess & truth).sum(), (guess & ~truth).sum(), (~guess & truth).sum()]


def plain_trimap(prediction, label, c, reach):
    near = np.zeros(label.shape, bool)
    for value in np.unique(label):
        near |= (label == value) & (chessboard(label != value) <= reach)
    near &= label != 255
    guess, truth = near & (prediction == c), near & (label == c)
    return [(guess & truth).sum(), (guess & ~truth).sum(), (~guess & truth).sum()]


def radii(shape):
    return {"1px": 1, "2px": 2, "5px": 5, "9px": 9, "0.1": max(1, round(0.1 * float(np.hypot(*shape))))}


@given(pairs(), st.booleans())
def test_boundary_counts_equal_the_rule_written_class_by_class(pair, ignore_edge):
    tables = count_image(*pair, CLASSES, WIDTHS, ignore_edge)
    for width, reach in radii(pair[1].shape).items():
        expected = [plain_boundary(*pair, c, reach, ignore_edge) for c in range(CLASSES)]
        assert np.array_equal(tables[f"boundary@{width}"], expected)


@given(pairs())
def test_trimap_counts_equal_region_counts_near_the_edges_of_the_label(pair):
    tables = count_image(*pair, CLASSES, WIDTHS)
    for width, reach in radii(pair[1].shape).items():
        assert np.array_equal(tables[f"trimap@{width}"], [plain_trimap(*pair, c, reach) for c in range(CLASSES)])


@given(pairs(), st.booleans())
def test_void_on_a_labeled_pixel_counts_as_one_more_class_that_is_not_scored(pair, ignore_edge):
    prediction, label = pair
    void = (prediction == 3) & (label != 255)
    found = count_image(np.where(void, 255, prediction), label, CLASSES, WIDTHS, ignore_edge, void_is_wrong=True)
    other = np.where(void, CLASSES, prediction)
    expected = count_image(other, label, CLASSES + 1, WIDTHS, ignore_edge)
    for name, table in found.items():
        assert np.array_equal(table, expected[name][:CLASSES]), name
    confusion = confusion_image(np.where(void, 255, prediction), label, CLASSES, void_is_wrong=True)
    assert np.array_equal(confusion, confusion_image(other, label, CLASSES + 1)[:CLASSES, :CLASSES])


def test_void_is_refused_unless_it_is_asked_for_and_other_ids_always():
    label = np.zeros((2, 2), np.uint8)
    void = np.array([[0, 255], [0, 0]], np.uint8)
    assert count_image(void, label, 3, void_is_wrong=True)["region"].tolist() == [[3, 0, 1], [0, 0, 0], [0, 0, 0]]
    with pytest.raises(ValueError, match="255"):
        count_image(void, label, 3)
    with pytest.raises(ValueError, match="254"):
        count_image(np.full((2, 2), 254, np.uint8), label, 3, void_is_wrong=True)


@given(pairs())
def test_confusion_and_region_equal_scipys_sum_of_pixels(pair):
    prediction, label = pair
    valid = label != 255
    pixels = (label[valid].astype(int), prediction[valid].astype(int))
    expected = sparse.coo_array((np.ones(valid.sum(), np.int64), pixels), shape=(CLASSES, CLASSES)).toarray()
    confusion = confusion_image(prediction, label, CLASSES)
    assert confusion.dtype == np.int64
    assert np.array_equal(confusion, expected)
    hits = np.diag(expected)
    region = np.stack([hits, expected.sum(0) - hits, expected.sum(1) - hits], 1)
    assert np.array_equal(count_image(prediction, label, CLASSES)["region"], region)


def test_golden_example_counted_by_hand():
    # Label: left half 0, right half 1, one ignored pixel at the top right corner. The prediction moves the edge one
    # pixel to the right in the three upper rows.
    label = np.array([[0, 0, 0, 1, 1, 255], *[[0, 0, 0, 1, 1, 1]] * 5], np.uint8)
    prediction = np.array([*[[0, 0, 0, 0, 1, 1]] * 3, *[[0, 0, 0, 1, 1, 1]] * 3], np.uint8)
    tables = count_image(prediction, label, 2, ("1px",))
    assert tables["region"].tolist() == [[18, 3, 0], [14, 0, 3]]
    assert confusion_image(prediction, label, 2).tolist() == [[18, 0], [3, 14]]
    # Trimap: columns 2 and 3 of every row (12 pixels), and the neighbours of the ignored pixel: (0, 4), (1, 4), (1, 5).
    assert tables["trimap@1px"].tolist() == [[6, 3, 0], [6, 0, 3]]
    # Bands of class 0. Label: 18 pixels but the inner column 1 of rows 1..4: 14. Prediction: 3 rows of 4 and 3 of 3
    # columns, 21 pixels, but (1, 1), (1, 2), (2, 1), (3, 1), (4, 1): 16; (2, 2) touches (3, 3), which is class 1.
    # Common: the label's 14 without (1, 2), which lies inside in the prediction: 13.
    assert tables["boundary@1px"][0].tolist() == [13, 3, 1]
    # Bands of class 1. Label: 17 pixels but (2, 4), (3, 4), (4, 4) ((1, 4) touches the ignored one): 14. Prediction:
    # (0, 4), columns 4 and 5 of rows 1 and 2, 9 below: 14 pixels but (4, 4), whereas (3, 4) touches (2, 3): 13.
    # Common: of the prediction's 13, (2, 4) and (3, 4) lie inside in the label: 11.
    assert tables["boundary@1px"][1].tolist() == [11, 2, 3]


def test_boundary_iou_of_a_present_class_is_not_zero_for_thin_bands():
    # Two squares that overlap by half: eroding the label map itself would invent classes here.
    label, prediction = np.full((40, 40), 3, np.uint8), np.full((40, 40), 3, np.uint8)
    label[10:30, 5:25], prediction[10:30, 15:35] = 7, 7
    hits, false, missed = count_image(prediction, label, 8, ("2px",))["boundary@2px"][7]
    # Each band: 20 x 20 - 16 x 16 = 144. Common: two strips 2 high and 10 wide above and below.
    assert (hits, false, missed) == (40, 104, 104)


@given(pairs())
def test_a_perfect_prediction_has_no_errors_whatever_is_predicted_on_ignored_pixels(pair):
    junk, label = pair
    prediction = np.where(label == 255, junk, label)
    tables = count_image(prediction, label, CLASSES)
    assert set(tables) == {
        "region",
        *(f"{kind}@{width}" for kind in ("boundary", "trimap") for width in DEFAULT_WIDTHS),
        *(f"objects@{size}" for size in ("tiny", "small", "medium", "large")),
    }
    for table in tables.values():
        assert table.dtype == np.int64
        assert not table[:, 1:].any()
    assert tables["region"][:, 0].sum() == (label != 255).sum()


def test_150_classes_and_the_largest_number_of_classes_are_counted_apart():
    for classes in (150, 255):
        label = np.arange(classes, dtype=np.uint8).reshape(1, -1).repeat(6, 0)
        tables = count_image(label, label, classes)
        assert np.array_equal(tables["region"], [[6, 0, 0]] * classes)


def test_integer_maps_of_any_width_count_alike():
    rng = np.random.default_rng(0)
    prediction, label = rng.integers(0, CLASSES, (2, 9, 8))
    label[2, 3] = 255
    narrow = count_image(prediction.astype(np.uint8), label.astype(np.uint8), CLASSES)
    wide = count_image(prediction, label, CLASSES)
    assert all(np.array_equal(narrow[name], wide[name]) for name in narrow)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_a_prediction_outside_the_classes_is_an_error_that_says_where(dtype):
    label = np.zeros((5, 6), np.uint8)
    prediction = np.zeros((5, 6), dtype)
    prediction[3, 4] = 19
    with pytest.raises(ValueError, match=r"prediction holds 19 at row 3, column 4, outside the train ids 0\.\.18"):
        count_image(prediction, label, 19)
    with pytest.raises(ValueError, match="prediction holds 19"):
        confusion_image(prediction, label, 19)
    prediction[3, 4] = 255
    with pytest.raises(ValueError, match="prediction holds 255 at row 3, column 4"):
        count_image(prediction, label, 19)
    label[3, 4] = 255
    assert count_image(prediction, label, 19)["region"][0].tolist() == [29, 0, 0]


@pytest.mark.parametrize("value", [-1, 256, 1000])
def test_values_that_would_wrap_around_in_8_bits_are_refused(value):
    prediction = np.full((2, 2), value)
    with pytest.raises(ValueError, match=f"prediction holds {value}"):
        count_image(prediction, np.zeros((2, 2), np.uint8), 3)


def test_wrong_labels_sizes_and_types_are_refused():
    label = np.zeros((4, 6), np.uint8)
    with pytest.raises(ValueError, match=r"prediction is 4x6 pixels and the label 6x4"):
        count_image(label.T, label, 2)
    with pytest.raises(ValueError, match="label holds 34"):
        count_image(label, np.full((4, 6), 34, np.uint8), 19)
    with pytest.raises(ValueError, match="prediction is float64"):
        count_image(label.astype(float), label, 2)
    with pytest.raises(ValueError, match="256 classes"):
        count_image(label, label, 256)
    with pytest.raises(ValueError, match="band width"):
        count_image(label, label, 2, ("3",))


def test_a_shift_costs_more_in_narrower_bands():
    label = np.zeros((120, 160), np.uint8)
    label[30:90, 30:90], label[20:60, 100:150] = 1, 2

    def mious(shift):
        tables = count_image(np.roll(label, shift, axis=1), label, 3, ("3px", "5px", "10px"))
        return [float(miou(tables[name])) for name in ("boundary@3px", "boundary@5px", "boundary@10px", "region")]

    assert mious(0) == [100.0] * 4
    for shift in (1, 2, 3, 4):
        scores = mious(shift)
        assert scores == sorted(scores)
        assert len(set(scores)) == 4
        assert all(now < before for now, before in zip(scores, mious(shift - 1), strict=True))


def segmentation(random, classes=150, present=12, other=8):
    """A label map of ADE20K's usual size with `present` classes and a prediction with more, much of it wrong."""
    chosen = random.choice(classes, present + other, replace=False)
    fields = [cv2.GaussianBlur(random.normal(size=(64, 85)), (0, 0), 5) for _ in chosen]
    noise = [0.1 * cv2.GaussianBlur(random.normal(size=(64, 85)), (0, 0), 1.5) for _ in chosen]
    fields, noise = (np.stack([cv2.resize(each, (683, 512)) for each in maps]) for maps in (fields, noise))
    guess = fields + noise
    guess[present:] -= 0.03
    return chosen[guess.argmax(0)].astype(np.uint8), chosen[fields[:present].argmax(0)].astype(np.uint8)


@pytest.mark.slow
def test_the_counts_of_ade20ks_2000_images_take_far_less_than_25_megabytes(tmp_path):
    random, images = np.random.default_rng(0), 20
    tables = stack([count_image(*segmentation(random), 150) for _ in range(images)])
    assert len(tables) == 1 + 6 + 6 + 4
    names = [f"ADE_val_{index:08d}" for index in range(images)]
    Counts(names, tuple(f"class {index}" for index in range(150)), {"whole": tables}).save(tmp_path / "counts.npz")
    megabytes = (tmp_path / "counts.npz").stat().st_size * 2000 / images / 1e6
    print(f"\n{megabytes:.1f} MB for 2,000 images")
    assert megabytes < 12


def some_counts(images=5, seed=0):
    rng = np.random.default_rng(seed)
    maps = rng.integers(0, CLASSES, (images, 2, 12, 13)).astype(np.uint8)
    tables = [count_image(*pair, CLASSES) for pair in maps]
    names = [f"image{index}" for index in range(images)]
    doubled = [{name: table * 1000 for name, table in each.items()} for each in tables]
    return Counts(names, ("a", "b", "c", "dé"), {"whole": stack(tables), "ms_flip": stack(doubled)})


def assert_same(left, right):
    assert (left.image_ids, left.classes) == (right.image_ids, right.classes)
    assert {protocol: set(tables) for protocol, tables in left.tables.items()} == {
        protocol: set(tables) for protocol, tables in right.tables.items()
    }
    for protocol, tables in left.tables.items():
        for name, table in tables.items():
            assert table.dtype == np.int64
            assert np.array_equal(table, right.tables[protocol][name])


def test_counts_survive_saving_in_small_types(tmp_path):
    counts = some_counts()
    path = tmp_path / "run" / "counts.npz"
    counts.save(path)
    assert_same(Counts.load(path), counts)
    with np.load(path) as file:
        assert file["whole/region"].dtype == np.uint8
        assert file["ms_flip/region"].dtype == np.uint16
    first = path.read_bytes()
    counts.save(path)
    assert path.read_bytes() == first
    assert [each.name for each in path.parent.iterdir()] == ["counts.npz"]


@pytest.mark.parametrize("largest", [255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**62])
def test_no_count_is_too_large_to_be_stored(tmp_path, largest):
    counts = Counts(["a"], ("x",), {"whole": {"region": np.array([[[largest, 0, 1]]])}})
    counts.save(tmp_path / "counts.npz")
    assert_same(Counts.load(tmp_path / "counts.npz"), counts)


def test_counts_of_fewer_tables_are_read_as_they_are(tmp_path):
    # Files from before there were object sizes: the schema is the same.
    counts = some_counts()
    fewer = {name: table for name, table in counts.tables["whole"].items() if not name.startswith("objects")}
    Counts(counts.image_ids, counts.classes, {"whole": fewer}).save(tmp_path / "counts.npz")
    assert set(Counts.load(tmp_path / "counts.npz").tables["whole"]) == set(fewer)


def test_another_schema_is_refused_by_name(tmp_path):
    path = tmp_path / "counts.npz"
    np.savez(path, schema=np.array(2), something=np.zeros(3))
    with pytest.raises(UserError, match=r"counts\.npz has schema 2, this version reads 1"):
        Counts.load(path)


def test_a_missing_or_damaged_file_is_refused_by_name(tmp_path):
    path = tmp_path / "counts.npz"
    with pytest.raises(UserError, match=r"counts\.npz does not exist"):
        Counts.load(path)
    some_counts().save(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 3 : len(whole) // 3 + 64] = bytes(64)
    for damaged in (b"", b"text", whole[: len(whole) // 2], bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"counts\.npz is not a whole file of counts"):
            Counts.load(path)


def test_an_image_is_counted_once():
    with pytest.raises(ValueError, match="a is counted 2 times"):
        Counts(["a", "b", "a"], ("sky",), {})


def test_no_images_cannot_be_stacked():
    with pytest.raises(ValueError, match="no images"):
        stack([])


def test_selecting_keeps_the_given_order_and_names_what_is_missing():
    whole = some_counts()
    part = whole.select(["image3", "image1"])
    assert part.image_ids == ["image3", "image1"]
    assert np.array_equal(part.tables["whole"]["region"], whole.tables["whole"]["region"][[3, 1]])
    with pytest.raises(KeyError, match="image9"):
        whole.select(["image9"])


def test_a_table_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"table region of whole is \[1, 2, 3\], not \[2, 2, 3\]"):
        Counts(["a", "b"], ("x", "y"), {"whole": {"region": np.zeros((1, 2, 3), np.int64)}})


@pytest.mark.parametrize("spoilt", [np.full((1, 2, 3), 0.5), np.full((1, 2, 3), np.nan), np.full((1, 2, 3), -1)])
def test_a_file_of_other_numbers_than_counts_is_refused(tmp_path, spoilt):
    path = tmp_path / "counts.npz"
    Counts(["a"], ("x", "y"), {"whole": {"region": np.ones((1, 2, 3), np.int64)}}).save(path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(path, **arrays | {"whole/region": spoilt})
    with pytest.raises(UserError, match=r"counts\.npz is not a whole file of counts"):
        Counts.load(path)
