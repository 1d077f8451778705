"""The usual mistakes, made on trees of rendered scenes in the data sets' true layouts, and what verify says of them."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from harness.datasets import layout_writer, load
from harness.datasets.dataset import Dataset
from harness.datasets.declared import RENDERED
from harness.datasets.readers import Sample
from harness.datasets.scenes import render
from harness.datasets.scenes import write as write_scenes
from harness.datasets.verify import verify
from harness.errors import UserError

COUNTS = {"train": 4, "val": 2, "test": 3}
SCENE_CLASSES = (*("sky", "building", "pole", "road", "sidewalk", "tree", "sign", "fence", "car", "person", "bicycle"),)

Label = NDArray[np.integer]


@pytest.fixture
def scenes(tmp_path: Path) -> Dataset:
    """Rendered street scenes in CamVid's layout and classes, 96x72."""
    write_scenes(tmp_path / "scenes", 0, COUNTS, 72, 96)
    spec = load("scenes").spec.model_copy(update={"splits": COUNTS})
    return Dataset(spec, tmp_path / "scenes")


def open_as(name: str, root: Path, counts: dict[str, int]) -> Dataset:
    """The data set `name` under a root that claims to be the real thing, with few images."""
    (root / RENDERED).unlink(missing_ok=True)
    specs = [spec.model_copy(update={"splits": counts, "other_counts": {}, "size": None}) for spec in load(name).specs]
    return Dataset(specs, root)


