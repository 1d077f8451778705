"""Every layout of every data set, written by layout_writer and read by the ordinary readers.

A layout's spoilt files are test_verify's and test_images'.
"""

import csv
import os
from pathlib import Path

import cv2
import layout_writer
import numpy as np
import pytest
from PIL import Image

from harness import datasets
from harness.datasets.as_is import AS_IS
from harness.datasets.verify import verify
from harness.errors import UserError
from harness.experiment.schema import Experiment

TABLES = Path(__file__).parent / "class_tables"
VOID = 255


def key_of(name, spec):
    return f"{name}/{spec.layout.name}".rstrip("/")


SETS = (
    "ade20k",
    "camvid",
    "camvid_full",
    "cityscapes",
    "coco_stuff10k",
    "coco_stuff164k",
    "pascal_context",
    "pascal_context60",
    "pascal_context60_voc_order",
    "pascal_context_voc_order",
)
LAYOUTS = [pytest.param(name, spec, id=key_of(name, spec)) for name in SETS for spec in datasets.load(name).specs]
# With those of whoever adds a data set, for what needs no class table.
ALL_LAYOUTS = LAYOUTS + [
    pytest.param(name, spec, id=key_of(name, spec))
    for name in datasets.names()
    for spec in datasets.load(name).specs
    if name not in SETS and spec.generator is None
]


def rows(table):
    with (TABLES / f"{table}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def column(table, key, value):
    return {int(row[key]): int(row[value]) for row in rows(table)}


def rgb(row):
    return int(row["r"]) * 65536 + int(row["g"]) * 256 + int(row["b"])


def expected_train_ids(name, layout):
    """The train id of every value that a label may hold, from the class tables alone."""
    if name == "cityscapes":
        if layout.endswith("train_ids"):
            return {value: value for value in range(19)} | {255: VOID}
        return {value: train_id for value, train_id in column("cityscapes", "id", "train_id").items() if value >= 0}
    if name == "camvid":
        return {value: value for value in range(11)} | {11: VOID}
    if name == "camvid_full":
        return {rgb(row): VOID if row["name11"] == "Void" else int(row["id11"]) for row in rows("camvid32")}
    if name == "ade20k":
        return column("ade20k150", "id", "train_id") | {0: VOID}
    if name == "coco_stuff10k" and layout == "mmsegmentation":
        return {value: value - 1 for value in range(1, 172)} | {0: VOID}
    if name == "coco_stuff10k":
        return column("cocostuff", "id", "train_id")
    if name == "coco_stuff164k" and layout == "mmsegmentation":
        return {value: value for value in range(171)} | {255: VOID}
    if name == "coco_stuff164k":
        return column("cocostuff", "stuffthingmap_value", "train_id")
    assert name.startswith("pascal_context")
    stored = "fcn_order_id" if name.endswith("voc_order") else "id60"
    if layout.startswith("original"):
        stored = "detail_459_id"
    with_background = "pascal_context60" in name
    expected = column("pascal_context", stored, "id60" if with_background else "train_id_59")
    if stored == "detail_459_id":
        expected = dict.fromkeys(range(460), 0 if with_background else VOID) | expected
    return expected


def expected_classes(name):
    """Names and colours in order of train id, from the class tables alone."""
    table = next(
        table
        for prefix, table in (
            ("cityscapes", "cityscapes"),
            ("camvid", "camvid11"),
            ("ade20k", "ade20k150"),
            ("coco", "cocostuff"),
            ("pascal", "pascal_context"),
        )
        if name.startswith(prefix)
    )
    train_id = {"camvid11": "id", "pascal_context": "train_id_59"}.get(table, "train_id")
    if "pascal_context60" in name:
        train_id = "id60"
    counted = {
        int(row[train_id]): (row["name"], tuple(int(row[channel]) for channel in "rgb"))
        for row in rows(table)
        if row["name"] not in ("Void",) and 0 <= int(row[train_id]) < 255
    }
    return [counted[k] for k in sorted(counted)]


def write_values(root, spec, values):
    """One image a split whose label holds the given values, a column each."""
    label = np.tile(np.array(values), (3, 1))
    image = np.zeros((*label.shape, 3), np.uint8)
    pictures = {split: [(layout_writer.sample_id(spec, split, 0), image, label)] for split in spec.splits}
    layout_writer.write(root, spec, pictures)
    return datasets.load(spec.name, root)


# label values and classes


@pytest.mark.parametrize(("name", "spec"), LAYOUTS)
def test_every_label_value_is_read_as_the_class_table_says(name, spec, tmp_path):
    expected = expected_train_ids(name, spec.layout.name)
    dataset = write_values(tmp_path / "root", spec, list(expected))
    assert dataset.spec.layout == spec.layout
    for split in spec.splits:
        image, label = dataset.read(dataset.samples(split)[0])
        assert (image.shape, image.dtype, label.dtype) == ((3, len(expected), 3), np.uint8, np.uint8)
        assert label.tolist() == [list(expected.values())] * 3
    # Every class is reached, and nothing else.
    assert set(expected.values()) - {VOID} == set(range(dataset.num_classes))


@pytest.mark.parametrize(("name", "spec"), LAYOUTS)
def test_every_other_value_is_refused(name, spec, tmp_path):
    expected = expected_train_ids(name, spec.layout.name)
    largest = {"ids": 255, "mat": 65535, "colors": 0xFFFFFF}[spec.layout.encoding]
    candidates = [*range(256), 460, 65535, 0x404041, 0xFFFFFF]
    others = [value for value in candidates if value <= largest and value not in expected]
    assert others
    for number, value in enumerate([others[0], others[-1]]):
        dataset = write_values(tmp_path / f"root{number}", spec, [next(iter(expected)), value])
        sample = dataset.samples(spec.train_split)[0]
        what = f"the value {value}, but labels may hold "
        if spec.layout.encoding == "colors":
            what = rf"the colour \({value >> 16}, {value >> 8 & 255}, {value & 255}\), which is none of the 32 colours"
        with pytest.raises(UserError, match=f"^{sample.label_path} has {what}"):
            dataset.read(sample)


@pytest.mark.parametrize("name", SETS)
def test_names_and_colours_are_those_of_the_class_table(name):
    dataset = datasets.load(name)
    assert list(zip(dataset.classes, dataset.colors, strict=True)) == expected_classes(name)


# the trees


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    return layout_writer.write_all(tmp_path_factory.mktemp("trees"), {"train": 2, "val": 1, "test": 1}, (24, 32))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "spec"), ALL_LAYOUTS)
def test_rendered_scenes_are_verified_in_every_layout(name, spec, trees, tmp_path):
    dataset = datasets.load(name, trees[key_of(name, spec)])
    assert dataset.spec == spec
    report = verify(dataset, tmp_path / "verify.json")
    assert report["status"] == "ok"
    assert {split: found["images"] for split, found in report["splits"].items()} == {
        split: {"val": 1, "test": 1}.get(split, 2) for split in spec.splits
    }


