import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from harness.datasets import load
from harness.datasets.dataset import Dataset
from harness.datasets.verify import verify
from harness.errors import UserError


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


def test_only_the_asked_splits_are_read(tree: Dataset, report_path: Path) -> None:
    tree.samples("train")[0].label_path.write_bytes(b"")
    report = verify(tree, report_path, ["test"])
    assert list(report["splits"]) == ["test"]
    assert report["fingerprint"] == tree.fingerprint(["test"])


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


def shorten_list(tree: Dataset) -> str:
    assert tree.root is not None
    path = tree.root / "test.txt"
    path.write_text(path.read_text().splitlines()[0])
    return "test: 1 image in the list, but there must be 4: complete the data set"


def empty_label(tree: Dataset) -> str:
    path = tree.samples("test")[0].label_path
    path.write_bytes(b"")
    return f"test: testannot/{path.name} is empty (0 bytes): copy or download it again"


def resize_label(tree: Dataset) -> str:
    path = tree.samples("test")[0].label_path
    cv2.imwrite(str(path), np.zeros((5, 6), np.uint8))
    return f"test: testannot/{path.name} is 6x5 (width x height), but its image is 12x10"


def colour_label(tree: Dataset) -> str:
    path = tree.samples("test")[0].label_path
    cv2.imwrite(str(path), np.zeros((10, 12, 3), np.uint8))
    return f"test: testannot/{path.name} is a 8-bit RGB PNG, but labels must be 8-bit greyscale"


def widen_label(tree: Dataset) -> str:
    path = tree.samples("test")[0].label_path
    cv2.imwrite(str(path), np.zeros((10, 12), np.uint16))
    return f"test: testannot/{path.name} is a 16-bit greyscale PNG, but labels must be 8-bit greyscale"


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
        resize_label,
        colour_label,
        widen_label,
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


# an earlier report


def no_reading(*_: object) -> None:
    raise AssertionError("a file was read")


def test_nothing_is_read_again_when_nothing_changed(
    tree: Dataset, report_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = verify(tree, report_path)
    monkeypatch.setattr(Dataset, "read", no_reading)
    assert verify(tree, report_path) == report
    with pytest.raises(AssertionError, match="a file was read"):
        verify(tree, report_path, ["test"])


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
