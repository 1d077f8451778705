"""Common mistakes, made on rendered scenes in the data sets' layouts, and what verify says about them."""

import random

import cv2
import layout_writer
import numpy as np
import pytest
from PIL import Image

from harness.datasets import load
from harness.datasets.as_is import AS_IS
from harness.datasets.dataset import Dataset
from harness.datasets.mistakes import explain_pixels, explain_values, id_order, share_distance
from harness.datasets.verify import verify
from harness.errors import UserError

SCENE_CLASSES = ("sky", "building", "pole", "road", "sidewalk", "tree", "sign", "fence", "car", "person", "bicycle")


def open_as(name, root, counts):
    """The data set `name` under a root that claims to be the real thing, with few images."""
    (root / AS_IS).unlink(missing_ok=True)
    specs = [spec.model_copy(update={"splits": counts, "other_counts": {}, "size": None}) for spec in load(name).specs]
    return Dataset(specs, root)


def street(name, layout, root, number=3):
    """Street scenes in a layout of data set `name`: scene classes that the data set lacks are ignored."""
    spec = next(spec for spec in load(name).specs if spec.layout.name == layout)
    value_of = {entry.name.lower(): entry.labels[0] for entry in spec.classes}
    void = spec.ignored_labels[0] if spec.ignored_labels else value_of["background"]
    table = np.array([value_of.get(name, void) for name in SCENE_CLASSES] + [void])
    pictures = {}
    for split in spec.splits:
        rendered = [layout_writer.scene(0, split, index, 72, 96) for index in range(number)]
        keys = [layout_writer.sample_id(spec, split, index) for index in range(number)]
        pictures[split] = [(key, image, table[label]) for key, (image, label) in zip(keys, rendered, strict=True)]
    layout_writer.write(root, spec, pictures)
    return open_as(name, root, dict.fromkeys(spec.splits, number))


@pytest.fixture
def scenes(tmp_path):
    """Three street scenes a split with CamVid's classes, 96x72."""
    return street("camvid", "", tmp_path / "root")


def relabel(dataset, change, splits=("train", "val", "test")):
    for split in splits:
        for sample in dataset.samples(split):
            label = cv2.imread(str(sample.label_path), cv2.IMREAD_UNCHANGED)
            cv2.imwrite(str(sample.label_path), change(label))


def failure(dataset):
    with pytest.raises(UserError) as caught:
        verify(dataset, dataset.root.parent / "results" / "verify.json")
    return str(caught.value)


def report(dataset):
    return verify(dataset, dataset.root.parent / "results" / "verify.json")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda label: label + 1, "1 is subtracted: they are shifted by one"),
        (lambda label: label - 1, "1 is added: they are shifted by one"),  # uint8: 0 becomes 255
        (lambda label: np.stack([label] * 3, axis=-1), "channels are equal"),
        (lambda label: np.stack([label, label * 20, label], axis=-1), "holds colours"),
        (lambda label: label.astype(np.uint16) * 1000 + 7, "are too many for classes"),
        (lambda label: label.astype(np.uint16), "save the same values as 8-bit greyscale"),
        (lambda label: label[::2, ::2], "one of the two was resized"),
    ],
)
def test_labels_of_another_kind_are_explained(scenes, change, words):
    relabel(scenes, change)
    assert words in failure(scenes)


def test_one_wrong_value_in_one_file_is_no_shift(scenes):
    sample = scenes.samples("test")[1]
    label = cv2.imread(str(sample.label_path), cv2.IMREAD_UNCHANGED)
    label[5, 5] = 12
    cv2.imwrite(str(sample.label_path), label)
    assert failure(scenes).endswith("has the value 12, but labels may hold 0..11")


def test_a_photograph_in_the_folder_of_labels_is_named(scenes):
    for sample in scenes.samples("train"):
        Image.open(sample.image_path).save(sample.label_path)
    assert "swap the folders" in failure(scenes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layout", "rename", "words"),
    [
        ("cityscapes", "original", ("labelIds", "labelTrainIds"), "hold ids, but train_ids are expected"),
        ("coco_stuff164k", "original", (".png", "_labelTrainIds.png"), "hold maps, but train_ids are expected"),
    ],
)
def test_raw_ids_under_the_names_of_train_ids_are_named(tmp_path, name, layout, rename, words):
    dataset = street(name, layout, tmp_path / "root")
    for number, sample in enumerate(sample for split in dataset.splits for sample in dataset.samples(split)):
        if name.startswith("coco") and number == 0:  # one label with values above 170
            label = cv2.imread(str(sample.label_path), cv2.IMREAD_UNCHANGED)
            label[:4, :4] = [[180, 181, 180, 181]]
            cv2.imwrite(str(sample.label_path), label)
        sample.label_path.rename(sample.label_path.with_name(sample.label_path.name.replace(*rename)))
    assert words in failure(open_as(name, tmp_path / "root", dataset.splits))


