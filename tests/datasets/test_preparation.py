import errno
import json
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np
import pytest

from harness import datasets
from harness.compute import atomic
from harness.datasets import layout_writer, preparation
from harness.datasets.dataset import Dataset
from harness.errors import UserError

COUNTS = {"train": 3, "val": 2, "test": 2}


def original(root: Path, name: str, layout: str = "original") -> Dataset:
    spec = next(spec for spec in datasets.load(name).specs if spec.layout.name == layout)
    return datasets.load(name, layout_writer.write_scenes(root, spec, COUNTS, (24, 32)))


def convert(dataset: Dataset) -> dict | None:
    return datasets.prepare(dataset, convert=True, workers=1)


def labels(dataset: Dataset) -> dict[str, list]:
    return {
        sample.id: dataset.read_label(sample).tolist() for split in dataset.splits for sample in dataset.samples(split)
    }


@pytest.mark.parametrize(
    ("name", "layout"),
    [("coco_stuff10k", "original"), ("pascal_context", "original"), ("pascal_context60", "original_beside")],
)
def test_converted_labels_say_the_same_and_are_read_from_then_on(tmp_path: Path, name: str, layout: str) -> None:
    before = original(tmp_path / "root", name, layout)
    expected = labels(before)
    convert(before)
    after = datasets.load(name, before.root)
    assert after.spec.layout.name == "prepared"
    assert labels(after) == expected
    assert all(sample.label_path.suffix == ".png" for sample in after.samples("train"))


def test_pascal_contexts_labels_are_converted_to_the_same_files_for_59_and_60_classes(tmp_path: Path) -> None:
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
    # Whoever prepares it, both read it rightly: background is 0 for one and ignored for the other.
    for name, value in (("pascal_context", 255), ("pascal_context60", 0)):
        dataset = datasets.load(name, tmp_path / "pascal_context")
        assert dataset.read_label(dataset.samples("val")[0])[0, 0] == value


def test_the_report_says_what_was_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = original(tmp_path / "root", "coco_stuff10k")
    report = convert(dataset)
    folder = tmp_path / "root" / "cocostuff-10k-v1.1" / "prepared"
    assert report == json.loads((folder / "prepare.json").read_text())
    assert report is not None
    assert (report["dataset"], report["read"]) == ("coco_stuff10k", "original")
    assert report["images"] == {"train": 3, "test": 2}
    assert "prepare coco_stuff10k train: 3/3" in capsys.readouterr().err
    for split in ("train", "test"):
        lines = [
            f"{sample.id} {sha256(sample.label_path.read_bytes()).hexdigest()}\n" for sample in dataset.samples(split)
        ]
        assert report["sources"][split] == sha256("".join(lines).encode()).hexdigest()


def test_what_is_prepared_is_not_prepared_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = original(tmp_path / "root", "coco_stuff10k")
    report = convert(dataset)
    monkeypatch.setattr(preparation, "_convert", lambda *_: pytest.fail("converted again"))
    assert convert(datasets.load("coco_stuff10k", dataset.root)) == report


@pytest.mark.parametrize("name", ["ade20k", "cityscapes", "camvid_full", "coco_stuff164k"])
def test_a_data_set_without_mat_files_has_nothing_to_convert(tmp_path: Path, name: str) -> None:
    spec = datasets.load(name).specs[0]
    root = layout_writer.write_scenes(tmp_path / "root", spec, COUNTS, (16, 16))
    before = sorted(root.rglob("*"))
    assert convert(datasets.load(name, root)) is None
    assert sorted(root.rglob("*")) == before


def test_labels_that_others_converted_are_left_alone(tmp_path: Path) -> None:
    dataset = original(tmp_path / "root", "coco_stuff10k", "mmsegmentation")
    assert convert(dataset) is None


def test_a_root_without_the_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"the root {tmp_path} does not hold COCO-Stuff 10k: it is empty"):
        convert(datasets.load("coco_stuff10k", tmp_path))