def test_the_archives_folder_is_a_root_too(trees):
    outer = trees["pascal_context/original"]
    inner = outer / "VOCdevkit" / "VOC2010"
    (inner / AS_IS).write_text((outer / AS_IS).read_text())
    from_outer, from_inner = datasets.load("pascal_context", outer), datasets.load("pascal_context", inner)
    assert from_outer.samples("val") == from_inner.samples("val")
    assert from_outer.fingerprint() == from_inner.fingerprint()


def test_clusters_are_cities_and_videos(trees):
    def clusters(name, key):
        dataset = datasets.load(name, trees[key])
        return {dataset.cluster(sample.id) for split in dataset.splits for sample in dataset.samples(split)}

    assert clusters("cityscapes", "cityscapes/original") == {"aachen", "bochum"}
    assert clusters("cityscapes", "cityscapes/openseg") == {"aachen", "bochum"}
    assert clusters("camvid_full", "camvid_full/original") == {"0001TP", "0006R0", "0016E5"}


def test_cityscapes_train_ids_come_before_ids(tmp_path):
    train_ids, original, *_ = datasets.load("cityscapes").specs
    root = write_values(tmp_path / "root", original, [7, 8, 0]).folder()
    assert datasets.load("cityscapes", root).spec.layout.name == "original"
    for path in list(root.rglob("*_labelIds.png")):
        label = np.tile(np.array([0, 1, 255], np.uint8), (3, 1))
        cv2.imwrite(str(path).replace("_labelIds", "_labelTrainIds"), label)
        # What else lies beside them.
        cv2.imwrite(str(path).replace("_labelIds", "_instanceIds"), label.astype(np.uint16))
        Path(str(path).replace("_labelIds.png", "_polygons.json")).write_text("{}")
    dataset = datasets.load("cityscapes", root)
    assert dataset.spec == train_ids
    assert dataset.read_label(dataset.samples("val")[0]).tolist() == [[0, 1, 255]] * 3


def test_real_camvids_frames_are_split_as_camvids_full_resolution(camvid_root):
    layout = datasets.load("camvid_full").specs[0].layout
    for split in ("train", "val", "test"):
        for sample in datasets.load("camvid", camvid_root).samples(split):
            belongs = [other for other, runs in layout.ids.items() if any(a <= sample.id <= b for a, b in runs)]
            assert belongs == [split]


# real pictures


@pytest.fixture
def ade20k_samples(repository):
    root = Path(os.environ.get("ADE20K_SAMPLES", repository.parent / "shared" / "data" / "samples" / "ade20k"))
    if not root.is_dir():
        pytest.skip("set ADE20K_SAMPLES to a folder with the three pairs of CSAILVision/sceneparsing's sampleData")
    return root


def test_three_real_ade20k_pairs_are_read(ade20k_samples):
    dataset = datasets.load("ade20k", ade20k_samples)
    samples = dataset.samples("val")
    assert [sample.id for sample in samples] == [f"ADE_val_{number:08}" for number in (1, 2, 3)]
    for sample in samples:
        image, label = dataset.read(sample)
        with Image.open(sample.image_path) as opened:
            assert np.abs(image.astype(int) - np.asarray(opened.convert("RGB"))).max() <= 3  # another JPEG decoder
        with Image.open(sample.label_path) as opened:
            stored = np.asarray(opened)
        assert image.shape == (*stored.shape, 3)
        assert np.array_equal(label, np.where(stored == 0, 255, stored.astype(int) - 1))
        seen = {dataset.classes[k] for k in np.unique(label) if k != 255}
        assert len(seen) >= 5


# training


@pytest.mark.exhaustive
@pytest.mark.parametrize(("name", "spec"), ALL_LAYOUTS)
def test_a_method_trains_on_every_layout(name, spec, experiment_file, tmp_path):
    from harness.compute.machine import Machine
    from harness.training.train import train

    root = layout_writer.write_scenes(tmp_path / "root", spec)
    schedule = {"iterations": 20, "batch": 2, "crop": [32, 32], "learning_rate": 0.01}
    experiment = Experiment.load(
        experiment_file(arms={"contextrast": {}}, baseline="contextrast", datasets=[name], schedule=schedule)
    )
    run = experiment.run(name, "hrnet_tiny", "contextrast", 0)
    record = train(experiment, run, tmp_path / "results", Machine("cpu", threads=1), root=root)
    assert (record.status, record.iterations) == ("done", 20)