def test_a_root_of_another_data_set_names_it(tmp_path):
    small = street("coco_stuff10k", "original", tmp_path / "small")
    street("coco_stuff164k", "original", tmp_path / "large")
    assert "use --dataset coco_stuff164k" in failure(open_as("coco_stuff10k", tmp_path / "large", small.splits))


# values alone


def spec_of(name):
    return load(name).specs[0]


@pytest.mark.parametrize(
    ("name", "found", "words"),
    [
        ("camvid", set(range(12)), []),
        ("ade20k", {*range(150), 255}, ["added"]),  # reduced once too often
        ("ade20k", set(range(2, 152)), ["subtracted"]),
        ("cityscapes", set(range(34)), ["hold ids"]),
        ("cityscapes", set(range(20)), ["void was stored as a class"]),
        ("coco_stuff164k", set(range(1, 172)), ["subtracted", "void"]),  # the values alone fit both
        ("camvid", {0, 77}, []),
        ("camvid", set(range(256)), []),
    ],
)
def test_values_are_explained_or_not(name, found, words):
    why = explain_values(found, spec_of(name), {"ids": frozenset(range(34))})
    assert all(word in why for word in words)
    assert bool(why) == bool(words)


@pytest.mark.parametrize("name", ["camvid", "cityscapes", "ade20k"])
def test_one_damaged_value_among_right_ones_is_no_shift(name):
    spec = spec_of(name)
    allowed = {value for entry in spec.classes for value in entry.labels} | set(spec.ignored_labels)
    for value in range(256):
        assert "shifted" not in explain_values(allowed | {value}, spec, {})


# mistakes that labels with allowed values hide: the pixels of the classes show them


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_class_pixels_show_a_shift_and_void_as_a_class(split):
    camvid = load("camvid")
    known = list(camvid.class_pixels[split])
    rng = random.Random(0)
    for spread in (0.0, 0.2, 0.5):
        found = [round(number * rng.uniform(1 - spread, 1 + spread)) for number in known]
        assert explain_pixels(found, known, camvid.classes) == ""
    *pixels, ignored = known
    for shifted in ([0, *pixels[:-1], ignored + pixels[-1]], [*pixels[1:], 0, ignored + pixels[0]]):
        assert "shifted by one" in explain_pixels(shifted, known, camvid.classes)
    for index in (0, 6, 10):
        merged = [number + ignored * (place == index) for place, number in enumerate(pixels)] + [0]
        assert f"{camvid.classes[index]} has gained most" in explain_pixels(merged, known, camvid.classes)
    assert explain_pixels([0] * 11 + [100], known, camvid.classes) == ""


def test_verify_compares_the_known_class_pixels(scenes):
    counts = {split: tuple(found["class_pixels"].values()) for split, found in report(scenes)["splits"].items()}
    known = Dataset(scenes.spec.model_copy(update={"class_pixels": counts}), scenes.root)
    assert report(known)["splits"]["train"]["labels"] == "identical to the published labels"
    relabel(known, lambda label: np.where(label == 2, 11, label).astype(np.uint8), ["test"])
    assert any("differ from those of the published labels" in text for text in report(known)["warnings"])
    relabel(known, lambda label: np.where(label == 11, 3, label).astype(np.uint8))
    assert "void is trained as a class" in failure(known)


def test_shares_far_from_the_published_ones_are_a_warning(tmp_path):
    dataset = street("ade20k", "", tmp_path / "root")
    found = report(dataset)
    (warning,) = [text for text in found["warnings"] if text.startswith("val: the class shares")]
    shares = np.array([entry.pixel_share for entry in dataset.spec.classes])
    pixels = np.array(list(found["splits"]["val"]["class_pixels"].values())[:-1])
    elsewhere = 100 * (1 - np.minimum(shares / shares.sum(), pixels / pixels.sum()).sum())
    assert f"({elsewhere:.0f} % total variation)" in warning