# what goes wrong


def test_an_interrupted_conversion_goes_on_where_it_was(tmp_path: Path) -> None:
    dataset = original(tmp_path / "root", "coco_stuff10k")
    expected = labels(dataset)
    base = tmp_path / "root" / "cocostuff-10k-v1.1"
    last = dataset.samples("test")[-1].label_path
    content = last.read_bytes()
    last.write_bytes(content[:100])
    with pytest.raises(UserError, match=f"^{last} cannot be read as a MATLAB file"):
        convert(dataset)
    # Readers do not see what is unfinished.
    assert not (base / "prepared").exists()
    assert datasets.load("coco_stuff10k", dataset.root).spec.layout.name == "original"
    done = {path: path.stat().st_mtime_ns for path in (base / ".prepared.unfinished").glob("*.png")}
    assert len(done) == 4
    last.write_bytes(content)
    convert(dataset)
    assert labels(datasets.load("coco_stuff10k", dataset.root)) == expected
    assert {path: (base / "prepared" / path.name).stat().st_mtime_ns for path in done} == done
    assert not (base / ".prepared.unfinished").exists()


def failing(number: int, after: int) -> Callable[[Path], object]:
    """A stand-in for atomic.replacing that fails with the error `number` from the call `after` on."""
    calls = []

    def replacing(path: Path) -> object:
        calls.append(path)
        if len(calls) > after:
            raise OSError(number, os.strerror(number), str(path))
        return whole(path)

    whole = atomic.replacing
    return replacing


@pytest.mark.parametrize(
    ("number", "what"), [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "Read-only file system")]
)
def test_a_full_disk_or_a_read_only_root_is_one_sentence_and_leaves_no_half_written_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, what: str
) -> None:
    dataset = original(tmp_path / "root", "coco_stuff10k")
    base = tmp_path / "root" / "cocostuff-10k-v1.1"
    with monkeypatch.context() as patch:
        patch.setattr(atomic, "replacing", failing(number, after=2))
        with pytest.raises(UserError) as caught:
            convert(dataset)
    assert str(caught.value) == (
        f"{base}/.prepared.unfinished cannot be written ({what}): make room or make it writable and prepare again, "
        "which goes on from what is done"
    )
    assert not (base / "prepared").exists()
    names = sorted(path.name for path in (base / ".prepared.unfinished").iterdir())
    assert names == [f"{sample.id}.png" for sample in dataset.samples("train")[:2]]
    convert(dataset)
    assert len(list((base / "prepared").glob("*.png"))) == 5


def test_a_root_that_cannot_be_written_at_all_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = original(tmp_path / "root", "coco_stuff10k")
    before = sorted((tmp_path / "root").rglob("*"))

    def refused(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(UserError, match=r"\.prepared\.unfinished cannot be written \(Permission denied\)"):
        convert(dataset)
    assert sorted((tmp_path / "root").rglob("*")) == before


def test_a_folder_called_prepared_that_is_not_ours_is_kept(tmp_path: Path) -> None:
    dataset = original(tmp_path / "root", "coco_stuff10k")
    theirs = tmp_path / "root" / "cocostuff-10k-v1.1" / "prepared" / "notes.txt"
    theirs.parent.mkdir()
    theirs.write_text("mine")
    with pytest.raises(UserError, match="cannot be written"):
        convert(dataset)
    assert theirs.read_text() == "mine"


def test_several_processes_convert_to_the_same_files(tmp_path: Path) -> None:
    one = original(tmp_path / "one", "coco_stuff10k")
    other_root = tmp_path / "other"
    shutil.copytree(tmp_path / "one", other_root)
    convert(one)
    datasets.prepare(datasets.load("coco_stuff10k", other_root), convert=True, workers=3)

    def files(root: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in root.rglob("prepared/*.png")}

    assert files(tmp_path / "one") == files(other_root)
    assert len(files(other_root)) == 5
