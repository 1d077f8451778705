"""Roots as people have them: what archives unpack to, copies that circulate, and folders that may not be read."""

import shutil
from pathlib import Path

import cv2
import layout_writer
import numpy as np
import pytest

from harness import datasets
from harness.datasets.as_is import AS_IS
from harness.datasets.dataset import Dataset
from harness.datasets.overview import overview, whereabouts
from harness.datasets.verify import verify
from harness.errors import UserError

COUNTS = {"train": 2, "val": 1, "test": 1}


@pytest.fixture
def write(tmp_path):
    """Writes rendered scenes in a layout of a data set into a root that claims to be real; returns the root."""

    def written(name, layout, folder="root"):
        spec = next(spec for spec in datasets.load(name).specs if spec.layout.name == layout)
        root = layout_writer.write_scenes(tmp_path / folder, spec, COUNTS, (8, 16))
        (root / AS_IS).unlink()
        return root

    return written


def opened(name, root):
    specs = [
        spec.model_copy(update={"splits": {s: COUNTS[s] for s in spec.splits}, "other_counts": {}, "size": None})
        for spec in datasets.load(name).specs
    ]
    return Dataset(specs, root)


# roots


@pytest.mark.parametrize("layout", ["mmsegmentation", "original", "original_in_devkit", "original_beside"])
@pytest.mark.parametrize("root", [".", "VOCdevkit"])
def test_vocdevkit_and_its_parent_are_roots(write, layout, root):
    dataset = opened("pascal_context", write("pascal_context", layout) / root)
    assert dataset.spec.layout.name == layout
    assert len(dataset.samples("train")) == 2


def test_vocdevkit_is_a_root_from_inside(write, monkeypatch):
    monkeypatch.chdir(write("pascal_context", "original_beside") / "VOCdevkit")
    assert len(opened("pascal_context", Path()).samples("val")) == 1


def test_what_lies_beside_labels_is_no_label(write, tmp_path):
    root = write("coco_stuff164k", "original")
    for path in list((root / "annotations").rglob("*.png")):
        shutil.copy(path, path.with_name(f"{path.stem}_instanceTrainIds.png"))
    assert verify(opened("coco_stuff164k", root), tmp_path / "verify.json")["status"] == "ok"


@pytest.mark.parametrize("layout", ["coco", "coco_images"])
def test_cocos_own_folder_is_a_root(write, layout):
    assert opened("coco_stuff164k", write("coco_stuff164k", layout)).spec.layout.name == layout


@pytest.mark.parametrize("layout", ["two_folders", "two_folders_train_ids"])
def test_two_archives_in_two_folders_are_a_root(write, layout):
    dataset = opened("cityscapes", write("cityscapes", layout))
    assert dataset.spec.layout.name == layout
    assert dataset.cluster(dataset.samples("train")[0].id) == "aachen"


@pytest.mark.parametrize("split", ["train", "val"])
def test_complete_labels_win_over_converted_ones_of_one_split(write, split):
    root = write("cityscapes", "original")
    for path in list((root / "gtFine" / split).rglob("*_labelIds.png")):
        cv2.imwrite(str(path).replace("_labelIds", "_labelTrainIds"), np.zeros((8, 16), np.uint8))
    assert opened("cityscapes", root).spec.layout.name == "original"


def test_camvid_as_it_circulates_is_split_as_segnets(tmp_path):
    first = {"train": "0001TP_006690", "val": "0016E5_07959", "test": "Seq05VD_f00000"}
    folders = {"train": "val", "val": "test", "test": "train"}  # of the copy, which has splits of its own
    for split, key in first.items():
        (tmp_path / folders[split]).mkdir()
        (tmp_path / f"{folders[split]}_labels").mkdir()
        cv2.imwrite(str(tmp_path / folders[split] / f"{key}.png"), np.zeros((4, 4, 3), np.uint8))
        cv2.imwrite(str(tmp_path / f"{folders[split]}_labels" / f"{key}_L.png"), np.full((4, 4, 3), 128, np.uint8))
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\n")
    dataset = opened("camvid_full", tmp_path)
    assert dataset.spec.layout.name == "circulating"
    assert {split: [sample.id for sample in dataset.samples(split)] for split in first} == {
        split: [key] for split, key in first.items()
    }
    specs = [spec.model_copy(update={"splits": dict.fromkeys(first, 1)}) for spec in dataset.specs]
    report = verify(Dataset(specs, tmp_path), tmp_path / "verify.json")
    assert any("not SegNet's splits" in text for text in report["warnings"])


