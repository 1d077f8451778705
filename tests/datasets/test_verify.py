import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from harness.datasets import load
from harness.datasets.dataset import Dataset
from harness.datasets.readers import Sample
from harness.datasets.spec import ClassEntry
from harness.datasets.verify import verify
from harness.errors import UserError

RESIZED = "the shape is the same, so one of the two was resized: take the originals of both"


@pytest.fixture
def report_path(tmp_path: Path) -> Path:
    return tmp_path / "results" / "verify.json"


def failure(dataset: Dataset, report_path: Path, splits: list[str] | None = None) -> str:
    with pytest.raises(UserError) as caught:
        verify(dataset, report_path, splits)
    assert json.loads(report_path.read_text())["status"] == "failed"
    return str(caught.value)


def stored_label(path: Path) -> np.ndarray:
    label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert label is not None
    return label


def test_the_report_holds_what_was_counted(tree: Dataset, report_path: Path) -> None:
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


def test_labels_with_a_palette_are_read_as_indices(tree: Dataset, report_path: Path) -> None:
    before = verify(tree, report_path)
    for sample in tree.samples("test"):
        label = Image.fromarray(stored_label(sample.label_path)).convert("L")
        label.putpalette(list(range(255, -1, -1)) * 3)  # which makes it a palette image with the same indices
        label.save(sample.label_path)
        assert sample.label_path.read_bytes()[25] == 3  # PNG's colour type of palettes
    after = verify(tree, report_path)
    assert after["splits"]["test"]["class_pixels"] == before["splits"]["test"]["class_pixels"]
    assert after["fingerprint"] != before["fingerprint"]


def test_only_the_asked_splits_are_read(tree: Dataset, report_path: Path) -> None:
    tree.samples("train")[0].label_path.write_bytes(b"")
    report = verify(tree, report_path, ["test"])
    assert list(report["splits"]) == ["test"]
    assert report["status"] == "ok"
    assert report["fingerprint"] is None  # of the whole data set, of which most is unknown


# problems


def test_a_value_outside_the_table_is_named_and_others_are_listed(tree: Dataset, report_path: Path) -> None:
    samples = tree.samples("test")
    for sample in samples[1:]:
        label = stored_label(sample.label_path)
        label[0, 0] = 77
        cv2.imwrite(str(sample.label_path), label)
    assert failure(tree, report_path) == (
        f"CamVid test: testannot/{samples[1].id}.png has the value 77, but labels may hold 0..11; "
        f"2 more problems are listed in {report_path}"
    )
    report = json.loads(report_path.read_text())
    assert report["problems"] == 3
    assert [samples[k].id in report["examples"][k - 1] for k in (1, 2, 3)] == [True] * 3
    assert report["fingerprint"] is None


def test_a_single_problem_mentions_no_others(tree: Dataset, report_path: Path) -> None:
    sample = tree.samples("val")[0]
    sample.image_path.write_bytes(sample.image_path.read_bytes()[:-5])
    message = f"CamVid val: val/{sample.id}.png is cut short (its end marker is missing): copy or download it again"
    assert failure(tree, report_path) == message


def test_at_most_ten_problems_are_listed(tree: Dataset, report_path: Path) -> None:
    assert tree.root is not None
    with (tree.root / "test.txt").open("a") as file:
        file.write("one\n" * 13)
    assert failure(tree, report_path) == (
        'CamVid test: test.txt line 5 has 1 words, but "image label" has 2; '
        f"12 more problems, of which {report_path} lists 9"
    )
    report = json.loads(report_path.read_text())
    assert (report["problems"], len(report["examples"])) == (13, 10)


def remove_image(tree: Dataset) -> str:
    path = tree.samples("test")[2].image_path
    path.unlink()
    return f"test: test.txt line 3 names the image test/{path.name}, which does not exist"


def remove_label(tree: Dataset) -> str:
    path = tree.samples("test")[2].label_path
    path.unlink()
    return f"test: test.txt line 3 names the label testannot/{path.name}, which does not exist"


def remove_list(tree: Dataset) -> str:
    assert tree.root is not None
    (tree.root / "test.txt").unlink()
    return "test: the list test.txt does not exist: check that --root names the folder that holds it"


def as_is(tree: Dataset) -> str:
    command = f"python -m harness prepare --as-is --dataset camvid --root {tree.root}"
    return f"to use what is there all the same, marked in all results: {command}"


