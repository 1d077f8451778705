import errno
import json
import os
from hashlib import sha256

import cv2
import layout_writer
import numpy as np
import pytest

from harness import datasets
from harness.compute import atomic
from harness.datasets import preparation
from harness.errors import UserError

COUNTS = {"train": 3, "val": 2, "test": 2}


def original(root, name, layout="original"):
    spec = next(spec for spec in datasets.load(name).specs if spec.layout.name == layout)
    return datasets.load(name, layout_writer.write_scenes(root, spec, COUNTS, (24, 32)))


@pytest.fixture
def coco(tmp_path):
    return original(tmp_path / "root", "coco_stuff10k")


@pytest.fixture
def base(tmp_path):
    return tmp_path / "root" / "cocostuff-10k-v1.1"


def convert(dataset, workers=1):
    return datasets.prepare(dataset, convert=True, workers=workers)


def labels(dataset):
    return {s.id: dataset.read_label(s).tolist() for split in dataset.splits for s in dataset.samples(split)}


@pytest.mark.parametrize(
    ("name", "layout"),
    [("coco_stuff10k", "original"), ("pascal_context", "original"), ("pascal_context60", "original_beside")],
)
def test_converted_labels_say_the_same_and_are_read_from_then_on(tmp_path, name, layout):
    before = original(tmp_path / "root", name, layout)
    expected = labels(before)
    convert(before)
    after = datasets.load(name, before.root)
    assert after.spec.layout.name == "prepared"
    assert labels(after) == expected
    assert all(sample.label_path.suffix == ".png" for sample in after.samples("train"))


def test_pascal_contexts_labels_are_converted_to_the_same_files_for_59_and_60_classes(tmp_path):
    spec = datasets.load("pascal_context").specs[3]
    every_id = np.arange(460).reshape(20, 23)
    image = np.zeros((20, 23, 3), np.uint8)
    pictures = {split: [(layout_writer.sample_id(spec, split, 0), image, every_id)] for split in spec.splits}
    files = {}
    for name in ("pascal_context", "pascal_context60"):
        root = layout_writer.write(tmp_path / name, spec, pictures)
        convert(datasets.load(name, root))
        folder = root / "VOCdevkit" / "VOC2010" / "prepared"
        files[name] = {path.name: cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in folder.glob("*.png")}
        assert len(files[name]) == 2
    for name, stored in files["pascal_context"].items():
        assert sorted(set(stored.ravel().tolist())) == list(range(60))
        assert np.array_equal(stored, files["pascal_context60"][name])
    # Both read what either wrote: background is 0 for one and ignored for the other.
    for name, value in (("pascal_context", 255), ("pascal_context60", 0)):
        dataset = datasets.load(name, tmp_path / "pascal_context")
        assert dataset.read_label(dataset.samples("val")[0])[0, 0] == value


def test_the_report_says_what_was_done_once(coco, base, monkeypatch):
    report = convert(coco, workers=3)
    assert report == json.loads((base / "prepared" / "prepare.json").read_text())
    assert (report["dataset"], report["read"]) == ("coco_stuff10k", "original")
    assert report["images"] == {"train": 3, "test": 2}
    for split in ("train", "test"):
        lines = [f"{s.id} {sha256(s.label_path.read_bytes()).hexdigest()}\n" for s in coco.samples(split)]
        assert report["sources"][split] == sha256("".join(lines).encode()).hexdigest()
    monkeypatch.setattr(preparation, "_convert", lambda *_: pytest.fail("converted again"))
    assert convert(datasets.load("coco_stuff10k", coco.root)) == report


@pytest.mark.parametrize(("name", "layout"), [("cityscapes", "original"), ("coco_stuff10k", "mmsegmentation")])
def test_without_mat_files_nothing_is_converted(tmp_path, name, layout):
    dataset = original(tmp_path / "root", name, layout)
    before = sorted(dataset.root.rglob("*"))
    assert convert(dataset) is None
    assert sorted(dataset.root.rglob("*")) == before


def test_an_interrupted_conversion_continues(coco, base):
    expected = labels(coco)
    last = coco.samples("test")[-1].label_path
    content = last.read_bytes()
    last.write_bytes(content[:100])
    with pytest.raises(UserError, match=f"^{last} cannot be read as a MATLAB file"):
        convert(coco)
    # Readers do not see what is unfinished.
    assert not (base / "prepared").exists()
    assert datasets.load("coco_stuff10k", coco.root).spec.layout.name == "original"
    done = {path: path.stat().st_mtime_ns for path in (base / ".prepared.unfinished").glob("*.png")}
    assert len(done) == 4
    last.write_bytes(content)
    convert(coco)
    assert labels(datasets.load("coco_stuff10k", coco.root)) == expected
    assert {path: (base / "prepared" / path.name).stat().st_mtime_ns for path in done} == done
    assert not (base / ".prepared.unfinished").exists()


@pytest.mark.parametrize(("number", "what"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "Read-only")])
def test_a_disk_that_cannot_be_written_leaves_no_half_written_file(coco, base, monkeypatch, number, what):
    whole, calls = atomic.replacing, []

    def replacing(path):
        calls.append(path)
        if len(calls) > 2:
            raise OSError(number, os.strerror(number), str(path))
        return whole(path)

    with monkeypatch.context() as patch:
        patch.setattr(atomic, "replacing", replacing)
        with pytest.raises(UserError, match=rf"\.prepared\.unfinished cannot be written \({what}"):
            convert(coco)
    assert not (base / "prepared").exists()
    names = sorted(path.name for path in (base / ".prepared.unfinished").iterdir())
    assert names == [f"{sample.id}.png" for sample in coco.samples("train")[:2]]
    convert(coco)
    assert len(list((base / "prepared").glob("*.png"))) == 5


def test_a_folder_called_prepared_that_is_not_ours_is_kept(coco, base):
    (base / "prepared").mkdir()
    (base / "prepared" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="cannot be written"):
        convert(coco)
    assert (base / "prepared" / "notes.txt").read_text() == "mine"