def test_labels_that_unpack_flat_are_found(write):
    assert opened("camvid_full", write("camvid_full", "flat")).spec.layout.name == "flat"


def test_suffixes_in_capitals_are_read(write, tmp_path):
    root = write("ade20k", "")
    for path in [*root.rglob("*.jpg"), *root.rglob("*.png")]:
        path.rename(path.with_suffix(path.suffix.upper()))
    assert verify(opened("ade20k", root), tmp_path / "verify.json")["status"] == "ok"


def test_lists_that_were_written_on_windows_are_read(write):
    root = write("camvid", "")
    for path in root.glob("*.txt"):
        path.write_text(path.read_text().replace("/SegNet/CamVid/", "C:\\data\\").replace("/", "\\"))
    assert len(opened("camvid", root).samples("train")) == 2


# what is wrong with a root


def test_the_nearest_layout_says_what_is_there_and_what_is_missing(write):
    root = write("cityscapes", "original")
    shutil.rmtree(root / "gtFine")
    with pytest.raises(UserError) as caught:
        opened("cityscapes", root).folder()
    assert "leftImg8bit/train/*/*_leftImg8bit.png is there" in str(caught.value)
    assert "there is no gtFine/train/*/*_gtFine_label" in str(caught.value)


def test_an_empty_folder_of_a_layout_is_told_from_a_missing_one(write):
    root = write("ade20k", "")
    for path in root.rglob("*.png"):
        path.unlink()
    with pytest.raises(UserError, match="the folder annotations/training is there, but there is no annotations/tr"):
        opened("ade20k", root).folder()


@pytest.mark.parametrize("name", ["camvid", "cityscapes", "ade20k"])
def test_a_root_of_something_else_says_what_it_holds_and_what_is_needed(tmp_path, name):
    (tmp_path / "notes.pdf").touch()
    with pytest.raises(UserError, match=r"it holds notes\.pdf; needed are \S+"):
        datasets.load(name, tmp_path).folder()


def test_a_root_of_another_data_set_names_it(write, tmp_path):
    write("camvid_full", "original")
    with pytest.raises(UserError, match="use --dataset camvid_full"):
        verify(datasets.load("camvid", tmp_path / "root"), tmp_path / "verify.json")


def test_the_full_release_of_ade20k_is_named(tmp_path):
    folder = tmp_path / "ADE20K_2021_17_01" / "images" / "ADE" / "training" / "urban" / "street"
    folder.mkdir(parents=True)
    (folder / "ADE_train_00000001_seg.png").touch()
    with pytest.raises(UserError, match=r"full release.*ADEChallengeData2016\.zip"):
        verify(datasets.load("ade20k", tmp_path), tmp_path / "verify.json")


# trouble with one root


@pytest.fixture
def forbidden(tmp_path, monkeypatch):
    """A folder that may not be read, by the superuser neither."""
    root = tmp_path / "forbidden"
    root.mkdir()
    is_file, access = Path.is_file, datasets.dataset.os.access

    def refusing(path):
        if root in path.parents:
            raise PermissionError(13, "Permission denied", str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refusing)
    monkeypatch.setattr(datasets.dataset.os, "access", lambda path, mode: Path(path) != root and access(path, mode))
    return root


@pytest.mark.parametrize("name", ["camvid", "cityscapes"])
def test_a_root_that_may_not_be_read_is_missing(forbidden, tmp_path, name):
    assert "cannot be read" in datasets.missing(name, forbidden)
    with pytest.raises(UserError, match="cannot be read"):
        verify(datasets.load(name, forbidden), tmp_path / "verify.json")


def test_the_list_of_data_sets_survives_one_bad_root(forbidden, tmp_path, monkeypatch):
    monkeypatch.setenv("CITYSCAPES_ROOT", str(forbidden))
    found = overview(tmp_path)
    assert f"the root {forbidden} cannot be read" in whereabouts(found["cityscapes"])
    assert found["scenes"]["classes"] == 11
