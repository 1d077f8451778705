"""Sizes, parts of a data set, and roots that declare what they hold."""

import json
from pathlib import Path

import numpy as np
import pytest

from harness import datasets
from harness.datasets import layout_writer
from harness.datasets.as_is import declare
from harness.datasets.dataset import Dataset
from harness.datasets.declared import AS_IS, RENDERED
from harness.datasets.sizes import Sizes
from harness.datasets.spec import Spec
from harness.datasets.verify import verify
from harness.errors import UserError


def spec_of(name: str, layout: str) -> Spec:
    return next(spec for spec in datasets.load(name).specs if spec.layout.name == layout)


def real(name: str, layout: str, root: Path, counts: dict[str, int], size: tuple[int, int]) -> Dataset:
    """Rendered scenes in a root that claims to hold the real data set."""
    layout_writer.write_scenes(root, spec_of(name, layout), counts, size)
    (root / RENDERED).unlink()
    return datasets.load(name, root)


# sizes


def test_sizes_are_read_and_written() -> None:
    assert str(Sizes.of("2048x1024")) == "2048x1024"
    assert (640, 480) in Sizes.of("1x1..640x640")
    assert (480, 641) not in Sizes.of("1x1..640x640")
    assert Sizes.of("1x1..640x640").sentence() == "at most 640x640"
    assert str(Sizes.around([(512, 256), (300, 400)])) == "300x256..512x400"


@pytest.mark.parametrize("text", ["", "2048", "2048*1024", "0x5", "10x10..5x20"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        Sizes.of(text)


def test_images_of_another_size_are_refused(tmp_path: Path) -> None:
    real("cityscapes", "original", tmp_path / "root", {"train": 1, "val": 1}, (16, 32))
    specs = [spec.model_copy(update={"splits": {"train": 1, "val": 1}}) for spec in datasets.load("cityscapes").specs]
    with pytest.raises(UserError, match=r"is 32x16 .* the images of Cityscapes are 2048x1024.*--as-is"):
        verify(Dataset(specs, tmp_path / "root"), tmp_path / "verify.json")


def test_small_camvid_is_not_taken_for_full_camvid(tmp_path: Path) -> None:
    dataset = real("camvid_full", "original", tmp_path / "root", {"train": 1, "val": 1, "test": 1}, (24, 32))
    with pytest.raises(UserError):
        verify(dataset, tmp_path / "verify.json")
    report = json.loads((tmp_path / "verify.json").read_text())
    assert any("32x24" in text and "960x720" in text for text in report["examples"])


# parts


def test_a_part_is_refused_with_the_command_that_accepts_it(tmp_path: Path) -> None:
    dataset = real("ade20k", "", tmp_path / "root", {"train": 2, "val": 1}, (16, 16))
    with pytest.raises(UserError, match=f"prepare --as-is --dataset ade20k --root {tmp_path / 'root'}"):
        verify(dataset, tmp_path / "verify.json")


def test_a_declared_part_is_in_order_and_marked(tmp_path: Path) -> None:
    found = declare(real("cityscapes", "original", tmp_path / "root", {"train": 2, "val": 1}, (16, 32)))
    assert found.splits == {"train": 2, "val": 1}
    dataset = datasets.load("cityscapes", tmp_path / "root")
    assert dataset.remark == "as is: 2 train, 1 val images; 32x16"
    assert dataset.title == "Cityscapes (as is: 2 train, 1 val images; 32x16)"
    report = verify(dataset, tmp_path / "verify.json")
    assert (report["status"], report["remark"]) == ("ok", dataset.remark)
    assert "not the published data set" in report["warnings"][0]


def test_a_declared_part_that_changes_is_refused(tmp_path: Path) -> None:
    dataset = real("cityscapes", "original", tmp_path / "root", {"train": 2, "val": 1}, (16, 32))
    declare(dataset)
    gone = dataset.samples("train")[0]
    gone.image_path.unlink()
    gone.label_path.unlink()
    with pytest.raises(UserError, match="1 image in the list, but there must be 2"):
        verify(datasets.load("cityscapes", tmp_path / "root"), tmp_path / "verify.json")


def test_a_part_of_a_listed_set_needs_no_new_lists(tmp_path: Path) -> None:
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


def test_a_part_needs_images_to_train_and_to_evaluate_on(tmp_path: Path) -> None:
    dataset = real("ade20k", "", tmp_path / "root", {"train": 1, "val": 1}, (16, 16))
    dataset.samples("val")[0].image_path.unlink()
    with pytest.raises(UserError, match="no image with a label in val"):
        declare(datasets.load("ade20k", tmp_path / "root"))


def test_the_whole_set_declares_nothing(tmp_path: Path) -> None:
    real("ade20k", "", tmp_path / "root", {"train": 1, "val": 1}, (16, 16))
    spec = spec_of("ade20k", "").model_copy(update={"splits": {"train": 1, "val": 1}})
    with pytest.raises(UserError, match="nothing to declare"):
        declare(Dataset(spec, tmp_path / "root"))


@pytest.mark.parametrize("text", ["", "[]", '{"splits": 3}', '{"splits": {}, "size": "x"}'])
def test_a_damaged_declaration_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / AS_IS).write_text(text)
    with pytest.raises(UserError, match=r"as_is\.json is damaged"):
        datasets.load("ade20k", tmp_path).folder()


def test_records_of_a_part_say_so(tmp_path: Path) -> None:
    from harness.evaluation.external_predictions import score_predictions
    from harness.experiment.run import Run

    dataset = real("camvid", "", tmp_path / "root", {"train": 1, "val": 1, "test": 1}, (12, 16))
    declare(dataset)
    part = datasets.load("camvid", tmp_path / "root")
    (tmp_path / "predictions").mkdir()
    sample = part.samples("test")[0]
    label = part.read_label(sample)
    layout_writer._save(tmp_path / "predictions" / f"{sample.id}.png", np.where(label == 255, 0, label))
    run = Run("external", "camvid", "external", "theirs", 0)
    score_predictions(tmp_path / "predictions", part, results=tmp_path / "results", run=run)
    record = json.loads((run.folder(tmp_path / "results") / "record.json").read_text())
    assert record["data_remark"] == part.remark
