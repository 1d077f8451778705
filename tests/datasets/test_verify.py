import json
import os

import cv2
import numpy as np
import pytest
from PIL import Image

from harness.datasets import load
from harness.datasets.dataset import Dataset
from harness.datasets.spec import ClassEntry
from harness.datasets.verify import verify
from harness.errors import UserError


@pytest.fixture
def report_path(tmp_path):
    return tmp_path / "results" / "verify.json"


def failure(dataset, report_path, splits=None):
    with pytest.raises(UserError) as caught:
        verify(dataset, report_path, splits)
    assert json.loads(report_path.read_text())["status"] == "failed"
    return str(caught.value)


def stored_label(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def relabel(tree, split, index, change):
    path = tree.samples(split)[index].label_path
    cv2.imwrite(str(path), change(stored_label(path)))
    return path


def test_the_report_holds_what_was_counted(tree, report_path):
    report = verify(tree, report_path)
    assert json.loads(report_path.read_text()) == report
    assert (report["dataset"], report["status"], report["problems"]) == ("camvid", "ok", 0)
    assert report["fingerprint"] == tree.fingerprint()
    for split, images in (("train", 3), ("val", 2), ("test", 4)):
        labels = [stored_label(sample.label_path) for sample in tree.samples(split)]
        found = report["splits"][split]
        assert (found["images"], found["expected"], found["sizes"]) == (images, images, {"12x10": images})
        for value, name in enumerate([*tree.classes, "ignored"]):
            assert found["class_pixels"][name] == sum(int((label == value).sum()) for label in labels)
            assert found["images_with_class"][name] == sum(bool((label == value).any()) for label in labels)


def test_labels_with_a_palette_are_read_as_indices(tree, report_path):
    before = verify(tree, report_path)
    for sample in tree.samples("test"):
        label = Image.fromarray(stored_label(sample.label_path)).convert("L")
        label.putpalette(list(range(255, -1, -1)) * 3)  # makes it a palette image with the same indices
        label.save(sample.label_path)
        assert sample.label_path.read_bytes()[25] == 3  # PNG's colour type of palettes
    after = verify(tree, report_path)
    assert after["splits"]["test"]["class_pixels"] == before["splits"]["test"]["class_pixels"]
    assert after["fingerprint"] != before["fingerprint"]


def test_only_the_asked_splits_are_read(tree, report_path):
    tree.samples("train")[0].label_path.write_bytes(b"")
    report = verify(tree, report_path, ["test"])
    assert (list(report["splits"]), report["status"]) == (["test"], "ok")
    assert report["fingerprint"] is None  # that of the whole data set, most of which is unknown


# problems


def cut(path, left):
    path.write_bytes(path.read_bytes()[:left])


def cut_jpeg(tree):
    path = tree.samples("test")[1].image_path
    image = cv2.imread(str(path))
    path.unlink()
    cv2.imwrite(str(path.with_suffix(".jpg")), image)
    cut(path.with_suffix(".jpg"), -20)


def write_list(tree, text):
    (tree.root / "test.txt").write_text(text)


def train_on_a_test_image(tree):
    lines = (tree.root / "test.txt").read_text().splitlines()
    train = tree.root / "train.txt"
    train.write_text("\n".join([*train.read_text().splitlines()[1:], lines[2]]))


def first(tree):
    return tree.samples("test")[0]


PROBLEMS = {
    "missing image": (lambda tree: first(tree).image_path.unlink(), "line 1 names the image", "does not exist"),
    "missing label": (lambda tree: first(tree).label_path.unlink(), "line 1 names the label", "does not exist"),
    "missing list": (lambda tree: (tree.root / "test.txt").unlink(), "the list test.txt does not exist", "--root"),
    "empty list": (lambda tree: write_list(tree, ""), "0 images, but there must be 4", "--as-is --dataset camvid"),
    "odd list": (lambda tree: write_list(tree, "404"), "test.txt line 1 has 1 words"),
    "empty label": (lambda tree: cut(first(tree).label_path, 0), "is empty (0 bytes)"),
    "cut label": (lambda tree: cut(first(tree).label_path, 60), "is cut short"),
    "cut JPEG": (cut_jpeg, ".jpg is cut short"),
    "small label": (
        lambda tree: relabel(tree, "test", 0, lambda _: np.zeros((5, 6), np.uint8)),
        "is 6x5 (width x height), but its image is 12x10",
        "one of the two was resized",
    ),
    "cropped label": (lambda tree: relabel(tree, "test", 0, lambda _: np.zeros((10, 6), np.uint8)), "is 6x10"),
    "16-bit label": (lambda tree: relabel(tree, "test", 0, np.uint16), "is a 16-bit greyscale PNG"),
    "16-bit image": (
        lambda tree: cv2.imwrite(str(first(tree).image_path), np.zeros((10, 12, 3), np.uint16)),
        "has 16 bits a channel",
    ),
    "no cluster": (
        lambda tree: setattr(tree, "clusters", "Seq._val"),
        "clusters of the data set camvid, 'Seq._val', matches nothing at the start of the image's id 'Seq0_test000'",
    ),
    "leak": (train_on_a_test_image, "is also in train"),
    "nothing labelled": (
        lambda tree: [relabel(tree, "test", index, lambda label: label * 0 + 11) for index in range(4)],
        "no pixel is labelled with a class",
    ),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_each_problem_is_one_sentence_that_names_it(tree, report_path, name):
    spoil, *words = PROBLEMS[name]
    spoil(tree)
    message = failure(tree, report_path)
    assert message.startswith("CamVid test: ")
    assert "\n" not in message
    assert all(word in message for word in words), message
    assert json.loads(report_path.read_text())["fingerprint"] is None


def test_the_first_problem_is_named_and_ten_are_listed(tree, report_path):
    write_list(tree, (tree.root / "test.txt").read_text() + "one\n" * 13)
    message = failure(tree, report_path)
    assert "test.txt line 5" in message
    assert f"12 more problems in {report_path}" in message
    report = json.loads(report_path.read_text())
    assert (report["problems"], len(report["examples"])) == (13, 10)


def test_a_missing_root_and_an_unknown_split_leave_no_report(tree, report_path):
    with pytest.raises(UserError, match="is no folder"):
        verify(Dataset(tree.spec, report_path / "nowhere"), report_path)
    with pytest.raises(UserError, match="unknown split of camvid 'dev'"):
        verify(tree, report_path, ["dev"])
    assert not report_path.exists()


# warnings


def test_a_class_without_training_pixels_is_a_warning(tree, report_path):
    for split in ("train", "test"):
        for index in range(tree.splits[split]):
            relabel(tree, split, index, lambda label: np.where((label == 2) | (label == 9), 11, label).astype(np.uint8))
    (warning,) = verify(tree, report_path)["warnings"]
    assert "train: no pixel of Pole, Pedestrian" in warning


def test_images_that_are_bytes_of_another_split_are_a_warning(tree, report_path):
    train, test = tree.samples("train"), tree.samples("test")
    test[2].image_path.write_bytes(train[1].image_path.read_bytes())
    test[3].image_path.write_bytes(train[0].image_path.read_bytes() + b"\0")  # another file of the same picture
    report = verify(tree, report_path)
    assert report["warnings"] == [f"test: 1 image of other splits: {test[2].id} is {train[1].id} of train"]
    assert verify(tree, report_path)["warnings"] == report["warnings"]


def test_a_trained_class_called_void_is_a_warning(tree, report_path):
    void = ClassEntry(name="Void", color=(0, 0, 0), labels=(11,))
    twelve = tree.spec.model_copy(update={"classes": (*tree.spec.classes, void), "ignored_labels": ()})
    (warning,) = verify(Dataset(twelve, tree.root), report_path)["warnings"]
    assert warning.startswith("train: Void is trained and scored as a class")


# what is written


def test_the_root_is_left_as_it_is(tree, report_path):
    before = {path: path.stat().st_mtime_ns for path in tree.root.rglob("*")}
    verify(tree, report_path)
    assert {path: path.stat().st_mtime_ns for path in tree.root.rglob("*")} == before


def test_a_report_that_cannot_be_written_leaves_the_earlier_one(tree, report_path, monkeypatch):
    verify(tree, report_path)
    before = report_path.read_bytes()
    tree.samples("val")[1].label_path.write_bytes(b"")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(os, "fsync", full)
        verify(tree, report_path)
    assert report_path.read_bytes() == before
    assert list(report_path.parent.iterdir()) == [report_path]


# an earlier report


@pytest.fixture
def seen(monkeypatch):
    """The ids of the samples that are read."""
    read, found = Dataset.read, []
    monkeypatch.setattr(Dataset, "read", lambda self, sample: found.append(sample.id) or read(self, sample))
    return found


def test_a_split_is_read_again_only_when_it_has_changed(tree, report_path, seen):
    part = verify(tree, report_path, ["test"])
    assert (len(seen), part["fingerprint"]) == (4, None)
    whole = verify(tree, report_path)
    assert len(seen) == 9  # not test again
    assert whole["fingerprint"] == tree.fingerprint()
    written = report_path.read_bytes()
    assert verify(tree, report_path) == whole
    assert verify(tree, report_path, ["test"])["splits"] == part["splits"]
    assert (len(seen), report_path.read_bytes()) == (9, written)

    relabel(tree, "val", 1, lambda label: label * 0 + 3)
    part = verify(tree, report_path, ["val"])
    assert len(seen) == 11
    stored = json.loads(report_path.read_text())
    assert stored["splits"] == whole["splits"] | part["splits"]
    assert stored["fingerprint"] is part["fingerprint"] is None
    again = verify(tree, report_path)
    assert len(seen) == 11
    assert again["fingerprint"] == tree.fingerprint() != whole["fingerprint"]

    more = Dataset(tree.spec.model_copy(update={"splits": {**tree.splits, "val": 9}}), tree.root)
    assert "2 images, but there must be 9" in failure(more, report_path)  # another YAML


def test_a_failure_stays_known_and_is_always_checked_again(tree, report_path):
    path = tree.samples("val")[1].label_path
    content, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.write_bytes(bytes(len(content)))
    os.utime(path, ns=times)
    sentence = failure(tree, report_path)
    assert verify(tree, report_path, ["test"])["status"] == "ok"
    stored = json.loads(report_path.read_text())
    assert (stored["status"], stored["problems"]) == ("failed", 1)
    assert stored["examples"][0] in sentence
    path.write_bytes(content)
    os.utime(path, ns=times)
    assert verify(tree, report_path)["fingerprint"] == tree.fingerprint()


def test_what_was_known_of_another_folder_is_dropped(tree, report_path, tmp_path, make_tree):
    verify(tree, report_path)
    verify(make_tree(tmp_path / "other", seed=1), report_path, ["val"])
    assert list(json.loads(report_path.read_text())["splits"]) == ["val"]


def test_an_image_in_two_splits_is_found_though_each_was_in_order(tree, report_path):
    train_on_a_test_image(tree)
    for split in tree.splits:
        verify(tree, report_path, [split])
    assert "is also in train" in failure(tree, report_path)


@pytest.mark.parametrize("content", ["", "[]", '{"status": "ok"}', "\0"])
def test_a_damaged_report_is_replaced(tree, report_path, content):
    report_path.parent.mkdir()
    report_path.write_text(content)
    assert verify(tree, report_path)["splits"]["test"]["images"] == 4


@pytest.mark.slow
def test_real_camvid_passes_and_equals_the_published_labels(camvid_root, report_path):
    report = verify(load("camvid", camvid_root), report_path)
    assert (report["status"], report["warnings"]) == ("ok", [])
    known = json.loads((camvid_root / "class_pixels.json").read_text())
    for split, found in report["splits"].items():
        assert list(found["class_pixels"].values()) == known["pixels"][split]
        assert list(found["images_with_class"].values()) == known["images_with_class"][split]
        assert found["labels"] == "identical to the published labels"
        assert set(found["sizes"]) == {"480x360"}
