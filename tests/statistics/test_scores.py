import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from mmseg.evaluation.metrics.iou_metric import IoUMetric

from harness.evaluation.counts import DEFAULT_WIDTHS, count_image, stack
from harness.statistics.scores import groups, iou, metric_name, miou, score

CLASSES = 5
NAMES = tuple("abcde")
images = hnp.arrays(
    np.uint8,
    st.tuples(st.integers(1, 4), st.just(2), st.integers(1, 9), st.integers(1, 9)),
    elements=st.sampled_from([0, 0, 1, 2, 3]),  # class e is in neither map
)


def with_ignored(maps, seed):
    """Ground truth with a few ignored pixels (never all of them)."""
    ignored = np.random.default_rng(seed).random(maps[:, 1].shape) < 0.2
    ignored[:, 0, 0] = False
    return [(maps[i, 0], np.where(ignored[i], np.uint8(255), maps[i, 1])) for i in range(len(maps))]


def tables_of(pairs):
    return stack([count_image(*pair, CLASSES) for pair in pairs])


@given(images, st.integers(0, 2**32 - 1))
def test_scores_equal_mmsegmentations(maps, seed):
    pairs = with_ignored(maps, seed)
    areas = [
        IoUMetric.intersect_and_union(torch.tensor(prediction), torch.tensor(label), CLASSES, 255)
        for prediction, label in pairs
    ]
    total = [sum(each) for each in zip(*areas, strict=True)]
    theirs = IoUMetric.total_area_to_metrics(*total)
    theirs |= {key: IoUMetric.total_area_to_metrics(*total, metrics=[f"m{key}"])[key] for key in ("Dice", "Fscore")}
    scores, per_class = score(tables_of(pairs), NAMES)
    assert scores["miou"] == pytest.approx(100 * np.nanmean(theirs["IoU"]), rel=1e-5)
    assert scores["mean_accuracy"] == pytest.approx(100 * np.nanmean(theirs["Acc"]), rel=1e-5)
    assert scores["pixel_accuracy"] == pytest.approx(100 * float(theirs["aAcc"]), rel=1e-5)
    assert scores["mean_dice"] == pytest.approx(100 * np.nanmean(theirs["Dice"]), rel=1e-5)
    for index, name in enumerate(NAMES):
        for metric, key in (("iou", "IoU"), ("accuracy", "Acc"), ("dice", "Dice")):
            value = per_class[metric][name]
            assert (value is None) == bool(np.isnan(theirs[key][index]))
            assert value is None or value == pytest.approx(100 * theirs[key][index], rel=1e-5)


@given(images, st.integers(0, 2**32 - 1))
def test_fwiou_is_the_mean_over_the_pixels_of_the_iou_of_their_class(maps, seed):
    pairs = with_ignored(maps, seed)
    guess, true = (np.concatenate([pair[i].ravel() for pair in pairs]).astype(int) for i in (0, 1))
    guess, true = guess[true != 255], true[true != 255]
    of_pixel = [100 * np.sum((true == c) & (guess == c)) / np.sum((true == c) | (guess == c)) for c in true]
    assert score(tables_of(pairs), NAMES)[0]["fwiou"] == pytest.approx(np.mean(of_pixel), rel=1e-12)


# Class a: present and predicted, b: present, c: predicted only, d: neither. Counted by hand.
ABSENT_TABLE = np.array([[[6, 2, 2], [3, 1, 0], [0, 5, 0], [0, 0, 0]]])


@pytest.mark.parametrize(
    ("absent", "expected_iou", "expected_accuracy"),
    [
        ("skip", [60.0, 75.0, 0.0, None], [75.0, 100.0, None, None]),
        ("zero", [60.0, 75.0, 0.0, 0.0], [75.0, 100.0, 0.0, 0.0]),
        ("require_ground_truth", [60.0, 75.0, None, None], [75.0, 100.0, None, None]),
    ],
)
def test_each_rule_for_absent_classes(absent, expected_iou, expected_accuracy):
    scores, per_class = score({"region": ABSENT_TABLE}, tuple("abcd"), absent)
    assert list(per_class["iou"].values()) == expected_iou
    assert list(per_class["accuracy"].values()) == expected_accuracy
    assert scores["miou"] == pytest.approx(np.mean([value for value in expected_iou if value is not None]))
    defined = [value for value in expected_accuracy if value is not None]
    assert scores["mean_accuracy"] == pytest.approx(np.mean(defined))
    assert scores["pixel_accuracy"] == pytest.approx(100 * 9 / 11)


def test_image_scores_average_over_the_classes_of_each_images_ground_truth():
    # Image 1: a 50 %, b 100 %, c predicted but not there. Image 2: a 20 %. Image 3: wholly ignored.
    table = np.array(
        [
            [[2, 1, 1], [4, 0, 0], [0, 3, 0]],
            [[1, 2, 2], [0, 0, 0], [0, 0, 0]],
            [[0, 0, 0], [0, 0, 0], [0, 0, 0]],
        ]
    )
    for absent in ("skip", "zero", "require_ground_truth"):
        scores, _ = score({"region": table}, tuple("abc"), absent)
        assert scores["miou_image"] == pytest.approx((75 + 20) / 2)
        assert scores["miou_class_image"] == pytest.approx(((50 + 20) / 2 + 100) / 2)


def test_head_mid_and_tail_are_as_equal_as_possible():
    assert groups([5, 9, 7]) == {"head": [1], "mid": [2], "tail": [0]}
    assert groups(range(19)) == {
        "head": [18, 17, 16, 15, 14, 13, 12],
        "mid": [11, 10, 9, 8, 7, 6],
        "tail": [5, 4, 3, 2, 1, 0],
    }
    assert [len(group) for group in groups(range(11)).values()] == [4, 4, 3]
    assert [len(group) for group in groups(range(150)).values()] == [50, 50, 50]
    assert groups([3, 3, 3, 3])["head"] == [0, 1]


