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
from harness.datasets.dataset import Dataset
from harness.datasets.scenes import render
from harness.datasets.spec import Spec
from harness.datasets.verify import verify
from harness.errors import UserError
from harness.experiment.schema import Experiment

TABLES = Path(__file__).parent / "class_tables"
VOID = 255


def key_of(name: str, spec: Spec) -> str:
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


def rows(table: str) -> list[dict[str, str]]:
    with (TABLES / f"{table}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def column(table: str, key: str, value: str) -> dict[int, int]:
    return {int(row[key]): int(row[value]) for row in rows(table)}


def rgb(row: dict[str, str]) -> int:
    return int(row["r"]) * 65536 + int(row["g"]) * 256 + int(row["b"])


def expected_train_ids(name: str, layout: str) -> dict[int, int]:
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


def expected_classes(name: str) -> list[tuple[str, tuple[int, ...]]]:
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


def write_values(root: Path, spec: Spec, values: list[int]) -> Dataset:
    """One image a split whose label holds the given values, a column each."""
    label = np.tile(np.array(values), (3, 1))
    image = np.zeros((*label.shape, 3), np.uint8)
    pictures = {split: [(layout_writer.sample_id(spec, split, 0), image, label)] for split in spec.splits}
    layout_writer.write(root, spec, pictures)
    return datasets.load(spec.name, root)


# label values and classes


@pytest.mark.parametrize(("name", "spec"), LAYOUTS)
def test_every_label_value_is_read_as_the_class_table_says(name: str, spec: Spec, tmp_path: Path):
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
def test_every_other_value_is_refused(name: str, spec: Spec, tmp_path: Path):
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
def test_names_and_colours_are_those_of_the_class_table(name: str):
    dataset = datasets.load(name)
    assert list(zip(dataset.classes, dataset.colors, strict=True)) == expected_classes(name)


def test_ade20ks_pixel_shares_are_those_of_the_class_table():
    shares = [entry.pixel_share for entry in datasets.load("ade20k").specs[0].classes]
    assert shares == [float(row["pixel_ratio"]) for row in rows("ade20k150")]


def test_the_two_orders_of_pascal_context_differ_and_have_the_same_classes():
    alphabetical, voc = datasets.load("pascal_context"), datasets.load("pascal_context_voc_order")
    assert alphabetical.classes == voc.classes
    order = [entry.name for entry in sorted(voc.specs[0].classes, key=lambda entry: entry.labels)]
    assert order[:3] == ["aeroplane", "bicycle", "bird"]
    order = [entry.name for entry in sorted(alphabetical.specs[0].classes, key=lambda entry: entry.labels)]
    assert order == sorted(order)


# the trees


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return layout_writer.write_all(tmp_path_factory.mktemp("trees"), {"train": 2, "val": 1, "test": 1}, (24, 32))


@pytest.mark.parametrize(("name", "spec"), ALL_LAYOUTS)
def test_rendered_scenes_are_verified_in_every_layout(name: str, spec: Spec, trees: dict[str, Path], tmp_path: Path):
    dataset = datasets.load(name, trees[key_of(name, spec)])
    assert dataset.spec == spec
    report = verify(dataset, tmp_path / "verify.json")
    assert report["status"] == "ok"
    assert {split: found["images"] for split, found in report["splits"].items()} == {
        split: {"val": 1, "test": 1}.get(split, 2) for split in spec.splits
    }


def test_a_few_images_hold_many_classes(trees: dict[str, Path]):
    dataset = datasets.load("ade20k", trees["ade20k"])
    for index, sample in enumerate(dataset.samples("train")):
        _, scene = render(0, "train", index, 24, 32)
        expected = {int(value) + 11 * index if value < 11 else VOID for value in np.unique(scene)}
        assert set(np.unique(dataset.read_label(sample)).tolist()) == expected


def test_a_tree_has_the_true_names(trees: dict[str, Path]):
    some = {
        "cityscapes/original": "leftImg8bit/train/aachen/aachen_000001_000019_leftImg8bit.png",
        "cityscapes/train_ids": "gtFine/val/aachen/aachen_001001_000019_gtFine_labelTrainIds.png",
        "camvid": "valannot/0006R0_f01001.png",
        "camvid_full/original": "LabeledApproved_full/0016E5_07959_L.png",
        "ade20k": "ADEChallengeData2016/annotations/validation/ADE_val_00001001.png",
        "coco_stuff10k/original": "cocostuff-10k-v1.1/annotations/COCO_train2014_000000000001.mat",
        "coco_stuff10k/openseg": "val/label/COCO_train2014_000000001001.png",
        "coco_stuff10k/mmsegmentation": "annotations/test2014/COCO_train2014_000000001001_labelTrainIds.png",
        "coco_stuff164k/original": "annotations/train2017/000000000001.png",
        "pascal_context/mmsegmentation": "VOCdevkit/VOC2010/ImageSets/SegmentationContext/val.txt",
        "pascal_context60/original": "VOCdevkit/VOC2010/trainval/2008_000001.mat",
    }
    for key, name in some.items():
        assert (trees[key] / name).is_file(), name
    assert (trees["camvid"] / "val.txt").read_text().startswith("/SegNet/CamVid/val/0006R0_f01001.png /SegNet")


def test_the_archives_folder_is_a_root_too(trees: dict[str, Path]):
    outer = trees["pascal_context/original"]
    inner = outer / "VOCdevkit" / "VOC2010"
    (inner / AS_IS).write_text((outer / AS_IS).read_text())
    from_outer, from_inner = datasets.load("pascal_context", outer), datasets.load("pascal_context", inner)
    assert from_outer.samples("val") == from_inner.samples("val")
    assert from_outer.fingerprint() == from_inner.fingerprint()


def test_clusters_are_cities_and_videos(trees: dict[str, Path]):
    def clusters(name: str, key: str) -> set[str]:
        dataset = datasets.load(name, trees[key])
        return {dataset.cluster(sample.id) for split in dataset.splits for sample in dataset.samples(split)}

    assert clusters("cityscapes", "cityscapes/original") == {"aachen", "bochum"}
    assert clusters("cityscapes", "cityscapes/openseg") == {"aachen", "bochum"}
    assert clusters("camvid_full", "camvid_full/original") == {"0001TP", "0006R0", "0016E5"}


def test_cityscapes_train_ids_come_before_ids(tmp_path: Path):
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


def test_real_camvids_frames_are_split_as_camvids_full_resolution(camvid_root: Path):
    layout = datasets.load("camvid_full").specs[0].layout
    for split in ("train", "val", "test"):
        for sample in datasets.load("camvid", camvid_root).samples(split):
            belongs = [other for other, runs in layout.ids.items() if any(a <= sample.id <= b for a, b in runs)]
            assert belongs == [split]


# real pictures


@pytest.fixture
def ade20k_samples(repository: Path) -> Path:
    root = Path(os.environ.get("ADE20K_SAMPLES", repository.parent / "shared" / "data" / "samples" / "ade20k"))
    if not root.is_dir():
        pytest.skip("set ADE20K_SAMPLES to a folder with the three pairs of CSAILVision/sceneparsing's sampleData")
    return root


def test_three_real_ade20k_pairs_are_read(ade20k_samples: Path):
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
    assert (record["status"], record["iterations"]) == ("done", 20)
