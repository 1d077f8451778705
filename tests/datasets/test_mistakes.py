import random
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.datasets import load
from harness.datasets.mistakes import (
    coco_stuff_kind,
    explain_pixels,
    explain_values,
    id_order,
    share_distance,
    void_classes,
)

MINUS = "all labels fit when 1 is subtracted, so they are shifted by one"
PLUS = "all labels fit when 1 is added, so they are shifted by one (as reduce_zero_label does)"
VOID = "it is one past the last class, so void was stored as a class of its own"
REMEDY = ": use the labels as the data set distributes them"

CAMVID = frozenset(range(11)), frozenset({11})
CITYSCAPES = frozenset(range(19)), frozenset({255})
ADE20K = frozenset(range(1, 151)), frozenset({0})
RAW_CITYSCAPES = {"ids, not train_ids": frozenset(range(34))}


def files(values: set[int], number: int = 40, share: float = 0.3, seed: int = 0) -> list[frozenset[int]]:
    """Values of `number` files, each with about `share` of `values`, all of them in some file."""
    rng = random.Random(seed)
    picked = [frozenset(value for value in values if rng.random() < share) for _ in range(number)]
    return [*picked[1:], picked[0] | (values - frozenset().union(*picked))]


def with_each(found: list[frozenset[int]], values: set[int]) -> list[frozenset[int]]:
    return [file | values for file in found]


# values


@pytest.mark.parametrize(("classes", "ignored"), [CAMVID, CITYSCAPES, ADE20K])
def test_right_labels_need_no_explanation(classes: frozenset[int], ignored: frozenset[int]) -> None:
    assert explain_values(files(set(classes | ignored)), classes, ignored, RAW_CITYSCAPES) == ""


def test_labels_that_are_one_too_high() -> None:
    assert explain_values(files(set(range(1, 13))), *CAMVID, {}) == MINUS + REMEDY
    rare_last = [*files(set(range(1, 19)))[:10], frozenset({1, 19})]  # a few pictures, of which one holds class 18
    assert explain_values(rare_last, frozenset(range(19)), frozenset({99}), {}) == MINUS + REMEDY
    rare_flag = [*files(set(range(1, 151))), frozenset({1, 151})]  # ADE20K's last class is in one picture of a hundred
    assert explain_values(rare_flag, *ADE20K, {}) == f"{MINUS}, or {VOID}{REMEDY}"  # if "other" was moved from 0


def test_labels_that_were_reduced_once_too_often() -> None:
    assert explain_values(with_each(files(set(range(150))), {255}), *ADE20K, {}) == PLUS + REMEDY
    assert explain_values(with_each(files(set(range(11))), {255}), *CAMVID, {}) == PLUS + REMEDY  # sky is 255


def test_zero_for_ignored_is_told_by_the_absence_of_255() -> None:
    """1..171 and 0 (COCO-Stuff 10k as mmsegmentation converts it), where 0..170 and 255 are expected (its 164k)."""
    rare_last = [*files(set(range(171)), share=0.1), frozenset({0, 171})]
    clause = explain_values(rare_last, frozenset(range(171)), frozenset({255}), {})
    assert clause == f"{MINUS}, or {VOID}{REMEDY}"  # the values alone fit both


def test_raw_ids_where_train_ids_are_expected() -> None:
    clause = explain_values(files(set(range(34))), *CITYSCAPES, RAW_CITYSCAPES)
    assert clause == "the labels hold ids, not train_ids" + REMEDY


def test_void_as_a_class_of_its_own() -> None:
    found = with_each(files(set(range(19))), {19})
    assert explain_values(found, *CITYSCAPES, RAW_CITYSCAPES) == f"{MINUS}, or {VOID}{REMEDY}"
    assert explain_values(with_each(found, {255}), *CITYSCAPES, RAW_CITYSCAPES) == VOID + REMEDY


@pytest.mark.parametrize(("classes", "ignored"), [CAMVID, CITYSCAPES, ADE20K])
@settings(max_examples=200, deadline=None)
@given(value=st.integers(0, 255), seed=st.integers(0, 99))
def test_one_damaged_file_among_right_ones_is_not_explained(
    classes: frozenset[int], ignored: frozenset[int], value: int, seed: int
) -> None:
    found = files(set(classes | ignored), seed=seed)
    found[seed % len(found)] |= {value}
    assert explain_values(found, classes, ignored, RAW_CITYSCAPES) == ""


def test_values_that_fit_nothing_are_not_explained() -> None:
    for values in ({0, 77}, {3, 40, 200}, set(range(256))):
        assert explain_values([frozenset(values)] * 5, *CAMVID, RAW_CITYSCAPES) == ""


# pixels


def camvid_pixels(split: str = "train") -> tuple[list[int], tuple[str, ...]]:
    camvid = load("camvid")
    return list(camvid.class_pixels[split]), camvid.classes


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_the_known_pixels_and_small_differences_are_in_order(split: str) -> None:
    known, classes = camvid_pixels(split)
    rng = random.Random(0)
    for spread in (0.0, 0.2, 0.5):
        found = [round(number * rng.uniform(1 - spread, 1 + spread)) for number in known]
        assert explain_pixels(found, known, classes) == ""


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_pixels_that_are_those_of_the_neighbouring_class(split: str) -> None:
    known, classes = camvid_pixels(split)
    *pixels, ignored = known
    lost_last = [0, *pixels[:-1], ignored + pixels[-1]]
    assert explain_pixels(lost_last, known, classes).startswith(
        "each class has the pixels that are known of the class before"
    )
    lost_first = [*pixels[1:], 0, ignored + pixels[0]]
    assert explain_pixels(lost_first, known, classes).startswith(
        "each class has the pixels that are known of the class after"
    )