@cache
def scene(split: str, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return render(0, split, index, 72, 96)


def street(name: str, layout: str, root: Path, number: int = 3, split: str = "val") -> Dataset:
    """Street scenes in a layout of data set `name`: the classes of the scene that the data set has, others ignored."""
    spec = next(spec for spec in load(name).specs if spec.layout.name == layout)
    value_of = {entry.name: entry.labels[0] for entry in spec.classes}
    void = spec.ignored_labels[0] if spec.ignored_labels else value_of["background"]
    table = np.array([value_of.get(name, void) for name in SCENE_CLASSES] + [void])
    counts = dict.fromkeys(spec.splits, number)
    pictures = {}
    for other in spec.splits:
        rendered = [scene(other, index) for index in range(number)]
        keys = [layout_writer.sample_id(spec, other, index) for index in range(number)]
        pictures[other] = [(key, image, table[label]) for key, (image, label) in zip(keys, rendered, strict=True)]
    layout_writer.write(root, spec, pictures)
    return open_as(name, root, counts)


def relabel(
    dataset: Dataset, change: Callable[[Label], Label], splits: Sequence[str] = ("train", "val", "test")
) -> None:
    for split in splits:
        for sample in dataset.samples(split):
            label = cv2.imread(str(sample.label_path), cv2.IMREAD_UNCHANGED)
            cv2.imwrite(str(sample.label_path), change(np.asarray(label)))


def failure(dataset: Dataset, splits: Sequence[str] | None = None) -> str:
    assert dataset.root is not None
    with pytest.raises(UserError) as caught:
        verify(dataset, dataset.root.parent / "results" / "verify.json", splits)
    return str(caught.value)


def report(dataset: Dataset, splits: Sequence[str] | None = None) -> dict:
    assert dataset.root is not None
    return verify(dataset, dataset.root.parent / "results" / "verify.json", splits)


# right data


def test_rendered_scenes_are_in_order(scenes: Dataset) -> None:
    assert report(scenes)["status"] == "ok"


def test_every_layout_is_in_order(tmp_path: Path) -> None:
    roots = layout_writer.write_all(tmp_path, {"train": 2, "val": 1, "test": 1}, (32, 48))
    for key, root in roots.items():
        dataset = load(key.split("/")[0], root)
        assert verify(dataset, tmp_path / "results" / f"{root.name}.json")["status"] == "ok", key


@pytest.mark.parametrize(
    ("name", "layout"),
    [("cityscapes", "original"), ("pascal_context", "mmsegmentation"), ("ade20k", ""), ("coco_stuff10k", "openseg")],
)
def test_streets_that_claim_to_be_real_are_in_order(tmp_path: Path, name: str, layout: str) -> None:
    assert report(street(name, layout, tmp_path / "root"))["status"] == "ok"


# values


def test_labels_that_are_shifted_up(scenes: Dataset) -> None:
    relabel(scenes, lambda label: label + 1)
    assert re.match(
        r"Scenes train: trainannot/train_0000\d\.png has the value 12, but labels may hold 0\.\.11; "
        r"all labels fit when 1 is subtracted, so they are shifted by one: "
        r"use the labels as the data set distributes them; \d more problems ",
        failure(scenes),
    )


def test_labels_whose_zero_was_reduced(scenes: Dataset) -> None:
    relabel(scenes, lambda label: label - 1)  # uint8: 0 becomes 255
    assert "has the value 255, but labels may hold 0..11; all labels fit when 1 is added" in failure(scenes)


def test_one_wrong_value_in_one_file_is_no_shift(scenes: Dataset) -> None:
    sample = scenes.samples("test")[1]
    label = cv2.imread(str(sample.label_path), cv2.IMREAD_UNCHANGED)
    assert label is not None
    label[5, 5] = 12
    cv2.imwrite(str(sample.label_path), label)
    assert failure(scenes) == f"Scenes test: testannot/{sample.id}.png has the value 12, but labels may hold 0..11"


def test_raw_ids_in_the_files_for_train_ids(tmp_path: Path) -> None:
    dataset = street("cityscapes", "original", tmp_path / "root")
    for path in (tmp_path / "root").rglob("*_labelIds.png"):
        path.rename(path.with_name(path.name.replace("labelIds", "labelTrainIds")))
    message = failure(dataset := open_as("cityscapes", tmp_path / "root", dataset.splits))
    assert "the labels hold ids, where train_ids are expected: use the labels as" in message
    assert "_gtFine_labelTrainIds.png has the value " in message


def test_maps_of_the_164k_set_under_the_names_of_its_converted_labels(tmp_path: Path) -> None:
    dataset = street("coco_stuff164k", "original", tmp_path / "root")
    for path in (tmp_path / "root" / "annotations").rglob("*.png"):
        path.rename(path.with_name(f"{path.stem}_labelTrainIds.png"))
    for path in (tmp_path / "root" / "annotations").rglob("*.png"):
        label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert label is not None
        label[:4, :4] = 181  # wood
        label[4:8, :4] = 180
        cv2.imwrite(str(path), label)
    message = failure(open_as("coco_stuff164k", tmp_path / "root", dataset.splits))
    assert "the labels hold maps, where train_ids are expected" in message


# kinds of files


def paint(label: Label, scenes: Dataset) -> Label:
    """The label in the classes' colours, BGR as OpenCV writes it."""
    palette = np.array([*scenes.colors, (0, 0, 0)], np.uint8)
    return palette[label][..., ::-1]


def test_colours_where_indices_are_expected(scenes: Dataset) -> None:
    relabel(scenes, lambda label: paint(label, scenes), ["val"])
    first = scenes.samples("val")[0]
    assert failure(scenes).startswith(
        f"Scenes val: valannot/{first.id}.png is an 8-bit RGB PNG, but labels must be 8-bit greyscale; it holds "
        "colours where indices of classes are expected: replace each colour by its class's index; 1 more problem is "
        "listed in "
    )


def test_indices_in_three_channels(scenes: Dataset) -> None:
    relabel(scenes, lambda label: np.stack([label] * 3, axis=-1), ["val"])
    assert "its channels are equal: save one of them as 8-bit greyscale" in failure(scenes)


def test_instances_where_classes_are_expected(scenes: Dataset) -> None:
    relabel(scenes, lambda label: label.astype(np.uint16) * 1000 + 7, ["test"])
    assert "is a 16-bit greyscale PNG" in failure(scenes)
    assert "with values up to 11007 it holds no classes (instances, perhaps): take the labels of classes" in failure(
        scenes
    )


def test_labels_of_another_size_and_the_same_shape(scenes: Dataset) -> None:
    relabel(scenes, lambda label: label[::2, ::2], ["val"])
    first = scenes.samples("val")[0]
    assert f"valannot/{first.id}.png is 48x36 (width x height), but its image is 96x72; the shape is the" in failure(
        scenes
    )


def test_a_damaged_file_is_not_taken_for_a_usual_mistake(scenes: Dataset) -> None:
    path = scenes.samples("val")[0].label_path
    path.write_bytes(path.read_bytes()[:200])
    assert failure(scenes).endswith("is cut short (its end marker is missing): copy or download it again")


# folders


def swap(one: Path, two: Path) -> None:
    between = one.with_name("between")
    one.rename(between)
    two.rename(one)
    between.rename(two)


def test_swapped_folders_of_a_list(scenes: Dataset) -> None:
    assert scenes.root is not None
    swap(scenes.root / "train", scenes.root / "trainannot")
    assert failure(scenes).startswith(
        "Scenes train: trainannot holds photographs and train labels: exchange the names of the two folders; "
    )


def test_swapped_folders_with_jpeg_images(scenes: Dataset) -> None:
    assert scenes.root is not None
    for path in (scenes.root / "test").glob("*.png"):
        image = cv2.imread(str(path))
        assert image is not None
        cv2.imwrite(str(path.with_suffix(".jpg")), image)
        path.unlink()
    assert report(scenes)["status"] == "ok"
    swap(scenes.root / "test", scenes.root / "testannot")
    assert failure(scenes, ["test"]).startswith("Scenes test: testannot holds photographs and test labels: exchange")


@pytest.mark.parametrize(
    ("name", "layout", "pictures", "labels"),
    [
        ("ade20k", "", "ADEChallengeData2016/images", "ADEChallengeData2016/annotations"),
        ("cityscapes", "openseg", "val/image", "val/label"),
        (
            *("pascal_context", "mmsegmentation"),
            *("VOCdevkit/VOC2010/JPEGImages", "VOCdevkit/VOC2010/SegmentationClassContext"),
        ),
    ],
)
def test_swapped_folders_of_images_and_labels(
    tmp_path: Path, name: str, layout: str, pictures: str, labels: str
) -> None:
    dataset = street(name, layout, tmp_path / "root")
    swap(tmp_path / "root" / pictures, tmp_path / "root" / labels)
    message = failure(open_as(name, tmp_path / "root", dataset.splits))
    assert f"{labels}" in message
    assert "holds photographs" in message
    assert "labels: exchange the names of the two folders" in message


def test_photographs_in_both_folders_are_no_swap(scenes: Dataset) -> None:
    for sample in scenes.samples("train"):
        shutil.copy(sample.image_path, sample.label_path)
    assert "exchange" not in failure(scenes)


def test_labels_in_both_folders_are_no_swap(scenes: Dataset) -> None:
    for sample in scenes.samples("train"):
        shutil.copy(sample.label_path, sample.image_path)
    sample.label_path.write_bytes(b"")
    assert "exchange" not in failure(scenes)


def test_the_command_ends_with_status_2_and_one_sentence(scenes: Dataset, tmp_path: Path, repository: Path) -> None:
    assert scenes.root is not None
    swap(scenes.root / "train", scenes.root / "trainannot")
    arguments = ["--dataset", "scenes", "--root", str(scenes.root), "--results", str(tmp_path / "results")]
    command = [sys.executable, "-m", "harness", "verify", *arguments]
    finished = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert finished.returncode == 2
    assert finished.stdout == ""
    errors = [line for line in finished.stderr.splitlines() if not re.match("verify scenes .* took", line)]
    assert len(errors) == 1
    assert errors[0].startswith(
        "error: Scenes train: trainannot holds photographs and train labels: exchange the names"
    )


def test_a_lone_photograph_among_the_labels_is_no_swap(scenes: Dataset) -> None:
    sample = scenes.samples("train")[0]
    shutil.copy(sample.image_path, sample.label_path)
    message = failure(scenes)
    assert "exchange" not in message
    assert f"trainannot/{sample.id}.png is an 8-bit RGB PNG" in message


# another data set


def test_a_root_of_the_other_coco_stuff(tmp_path: Path) -> None:
    small = street("coco_stuff10k", "original", tmp_path / "small")
    large = street("coco_stuff164k", "original", tmp_path / "large")
    message = failure(open_as("coco_stuff10k", tmp_path / "large", small.splits))
    assert message.endswith("are of COCO-Stuff 164k, which is another data set: use --dataset coco_stuff164k")
    message = failure(open_as("coco_stuff164k", tmp_path / "small", large.splits))
    assert message.endswith("are of COCO-Stuff 10k, which is another data set: use --dataset coco_stuff10k")


def test_images_of_the_other_coco_stuff_in_the_right_layout(tmp_path: Path) -> None:
    dataset = street("coco_stuff10k", "openseg", tmp_path / "root")
    for path in list((tmp_path / "root").rglob("COCO_train2014_*")):
        path.rename(path.with_name(path.name.removeprefix("COCO_train2014_")))
    message = failure(open_as("coco_stuff10k", tmp_path / "root", dataset.splits))
    assert message.startswith("COCO-Stuff 10k train: images named as 0000")
    assert "are of COCO-Stuff 164k, which is another data set: use --dataset coco_stuff164k" in message


def test_a_root_that_holds_nothing_of_the_kind_is_not_explained(tmp_path: Path, scenes: Dataset) -> None:
    assert scenes.root is not None
    message = failure(open_as("coco_stuff10k", scenes.root, {"train": 4, "test": 3}))
    assert "it holds " in message


PAIRS = [
    ("pascal_context", "pascal_context_voc_order", "mmsegmentation"),
    ("pascal_context_voc_order", "pascal_context", "openseg"),
    ("pascal_context60", "pascal_context60_voc_order", "openseg"),
    ("pascal_context60_voc_order", "pascal_context60", "mmsegmentation"),
]


@pytest.mark.parametrize(("stored", "read", "layout"), PAIRS)
def test_labels_in_the_other_order_of_ids(tmp_path: Path, stored: str, read: str, layout: str) -> None:
    dataset = street(stored, layout, tmp_path / "root")
    assert report(dataset)["status"] == "ok"
    assert (
        f" train: sky, trees and buildings say that the ids are in the order of {stored}: use --dataset {stored}"
    ) in failure(open_as(read, tmp_path / "root", dataset.splits))


def test_pictures_without_trees_give_no_verdict_on_the_order(tmp_path: Path) -> None:
    dataset = street("pascal_context", "openseg", tmp_path / "root")
    tree = next(entry.labels[0] for entry in dataset.spec.classes if entry.name == "tree")
    relabel(dataset, lambda label: np.where(label == tree, 0, label).astype(np.uint8), ["train", "val"])
    for name in ("pascal_context", "pascal_context_voc_order"):
        assert report(open_as(name, tmp_path / "root", dataset.splits))["status"] == "ok"


def test_a_rendered_root_says_in_which_order_it_is(tmp_path: Path) -> None:
    spec = load("pascal_context_voc_order").specs[0]
    layout_writer.write_scenes(tmp_path / "root", spec, {"train": 2, "val": 2}, (48, 64))
    assert report(load("pascal_context_voc_order", tmp_path / "root"))["status"] == "ok"
    assert "the root was rendered as pascal_context_voc_order: use --dataset pascal_context_voc_order" in failure(
        load("pascal_context", tmp_path / "root")
    )


def test_the_shares_of_a_rendered_root_are_compared_with_nothing(tmp_path: Path) -> None:
    layout_writer.write_scenes(tmp_path / "root", load("ade20k").spec, {"train": 2, "val": 2}, (48, 64))
    found = report(load("ade20k", tmp_path / "root"))
    assert not [text for text in found["warnings"] if "far from" in text]


# pixels


def known_pixels(scenes: Dataset) -> Dataset:
    """The same data set, whose table of class pixels is known."""
    counts = {split: tuple(found["class_pixels"].values()) for split, found in report(scenes)["splits"].items()}
    return Dataset(scenes.spec.model_copy(update={"class_pixels": counts}), scenes.root)


def test_void_that_was_drawn_as_a_class(scenes: Dataset) -> None:
    dataset = known_pixels(scenes)
    assert report(dataset)["splits"]["train"]["labels"] == "identical to the published labels"
    relabel(dataset, lambda label: np.where(label == 11, 3, label).astype(np.uint8))
    message = failure(dataset)
    assert message.startswith("Scenes train: no pixel is ignored, but ")
    assert "of the known ones are void, and Road has gained most, so void is trained as a class" in message


def test_a_shift_within_the_allowed_values_is_told_by_the_known_pixels(scenes: Dataset) -> None:
    dataset = known_pixels(scenes)
    relabel(dataset, lambda label: np.minimum(label + 1, 11).astype(np.uint8))
    assert "each class has the pixels that are known of the class before it, so the labels are shifted" in failure(
        dataset
    )


def test_a_few_other_pixels_than_known_are_a_warning(scenes: Dataset) -> None:
    dataset = known_pixels(scenes)
    relabel(dataset, lambda label: np.where(label == 2, 11, label).astype(np.uint8), ["test"])
    found = report(dataset)
    assert "test: the pixels of the classes differ from those of the published labels" in found["warnings"]


def test_shares_far_from_the_known_ones_are_a_warning(tmp_path: Path) -> None:
    dataset = street("ade20k", "", tmp_path / "root")
    found = report(dataset)
    (warning,) = [text for text in found["warnings"] if re.match("val: .* far from the known ones", text)]
    shares = np.array([entry.pixel_share for entry in dataset.spec.classes])
    pixels = np.array(list(found["splits"]["val"]["class_pixels"].values())[:-1])
    elsewhere = 100 * (1 - np.minimum(shares / shares.sum(), pixels / pixels.sum()).sum())
    assert f"({elsewhere:.0f} % lie elsewhere)" in warning


# CamVid itself


@pytest.mark.slow
def test_mistakes_on_real_camvid_are_named_and_its_subsets_are_in_order(camvid_root: Path, tmp_path: Path) -> None:
    camvid = load("camvid", camvid_root)
    chosen = {split: camvid.samples(split) for split in camvid.splits}

    def subset(number: int, start: int, change: Callable[[Label], Label] | None = None) -> Dataset:
        root = tmp_path / f"subset{len(list(tmp_path.iterdir()))}"
        for split, samples in chosen.items():
            picked = samples[start : start + number]
            (root / split).mkdir(parents=True)
            (root / f"{split}annot").mkdir()
            (root / f"{split}.txt").write_text("".join(_line(split, sample) for sample in picked))
            for sample in picked:
                (root / split / sample.image_path.name).symlink_to(sample.image_path)
                label = cv2.imread(str(sample.label_path), cv2.IMREAD_UNCHANGED)
                changed = np.asarray(label) if change is None else change(np.asarray(label))
                cv2.imwrite(str(root / f"{split}annot" / sample.label_path.name), changed)
        counts = dict.fromkeys(chosen, number)
        return Dataset(camvid.spec.model_copy(update={"splits": counts, "class_pixels": {}}), root)

    for start in (0, 30, 60, 90):
        assert report(subset(8, start))["status"] == "ok"
    assert "when 1 is subtracted, so they are shifted by one" in failure(subset(5, 0, lambda label: label + 1))
    assert "when 1 is added, so they are shifted by one" in failure(subset(5, 0, lambda label: label - 1))
    assert "it holds colours" in failure(subset(5, 40, lambda label: paint(label, camvid)))
    shrunk = subset(3, 10, lambda label: label[::2, ::2])
    assert "one of the two was resized" in failure(shrunk)
    stored = json.loads((tmp_path / "results" / "verify.json").read_text())
    assert (stored["problems"], len(stored["examples"])) == (9, 9)


def _line(split: str, sample: Sample) -> str:
    return f"{split}/{sample.image_path.name} {split}annot/{sample.label_path.name}\n"