def shorten_list(tree: Dataset) -> str:
    assert tree.root is not None
    path = tree.root / "test.txt"
    path.write_text(path.read_text().splitlines()[0])
    return f"test: 1 image in the list, but there must be 4: complete the data set; {as_is(tree)}"


def empty_label(tree: Dataset) -> str:
    path = tree.samples("test")[0].label_path
    path.write_bytes(b"")
    return f"test: testannot/{path.name} is empty (0 bytes): copy or download it again"


def resize_label(tree: Dataset) -> str:
    path = tree.samples("test")[0].label_path
    cv2.imwrite(str(path), np.zeros((5, 6), np.uint8))
    return f"test: testannot/{path.name} is 6x5 (width x height), but its image is 12x10; {RESIZED}"


def crop_label(tree: Dataset) -> str:
    path = tree.samples("test")[0].label_path
    cv2.imwrite(str(path), np.zeros((10, 6), np.uint8))
    return f"test: testannot/{path.name} is 6x10 (width x height), but its image is 12x10"


def colour_label(tree: Dataset) -> str:
    path = tree.samples("test")[0].label_path
    cv2.imwrite(str(path), np.zeros((10, 12, 3), np.uint8))
    return (
        f"test: testannot/{path.name} is an 8-bit RGB PNG, but labels must be 8-bit greyscale; "
        "its channels are equal: save one of them as 8-bit greyscale"
    )


def widen_label(tree: Dataset) -> str:
    path = tree.samples("test")[0].label_path
    cv2.imwrite(str(path), np.zeros((10, 12), np.uint16))
    return f"test: testannot/{path.name} is a 16-bit greyscale PNG, but labels must be 8-bit greyscale"


def empty_list(tree: Dataset) -> str:
    assert tree.root is not None
    (tree.root / "test.txt").write_text("")
    return f"test: 0 images in the list, but there must be 4: complete the data set; {as_is(tree)}"


def garble_list(tree: Dataset) -> str:
    assert tree.root is not None
    (tree.root / "test.txt").write_text("404")
    return 'test: test.txt line 1 has 1 words, but "image label" has 2'


def cut_jpeg(tree: Dataset) -> str:
    sample = tree.samples("test")[1]
    image = cv2.imread(str(sample.image_path))
    sample.image_path.unlink()
    path = sample.image_path.with_suffix(".jpg")
    assert image is not None
    cv2.imwrite(str(path), image)
    path.write_bytes(path.read_bytes()[:-20])
    return f"test: test/{path.name} is cut short (its end marker is missing): copy or download it again"


def cut_label(tree: Dataset) -> str:
    path = tree.samples("test")[3].label_path
    path.write_bytes(path.read_bytes()[:60])
    return f"test: testannot/{path.name} is cut short (its end marker is missing): copy or download it again"


def widen_image(tree: Dataset) -> str:
    path = tree.samples("test")[0].image_path
    cv2.imwrite(str(path), np.zeros((10, 12, 3), np.uint16))
    return f"test: test/{path.name} has 16 bits a channel, but images must have 8"


def train_on_a_test_image(tree: Dataset) -> str:
    assert tree.root is not None
    test, train = tree.root / "test.txt", tree.root / "train.txt"
    lines = test.read_text().splitlines()
    train.write_text("\n".join([*train.read_text().splitlines()[1:], lines[2]]))
    return f"test: {tree.samples('test')[2].id} is also in train"


@pytest.mark.parametrize(
    "spoil",
    [
        remove_image,
        remove_label,
        remove_list,
        shorten_list,
        empty_label,
        empty_list,
        garble_list,
        cut_jpeg,
        cut_label,
        resize_label,
        crop_label,
        colour_label,
        widen_label,
        widen_image,
        train_on_a_test_image,
    ],
)
def test_each_problem_has_its_sentence(tree: Dataset, report_path: Path, spoil: Callable[[Dataset], str]) -> None:
    expected = f"CamVid {spoil(tree)}"
    assert failure(tree, report_path) == expected