def test_the_distance_of_shares_is_the_part_that_lies_elsewhere() -> None:
    assert share_distance([3, 1, 0], [30, 10, 0]) == 0
    assert share_distance([3, 1, 0], [2, 1, 1]) == pytest.approx(0.25)
    assert share_distance([1, 0], [0, 5]) == 1
    assert share_distance([0, 0], [1, 1]) == 1


@pytest.mark.parametrize("index", [0, 6, 10])
def test_void_that_was_drawn_as_a_class_is_told_by_what_the_class_gained(index: int) -> None:
    known, classes = camvid_pixels()
    found = known.copy()
    found[index] += found[11]
    found[11] = 0
    assert explain_pixels(found, known, classes) == (
        f"no pixel is ignored, but 3.9 % of the known ones are void, and {classes[index]} has gained most, so void is "
        "trained as a class: use the labels as the data set distributes them"
    )


def test_a_split_without_any_known_class_is_not_explained() -> None:
    known, classes = camvid_pixels()
    assert explain_pixels([0] * 11 + [100], known, classes) == ""


def test_a_class_called_void_is_noticed() -> None:
    assert void_classes(["Sky", "Void", "road", "unlabeled"]) == ["Void", "unlabeled"]
    for name in ("camvid", "cityscapes", "coco_stuff10k", "ade20k", "pascal_context60"):
        assert void_classes(load(name).classes) == []


# the two orders of PASCAL-Context

ORDERS = {
    name: {value: entry.name for entry in load(name).spec.classes for value in entry.labels}
    for name in ("pascal_context", "pascal_context_voc_order")
}
# Rough shares of pixels in percent; what is not named has 0.3.
OUTDOORS = {"sky": 15, "tree": 12, "building": 12, "grass": 9, "ground": 7, "person": 9, "road": 5, "water": 6}
MIXED = OUTDOORS | {"wall": 11, "floor": 4, "table": 2.5, "sofa": 1.5, "cat": 3, "truck": 0.4, "rock": 1.5, "track": 1}
LIVING_ROOMS = {
    "wall": 35,
    "floor": 20,
    "table": 15,
    "ceiling": 6,
    "sofa": 8,
    "cloth": 3,
    "person": 5,
    "sky": 0,
    "tree": 0,
}
DINNERS = {"table": 50, "food": 20, "person": 15, "plate": 5, "floor": 5, "truck": 0, "sky": 0, "tree": 0}


def stored(shares: Mapping[str, float], order: str) -> dict[int, int]:
    return {value: round(1000 * shares.get(name, 0.3)) for value, name in ORDERS[order].items()}


@pytest.mark.parametrize("order", list(ORDERS))
@pytest.mark.parametrize("shares", [OUTDOORS, MIXED], ids=["outdoors", "mixed"])
def test_the_order_of_ids_is_told_by_sky_trees_and_buildings(order: str, shares: Mapping[str, float]) -> None:
    assert id_order(stored(shares, order), ORDERS) == order


@pytest.mark.parametrize("order", list(ORDERS))
@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_the_order_is_told_though_shares_are_other_than_thought(order: str, seed: int) -> None:
    rng = random.Random(seed)
    shares = {name: MIXED.get(name, 0.3) * 2 ** rng.uniform(-1, 1) for name in ORDERS[order].values()}
    assert id_order(stored(shares, order), ORDERS) in (order, None)
    assert id_order(stored(MIXED | {"truck": 0.4, "floor": shares["floor"]}, order), ORDERS) == order


@pytest.mark.parametrize("order", list(ORDERS))
@pytest.mark.parametrize("shares", [LIVING_ROOMS, DINNERS, {"sky": 100}, {"truck": 60, "table": 0}])
def test_pictures_that_could_be_in_either_order_give_no_verdict(order: str, shares: Mapping[str, float]) -> None:
    assert id_order(stored(shares, order), ORDERS) is None


def test_evidence_for_both_orders_gives_no_verdict() -> None:
    """Every class as common as the others, or each order's sky, tree and building with a tenth of the pixels."""
    even = dict.fromkeys(range(1, 60), 100)
    assert id_order(even, ORDERS) is None
    telling = dict.fromkeys(range(1, 60), 0)
    for names in ORDERS.values():
        telling |= {value: 100 for value, name in names.items() if name in ("sky", "tree", "building")}
    assert id_order(telling, ORDERS) is None


def test_no_pixels_give_no_verdict() -> None:
    assert id_order({}, ORDERS) is None


def test_the_orders_are_those_that_are_in_use() -> None:
    """Ids of some classes in mmsegmentation's alphabetical list and in detail-api's VOC-first one."""
    known = {"aeroplane": (1, 1), "bicycle": (6, 2), "person": (37, 15), "sky": (47, 50), "grass": (29, 36)}
    known |= {"tree": (53, 54), "building": (11, 25), "wall": (56, 56), "water": (57, 57), "wood": (59, 59)}
    for name, (alphabetical, voc_first) in known.items():
        assert ORDERS["pascal_context"][alphabetical] == name
        assert ORDERS["pascal_context_voc_order"][voc_first] == name


# COCO-Stuff


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["COCO_train2014_000000000077", "COCO_train2014_000000581857"], "10k"),
        (["000000000139", "000000581929"], "164k"),
        (["000000000139", "COCO_train2014_000000000077"], None),
        (["2008_000002"], None),
        (["COCO_val2014_000000000042"], None),
        ([], None),
    ],
)
def test_the_kind_of_coco_stuff_is_in_the_names_of_images(names: list[str], kind: str | None) -> None:
    assert coco_stuff_kind(names) == kind