def test_the_distance_of_shares_is_the_total_variation():
    assert share_distance([3, 1, 0], [30, 10, 0]) == 0
    assert share_distance([3, 1, 0], [2, 1, 1]) == pytest.approx(0.25)
    assert share_distance([1, 0], [0, 5]) == share_distance([0, 0], [1, 1]) == 1


# the two id orders of PASCAL-Context, which no value shows

ORDERS = {
    name: {value: entry.name for entry in load(name).spec.classes for value in entry.labels}
    for name in ("pascal_context", "pascal_context_voc_order")
}
# Rough shares of pixels in percent; what is not named has 0.3.
OUTDOORS = {"sky": 15, "tree": 12, "building": 12, "grass": 9, "ground": 7, "person": 9, "road": 5, "water": 6}
MIXED = OUTDOORS | {"wall": 11, "floor": 4, "table": 2.5, "sofa": 1.5, "cat": 3, "truck": 0.4, "rock": 1.5, "track": 1}
INDOORS = {"wall": 35, "floor": 20, "table": 15, "ceiling": 6, "sofa": 8, "cloth": 3, "person": 5, "sky": 0, "tree": 0}
DINNERS = {"table": 50, "food": 20, "person": 15, "plate": 5, "floor": 5, "truck": 0, "sky": 0, "tree": 0}


def stored(shares, order):
    return {value: round(1000 * shares.get(name, 0.3)) for value, name in ORDERS[order].items()}


@pytest.mark.parametrize("order", list(ORDERS))
def test_the_id_order_is_told_by_sky_trees_and_buildings_or_not_at_all(order):
    for shares in (OUTDOORS, MIXED):
        assert id_order(stored(shares, order), ORDERS) == order
    for seed in range(100):  # shares other than thought
        rng = random.Random(seed)
        shares = {name: MIXED.get(name, 0.3) * 2 ** rng.uniform(-1, 1) for name in ORDERS[order].values()}
        assert id_order(stored(shares, order), ORDERS) in (order, None)
    for unclear in (INDOORS, DINNERS, {"sky": 100}, {"truck": 60, "table": 0}):
        assert id_order(stored(unclear, order), ORDERS) is None
    assert id_order(dict.fromkeys(range(1, 60), 100), ORDERS) is None
    assert id_order({}, ORDERS) is None


def test_the_orders_are_those_in_use():
    """Ids of some classes in mmsegmentation's alphabetical list and in detail-api's VOC-first one."""
    known = {"aeroplane": (1, 1), "bicycle": (6, 2), "person": (37, 15), "sky": (47, 50), "grass": (29, 36)}
    known |= {"tree": (53, 54), "building": (11, 25), "wall": (56, 56), "water": (57, 57), "wood": (59, 59)}
    for name, (alphabetical, voc_first) in known.items():
        assert ORDERS["pascal_context"][alphabetical] == name
        assert ORDERS["pascal_context_voc_order"][voc_first] == name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stored_as", "read_as", "layout"),
    [
        ("pascal_context", "pascal_context_voc_order", "openseg"),
        ("pascal_context60_voc_order", "pascal_context60", "mmsegmentation"),
    ],
)
def test_labels_in_the_other_id_order_are_refused(tmp_path, stored_as, read_as, layout):
    dataset = street(stored_as, layout, tmp_path / "root")
    assert report(dataset)["status"] == "ok"
    assert f"use --dataset {stored_as}" in failure(open_as(read_as, tmp_path / "root", dataset.splits))


# CamVid itself


@pytest.mark.slow
def test_a_shift_of_real_camvid_labels_is_named(camvid_root, tmp_path):
    camvid = load("camvid", camvid_root)
    for shift in (1, -1):
        root = tmp_path / f"root{shift}"
        pictures = {}
        for split in camvid.splits:
            picked = camvid.samples(split)[:5]
            labels = [
                cv2.imread(str(sample.label_path), cv2.IMREAD_UNCHANGED) + np.uint8(shift % 256) for sample in picked
            ]
            image = np.zeros((360, 480, 3), np.uint8)
            pictures[split] = [(sample.id, image, label) for sample, label in zip(picked, labels, strict=True)]
        layout_writer.write(root, camvid.spec, pictures)
        assert "they are shifted by one" in failure(open_as("camvid", root, dict.fromkeys(camvid.splits, 5)))