def test_a_missing_root_and_an_unknown_split_leave_no_report(tree: Dataset, report_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder"):
        verify(Dataset(tree.spec, report_path / "nowhere"), report_path)
    with pytest.raises(UserError, match="unknown split of camvid 'dev'"):
        verify(tree, report_path, ["dev"])
    assert not report_path.exists()


# warnings


def test_other_labels_than_the_published_are_a_warning(tree: Dataset, report_path: Path) -> None:
    counts = np.zeros(12, int)
    for sample in tree.samples("test"):
        counts += np.bincount(stored_label(sample.label_path).ravel(), minlength=12)
    same = Dataset(tree.spec.model_copy(update={"class_pixels": {"test": tuple(counts)}}), tree.root)
    report = verify(same, report_path)
    assert report["splits"]["test"]["labels"] == "identical to the published labels"
    assert report["splits"]["train"]["labels"] == "unknown"
    assert report["warnings"] == []

    counts[[3, 11]] += (1, -1)
    other = Dataset(tree.spec.model_copy(update={"class_pixels": {"test": tuple(counts)}}), tree.root)
    report = verify(other, report_path)
    assert report["splits"]["test"]["labels"] == "different"
    assert report["warnings"] == ["test: the pixels of the classes differ from those of the published labels"]


def test_a_class_without_training_pixels_is_a_warning(tree: Dataset, report_path: Path) -> None:
    for split in ("train", "test"):
        for sample in tree.samples(split):
            label = stored_label(sample.label_path)
            label[(label == 2) | (label == 9)] = 11
            cv2.imwrite(str(sample.label_path), label)
    report = verify(tree, report_path)
    assert report["warnings"] == ["train: no pixel of Pole, Pedestrian, so nothing to learn it from"]


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_without_a_labelled_pixel_is_refused(tree: Dataset, report_path: Path, split: str) -> None:
    for sample in tree.samples(split):
        cv2.imwrite(str(sample.label_path), np.full((10, 12), 11, np.uint8))
    assert f"{split}: no pixel of any class is labelled" in failure(tree, report_path)


def test_images_that_are_bytes_of_another_split_are_a_warning(tree: Dataset, report_path: Path) -> None:
    train, test = tree.samples("train"), tree.samples("test")
    test[2].image_path.write_bytes(train[1].image_path.read_bytes())
    same_size = bytearray(train[0].image_path.read_bytes())
    same_size.extend(b"\0")  # behind the end marker: another file of the same picture
    test[3].image_path.write_bytes(same_size)
    report = verify(tree, report_path)
    assert report["warnings"] == [f"test: 1 image of other splits: {test[2].id} is {train[1].id} of train"]
    assert verify(tree, report_path)["warnings"] == report["warnings"]


def test_a_trained_class_called_void_is_a_warning(tree: Dataset, report_path: Path) -> None:
    spec = tree.spec
    void = ClassEntry(name="Void", color=(0, 0, 0), labels=(11,))
    twelve = spec.model_copy(update={"classes": (*spec.classes, void), "ignored_labels": ()})
    report = verify(Dataset(twelve, tree.root), report_path)
    assert report["warnings"] == [
        "train: Void is trained and scored as a class: move its labels to ignored_labels if it is void"
    ]


# what is written


def test_a_root_that_may_not_be_written_is_verified(tree: Dataset, report_path: Path) -> None:
    assert tree.root is not None
    before = {path: path.stat().st_mtime_ns for path in tree.root.rglob("*")}
    folders = [tree.root, *(path for path in before if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert verify(tree, report_path)["status"] == "ok"
        assert {path: path.stat().st_mtime_ns for path in tree.root.rglob("*")} == before  # also where root may write
    finally:
        for folder in folders:
            folder.chmod(0o755)


def test_a_report_that_cannot_be_written_leaves_the_earlier_one(
    tree: Dataset, report_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify(tree, report_path)
    before = report_path.read_bytes()
    tree.samples("val")[1].label_path.write_bytes(b"")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(os, "fsync", full)
        verify(tree, report_path)
    assert report_path.read_bytes() == before
    assert list(report_path.parent.iterdir()) == [report_path]


# an earlier report


def no_reading(*_: object) -> None:
    raise AssertionError("a file was read")


def test_nothing_is_read_again_when_nothing_changed(
    tree: Dataset, report_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = verify(tree, report_path)
    written = report_path.read_bytes()
    for forbidden in ("read", "fingerprint"):
        monkeypatch.setattr(Dataset, forbidden, no_reading)
    monkeypatch.setattr(Path, "read_bytes", no_reading)
    assert verify(tree, report_path) == report
    assert verify(tree, report_path, ["test"])["splits"] == {"test": report["splits"]["test"]}
    monkeypatch.undo()
    assert report_path.read_bytes() == written


def test_a_report_on_one_split_and_one_on_all_keep_each_other(
    tree: Dataset, report_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, seen = Dataset.read, []

    def reading(dataset: Dataset, sample: Sample) -> object:
        seen.append(sample.id)
        return read(dataset, sample)

    monkeypatch.setattr(Dataset, "read", reading)
    verify(tree, report_path, ["test"])
    assert len(seen) == 4
    whole = verify(tree, report_path)
    assert len(seen) == 9  # test is not read again
    assert list(whole["splits"]) == ["train", "val", "test"]
    assert whole["fingerprint"] == tree.fingerprint()

    path = tree.samples("val")[1].label_path
    label = stored_label(path)
    label[:] = 3
    cv2.imwrite(str(path), label)
    part = verify(tree, report_path, ["val"])
    assert len(seen) == 11
    stored = json.loads(report_path.read_text())
    assert list(stored["splits"]) == ["train", "val", "test"]
    assert stored["splits"] == whole["splits"] | part["splits"]
    assert stored["fingerprint"] is part["fingerprint"] is None

    again = verify(tree, report_path)
    assert len(seen) == 11
    assert again["splits"] == stored["splits"]
    assert again["fingerprint"] == tree.fingerprint() != whole["fingerprint"]


def test_a_failure_in_one_split_stays_known_when_another_is_checked(tree: Dataset, report_path: Path) -> None:
    path = tree.samples("val")[1].label_path
    content = path.read_bytes()
    path.write_bytes(b"")
    sentence = failure(tree, report_path)
    assert verify(tree, report_path, ["test"])["status"] == "ok"
    stored = json.loads(report_path.read_text())
    assert (stored["status"], stored["problems"]) == ("failed", 1)
    assert stored["examples"][0] in sentence
    path.write_bytes(content)
    assert verify(tree, report_path)["fingerprint"] == tree.fingerprint()


def test_what_was_known_of_another_folder_or_table_is_dropped(
    tree: Dataset, report_path: Path, tmp_path: Path, make_tree: Callable[..., Dataset]
) -> None:
    verify(tree, report_path)
    verify(make_tree(tmp_path / "other", seed=1), report_path, ["val"])
    assert list(json.loads(report_path.read_text())["splits"]) == ["val"]


def test_an_image_in_two_splits_is_found_though_each_was_in_order(tree: Dataset, report_path: Path) -> None:
    train_on_a_test_image(tree)
    for split in tree.splits:
        verify(tree, report_path, [split])
    assert "is also in train" in failure(tree, report_path)


def test_a_changed_label_is_read_again(tree: Dataset, report_path: Path) -> None:
    before = verify(tree, report_path)
    path = tree.samples("test")[0].label_path
    label = stored_label(path)
    label[:] = 3
    cv2.imwrite(str(path), label)
    after = verify(tree, report_path)
    assert after["splits"]["test"]["class_pixels"]["Road"] > before["splits"]["test"]["class_pixels"]["Road"]
    assert after["fingerprint"] != before["fingerprint"]


def test_a_changed_yaml_reads_again(tree: Dataset, report_path: Path) -> None:
    verify(tree, report_path)
    more = Dataset(tree.spec.model_copy(update={"splits": {**tree.splits, "val": 9}}), tree.root)
    assert "2 images in the list, but there must be 9" in failure(more, report_path)


def test_a_failure_is_checked_again_even_if_the_times_are_the_same(
    tree: Dataset, report_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Dataset.read
    monkeypatch.setattr(Dataset, "read", lambda *_: (_ for _ in ()).throw(UserError("a.png has rotted")))
    assert re.fullmatch(r"CamVid train: a.png has rotted; 8 more problems are listed in .*", failure(tree, report_path))
    monkeypatch.setattr(Dataset, "read", read)  # the files were copied again with their times
    assert verify(tree, report_path)["status"] == "ok"


@pytest.mark.parametrize("content", ["", "[]", '{"status": "ok"}', "\0"])
def test_a_damaged_report_is_replaced(tree: Dataset, report_path: Path, content: str) -> None:
    report_path.parent.mkdir()
    report_path.write_text(content)
    assert verify(tree, report_path)["splits"]["test"]["images"] == 4


# the real data


@pytest.mark.slow
def test_real_camvid_passes_and_equals_the_published_labels(camvid_root: Path, report_path: Path) -> None:
    report = verify(load("camvid", camvid_root), report_path)
    assert (report["status"], report["warnings"]) == ("ok", [])
    known = json.loads((camvid_root / "class_pixels.json").read_text())
    for split, found in report["splits"].items():
        assert list(found["class_pixels"].values()) == known["pixels"][split]
        assert list(found["images_with_class"].values()) == known["images_with_class"][split]
        assert found["labels"] == "identical to the published labels"
        assert set(found["sizes"]) == {"480x360"}
