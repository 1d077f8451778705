"""Sizes, parts of a data set, and roots that say what they hold."""

import json

import cv2
import layout_writer
import numpy as np
import pytest

from harness import datasets
from harness.datasets.as_is import AS_IS
from harness.datasets.dataset import Dataset
from harness.datasets.declaring import declare
from harness.datasets.sizes import Sizes
from harness.datasets.verify import verify
from harness.errors import UserError


def real(name, layout, root, counts, size):
    """Rendered scenes in a root that claims to hold the real data set."""
    spec = next(spec for spec in datasets.load(name).specs if spec.layout.name == layout)
    layout_writer.write_scenes(root, spec, counts, size)
    (root / AS_IS).unlink()
    return datasets.load(name, root)


def test_sizes_are_read_and_written():
    assert str(Sizes.of("2048x1024")) == "2048x1024"
    assert (640, 480) in Sizes.of("1x1..640x640")
    assert (480, 641) not in Sizes.of("1x1..640x640")
    assert Sizes.of("1x1..640x640").sentence() == "at most 640x640"
    assert str(Sizes.around([(512, 256), (300, 400)])) == "300x256..512x400"
    for text in ("", "2048", "2048*1024", "0x5", "10x10..5x20"):
        with pytest.raises(ValueError, match="size"):
            Sizes.of(text)


@pytest.mark.parametrize(
    ("name", "layout", "size", "published"),
    [("cityscapes", "original", (16, 32), "2048x1024"), ("camvid_full", "original", (24, 32), "960x720")],
)
def test_images_of_another_size_are_refused(tmp_path, name, layout, size, published):
    counts = dict.fromkeys(datasets.load(name).splits, 1)
    real(name, layout, tmp_path / "root", counts, size)
    specs = [spec.model_copy(update={"splits": counts}) for spec in datasets.load(name).specs]
    with pytest.raises(UserError, match=rf"is {size[1]}x{size[0]} .*{published}.*--as-is"):
        verify(Dataset(specs, tmp_path / "root"), tmp_path / "verify.json")


def test_a_part_is_refused_with_the_command_that_accepts_it(tmp_path):
    dataset = real("ade20k", "", tmp_path / "root", {"train": 2, "val": 1}, (16, 16))
    with pytest.raises(UserError, match=f"prepare --as-is --dataset ade20k --root {tmp_path / 'root'}"):
        verify(dataset, tmp_path / "verify.json")


def test_a_declared_part_is_in_order_and_marked_until_it_changes(tmp_path):
    assert declare(real("cityscapes", "original", tmp_path / "root", {"train": 2, "val": 1}, (16, 32))).splits == {
        "train": 2,
        "val": 1,
    }
    dataset = datasets.load("cityscapes", tmp_path / "root")
    assert dataset.remark == "as is: 2 train, 1 val images; 32x16"
    assert dataset.title == f"Cityscapes ({dataset.remark})"
    assert (dataset.accepted_counts("val"), dataset.class_pixels) == ((1,), {})
    report = verify(dataset, tmp_path / "verify.json")
    assert (report["status"], report["remark"]) == ("ok", dataset.remark)
    assert "not the published data set" in report["warnings"][0]
    gone = dataset.samples("train")[0]
    gone.image_path.unlink()
    gone.label_path.unlink()
    with pytest.raises(UserError, match="1 image, but there must be 2"):
        verify(datasets.load("cityscapes", tmp_path / "root"), tmp_path / "verify.json")


def test_a_part_of_a_listed_set_needs_no_new_lists(tmp_path):
    dataset = real("camvid", "", tmp_path / "root", {"train": 3, "val": 1, "test": 2}, (12, 16))
    for sample in dataset.samples("train")[1:]:
        sample.image_path.unlink()
    for sample in dataset.samples("val"):
        sample.label_path.unlink()
    declare(dataset)
    part = datasets.load("camvid", tmp_path / "root")
    assert part.splits == {"train": 1, "val": 0, "test": 2}
    assert verify(part, tmp_path / "verify.json")["status"] == "ok"
    assert part.fingerprint()


def test_there_must_be_something_to_declare(tmp_path):
    dataset = real("ade20k", "", tmp_path / "root", {"train": 1, "val": 1}, (16, 16))
    whole = Dataset(dataset.spec.model_copy(update={"splits": {"train": 1, "val": 1}}), dataset.root)
    with pytest.raises(UserError, match="nothing to declare"):
        declare(whole)
    dataset.samples("val")[0].image_path.unlink()
    with pytest.raises(UserError, match="no labelled image in val"):
        declare(datasets.load("ade20k", tmp_path / "root"))


@pytest.mark.parametrize("text", ["", "[]", '{"splits": 3}', '{"splits": {}, "size": "x"}'])
def test_a_damaged_declaration_is_named(tmp_path, text):
    (tmp_path / AS_IS).write_text(text)
    dataset = datasets.load("ade20k", tmp_path)  # its facts can still be asked for
    with pytest.raises(UserError, match=r"as_is\.json is damaged"):
        dataset.folder()
    assert "as_is.json is damaged" in datasets.missing("ade20k", tmp_path)


def test_records_of_a_part_say_so(tmp_path):
    from harness.evaluation.external_predictions import score_predictions
    from harness.experiment.run import Run

    declare(real("camvid", "", tmp_path / "root", {"train": 1, "val": 1, "test": 1}, (12, 16)))
    part = datasets.load("camvid", tmp_path / "root")
    (tmp_path / "predictions").mkdir()
    sample = part.samples("test")[0]
    label = part.read_label(sample)
    cv2.imwrite(str(tmp_path / "predictions" / f"{sample.id}.png"), np.where(label == 255, 0, label))
    run = Run("external", "camvid", "external", "theirs", 0)
    score_predictions(tmp_path / "predictions", part, results=tmp_path / "results", run=run)
    record = json.loads((run.folder(tmp_path / "results") / "record.json").read_text())
    assert record["data_remark"] == part.remark