def test_group_scores_are_means_over_their_classes():
    table = np.array([[[1, 1, 0], [3, 0, 1], [2, 0, 0], [0, 0, 0], [1, 3, 0]]])
    scores, _ = score({"region": table}, NAMES, class_pixels=[10, 50, 20, 40, 30])
    # Frequent first: b d e c a; d is absent.
    assert (scores["miou_head"], scores["miou_mid"], scores["miou_tail"]) == (75.0, (25 + 100) / 2, 50.0)
    assert "miou_head" not in score({"region": table}, NAMES)[0]


@given(images, st.integers(0, 2**32 - 1))
def test_a_perfect_prediction_scores_100_everywhere(maps, seed):
    labels = [label for _, label in with_ignored(maps, seed)]
    pairs = [(np.where(label == 255, np.uint8(7), label), label) for label in labels]
    scores, per_class = score(tables_of(pairs), NAMES, class_pixels=[5, 4, 3, 2, 1])
    for metric, value in scores.items():
        # A trimap, a group of classes or objects of a size can be missing, and the score is then undefined.
        may_be_empty = metric.startswith(("trimap", "miou_mid", "miou_tail", "miou_head", "miou_objects"))
        assert value == 100.0 or (value is None and may_be_empty)
    assert {value for values in per_class.values() for value in values.values()} <= {100.0, None}


@given(images, st.randoms(use_true_random=False))
def test_permuting_images_or_classes_changes_nothing(maps, random):
    tables = tables_of([(prediction, label) for prediction, label in maps])
    scores, per_class = score(tables, NAMES)
    order = random.sample(range(len(maps)), len(maps))
    shuffled, _ = score({name: table[order] for name, table in tables.items()}, NAMES)
    classes = random.sample(range(CLASSES), CLASSES)
    renamed, renamed_per_class = score(
        {name: table[:, classes] for name, table in tables.items()}, [NAMES[index] for index in classes]
    )
    for metric, value in scores.items():
        assert shuffled[metric] == pytest.approx(value)
        assert renamed[metric] == pytest.approx(value)
    assert renamed_per_class == per_class


def test_metric_names_and_json_without_nan():
    label = np.zeros((4, 4), np.uint8)
    tables = tables_of([(label, label)])
    scores, per_class = score(tables, NAMES)
    assert set(scores) == {
        *("miou", "pixel_accuracy", "mean_accuracy", "fwiou", "mean_dice", "miou_image", "miou_class_image"),
        *(f"{kind}_miou@{width}" for kind in ("boundary", "trimap") for width in DEFAULT_WIDTHS),
        *(f"miou_objects_{size}" for size in ("tiny", "small", "medium", "large")),
    }
    assert {"iou", "accuracy", "boundary_iou@3px", "trimap_iou@0.02", "iou_objects_tiny"} <= set(per_class)
    assert (scores["miou_objects_tiny"], scores["miou_objects_small"]) == (100.0, None)
    assert scores["trimap_miou@3px"] is None
    assert per_class["iou"]["b"] is None
    json.dumps([scores, per_class], allow_nan=False)


def test_every_table_has_a_metric_of_its_own_name():
    tables = ("region", "boundary@3px", "trimap@0.02", "objects@tiny")
    assert [metric_name(each) for each in tables] == [
        *("miou", "boundary_miou@3px", "trimap_miou@0.02", "miou_objects_tiny")
    ]
    assert metric_name("objects@large", "iou") == "iou_objects_large"


def test_scores_by_object_size_by_hand():
    region = np.array([[[30, 10, 20], [5, 5, 0]], [[10, 0, 0], [0, 0, 0]]])
    tiny = np.array([[[8, 10, 2], [0, 5, 0]], [[0, 0, 0], [0, 0, 0]]])  # class b: a false alarm only
    for absent, expected in {"skip": (40 + 0) / 2, "zero": (40 + 0) / 2, "require_ground_truth": 40}.items():
        scores, per_class = score({"region": region, "objects@tiny": tiny}, ("a", "b"), absent)
        assert scores["miou_objects_tiny"] == pytest.approx(expected)
        assert per_class["iou_objects_tiny"]["a"] == pytest.approx(40)
    assert "miou_objects_small" not in scores


def test_nothing_defined_gives_none():
    scores, per_class = score({"region": np.zeros((2, CLASSES, 3), np.int64)}, NAMES)
    assert set(scores.values()) == {None}
    assert set(per_class["iou"].values()) == {None}


def test_miou_takes_any_leading_axes():
    counts = np.random.default_rng(1).integers(0, 50, (3, 4, CLASSES, 3))
    values = miou(counts)
    assert values.shape == (3, 4)
    assert values[2, 1] == pytest.approx(np.mean(iou(counts[2, 1])))
    assert np.array_equal(miou(counts.astype(float)), values)


def test_sums_beyond_32_bits_stay_exact():
    table = np.full((3, 1, 3), 2**40 + 1, np.int64)
    assert score({"region": table}, ("a",))[0]["miou"] == pytest.approx(100 / 3, rel=1e-15)


def test_wrong_input_is_refused():
    table = np.zeros((1, CLASSES, 3), np.int64)
    with pytest.raises(ValueError, match="absent is 'nan'"):
        score({"region": table}, NAMES, absent="nan")
    with pytest.raises(ValueError, match=r"table region is \[1, 5, 3\], not \[images, 2, 3\]"):
        score({"region": table}, ("a", "b"))
    with pytest.raises(ValueError, match="class_pixels has 2 numbers for 5 classes"):
        score({"region": table}, NAMES, class_pixels=[1, 2])
