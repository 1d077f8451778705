"""Against stand-ins for the parts of detectron2 that are used, written after its documentation of catalogs and
evaluators; with the real detectron2 where it is installed."""

import importlib
import sys
from collections import UserDict
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from harness import datasets
from harness.datasets.images import read_label
from harness.errors import UserError

NAME = "contextrast_bench_tiny_test"


class DatasetCatalog(UserDict):
    def register(self, name, function):
        assert callable(function)
        assert name not in self.data, "registered already"
        self.data[name] = function

    def get(self, name):
        return self.data[name]()

    def list(self):
        return list(self.data)

    def remove(self, name):
        del self.data[name]


class Metadata(SimpleNamespace):
    def set(self, **values):
        for key, value in values.items():
            assert getattr(self, key, value) == value, "metadata cannot change"
            setattr(self, key, value)
        return self


class MetadataCatalog(UserDict):
    def get(self, name):
        return self.data.setdefault(name, Metadata(name=name))


class DatasetEvaluator:
    pass


class SemSegEvaluator(DatasetEvaluator):
    """detectron2's evaluator, with figures that are given. It says itself whether it computes boundary IoU."""

    _compute_boundary_iou: bool | None = True

    def __init__(self, name, distributed=True):
        self.name, self.distributed, self.images = name, distributed, 0

    def reset(self):
        self.images = 0

    def process(self, inputs, outputs):
        self.images += len(inputs)

    def evaluate(self):
        assert self.images == 3
        boundary = {"BoundaryIoU-Sky": 30.0, "BoundaryIoU-Building": np.nan, "BoundaryIoU-Pole": 40.0}
        return {"sem_seg": {"mIoU": 1.0, **boundary}}


@pytest.fixture
def interop(monkeypatch):
    """harness.interop.detectron2, imported with the stand-ins in detectron2's place."""
    modules = {name: ModuleType(name) for name in ("detectron2", "detectron2.data", "detectron2.evaluation")}
    modules["detectron2.utils"] = ModuleType("detectron2.utils")
    modules["detectron2.data"].DatasetCatalog = DatasetCatalog()
    modules["detectron2.data"].MetadataCatalog = MetadataCatalog()
    modules["detectron2.evaluation"].DatasetEvaluator = DatasetEvaluator
    modules["detectron2.evaluation"].SemSegEvaluator = SemSegEvaluator
    modules["detectron2.utils"].comm = SimpleNamespace(
        synchronize=lambda: None, gather=lambda data: [data], is_main_process=lambda: True
    )
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "harness.interop.detectron2", raising=False)
    yield importlib.import_module("harness.interop.detectron2")
    sys.modules.pop("harness.interop.detectron2", None)


@pytest.fixture
def registered(interop, tiny_data, tmp_path):
    interop.register({"tiny": tiny_data}, results=tmp_path / "results")
    return interop


def logits(labels, classes=3):
    """Logits [K, H, W] whose argmax is `labels`."""
    return torch.from_numpy(np.eye(classes, dtype=np.float32)[labels]).permute(2, 0, 1) + 0.25


def predictions(listed, seed=0):
    draw = np.random.default_rng(seed)
    return [draw.integers(0, 3, (each["height"], each["width"])) for each in listed]


def run(evaluator, listed, maps):
    """What detectron2's inference_on_dataset does: batches of one."""
    evaluator.reset()
    for each, labels in zip(listed, maps, strict=True):
        evaluator.process([{"file_name": each["file_name"]}], [{"sem_seg": logits(labels)}])
    return evaluator.evaluate()


def test_every_split_of_every_data_set_is_registered_without_reading_anything(interop, monkeypatch):
    for name in datasets.names():
        monkeypatch.delenv(datasets.load(name).root_variable, raising=False)
    expected = [
        f"contextrast_bench_{name}_{split}" for name in datasets.names() for split in datasets.load(name).splits
    ]
    assert {"contextrast_bench_camvid_test", "contextrast_bench_cityscapes_val"} <= set(expected)
    assert interop.register() == expected
    assert interop.DatasetCatalog.list() == expected
    metadata = interop.MetadataCatalog.get("contextrast_bench_cityscapes_val")
    assert metadata.stuff_classes[:2] == ["road", "sidewalk"]
    assert metadata.stuff_colors[:2] == [[128, 64, 128], [244, 35, 232]]
    assert (metadata.ignore_label, metadata.evaluator_type) == (255, "sem_seg")
    with pytest.raises(UserError, match="CITYSCAPES_ROOT"):
        interop.DatasetCatalog.get("contextrast_bench_cityscapes_val")


def test_registering_again_takes_the_new_root(registered, tiny_data, tmp_path):
    (tmp_path / "other").mkdir()
    registered.register({"tiny": tmp_path / "other"})
    with pytest.raises(UserError, match="other"):
        registered.DatasetCatalog.get(NAME)
    registered.register({"tiny": tiny_data}, results=tmp_path / "results")
    assert len(registered.DatasetCatalog.get(NAME)) == 3


def test_a_listing_names_images_and_labels_in_train_ids(registered, tiny_data):
    dataset = datasets.load("tiny", tiny_data)
    listed = registered.DatasetCatalog.get(NAME)
    assert [each["image_id"] for each in listed] == ["test_0", "test_1", "test_2"]
    for each, sample in zip(listed, dataset.samples("test"), strict=True):
        assert each.keys() == {"file_name", "sem_seg_file_name", "image_id", "height", "width"}
        assert Path(each["file_name"]) == sample.image_path
        assert (each["height"], each["width"]) == (32, 48)
        stored = read_label(Path(each["sem_seg_file_name"]))
        assert (stored == dataset.read_label(sample)).all()
        assert set(np.unique(stored)) == {0, 1, 2, 255}  # the files of the data set hold 11 for 255


def test_labels_are_written_once_and_anew_when_they_change(registered, tiny_data):
    first = registered.DatasetCatalog.get(NAME)
    times = [Path(each["sem_seg_file_name"]).stat().st_mtime_ns for each in first]
    again = registered.DatasetCatalog.get(NAME)
    assert again == first
    assert [Path(each["sem_seg_file_name"]).stat().st_mtime_ns for each in again] == times
    cv2.imwrite(str(tiny_data / "testannot" / "test_1.png"), np.full((32, 48), 2, np.uint8))
    changed = registered.DatasetCatalog.get(NAME)
    assert (read_label(Path(changed[1]["sem_seg_file_name"])) == 2).all()
    assert not (read_label(Path(first[1]["sem_seg_file_name"])) == 2).all()


def test_the_scores_are_those_of_the_same_maps_scored_from_a_folder(registered, tiny_data, tmp_path):
    from harness.evaluation.external_predictions import score_predictions

    listed = registered.DatasetCatalog.get(NAME)
    evaluator = registered.Evaluator(NAME, tmp_path / "maps")
    assert isinstance(evaluator, DatasetEvaluator)
    found = run(evaluator, listed, predictions(listed))["sem_seg"]
    expected = score_predictions(tmp_path / "maps", datasets.load("tiny", tiny_data), encoding="train_ids")
    flat = expected["scores"] | {
        f"{metric}-{name}": value for metric, values in expected["per_class"].items() for name, value in values.items()
    }
    np.testing.assert_equal(found, {metric: np.nan if value is None else value for metric, value in flat.items()})
    assert found["miou"] < 50

    # The same by hand, over all pixels that are not ignored.
    true = np.concatenate([read_label(Path(each["sem_seg_file_name"])).ravel() for each in listed])
    guess = np.concatenate([labels.ravel() for labels in predictions(listed)])[true != 255]
    true = true[true != 255]
    iou = [100 * np.sum((true == c) & (guess == c)) / np.sum((true == c) | (guess == c)) for c in range(3)]
    assert found["miou"] == pytest.approx(np.mean(iou), rel=1e-12)


def test_a_perfect_model_scores_100_and_undefined_figures_are_nan(registered):
    listed = registered.DatasetCatalog.get(NAME)
    maps = [np.minimum(read_label(Path(each["sem_seg_file_name"])), 2) for each in listed]
    found = run(registered.Evaluator(NAME), listed, maps)["sem_seg"]
    assert found["miou"] == found["boundary_miou@3px"] == found["iou-Sky"] == 100
    assert all(isinstance(value, float) for value in found.values())
    assert {value for value in found.values() if not np.isnan(value)} == {100.0}


def test_a_new_round_forgets_the_last(registered):
    listed = registered.DatasetCatalog.get(NAME)
    evaluator = registered.Evaluator(NAME)
    first = run(evaluator, listed, predictions(listed, 0))
    run(evaluator, listed, predictions(listed, 1))
    np.testing.assert_equal(run(evaluator, listed, predictions(listed, 0)), first)


def test_images_that_were_not_predicted_are_no_score(registered):
    listed = registered.DatasetCatalog.get(NAME)
    with pytest.raises(UserError, match=r"test_1 of contextrast_bench_tiny_test was not predicted \(2 of 3"):
        run(registered.Evaluator(NAME), listed[:1], predictions(listed[:1]))


@pytest.mark.parametrize(
    ("shape", "classes", "words"),
    [((31, 48), 3, "48x31 pixels and the label 48x32"), ((32, 48), 5, r"train ids 0\.\.2")],
)
def test_a_prediction_that_does_not_fit_is_refused_by_name(registered, shape, classes, words):
    each = registered.DatasetCatalog.get(NAME)[0]
    evaluator = registered.Evaluator(NAME)
    with pytest.raises(UserError, match=rf"test_0\.png: .*{words}"):
        evaluator.process([each], [{"sem_seg": logits(np.full(shape, classes - 1), classes)}])


def test_processes_are_merged_on_the_main_one(registered, monkeypatch):
    listed = registered.DatasetCatalog.get(NAME)
    maps = predictions(listed)
    alone = run(registered.Evaluator(NAME), listed, maps)
    shards = []
    for part in (slice(0, 2), slice(2, 3)):
        evaluator = registered.Evaluator(NAME)
        for each, labels in zip(listed[part], maps[part], strict=True):
            evaluator.process([each], [{"sem_seg": logits(labels)}])
        monkeypatch.setattr(registered.comm, "gather", lambda data: shards.append(data) or [])
        monkeypatch.setattr(registered.comm, "is_main_process", lambda: False)
        assert evaluator.evaluate() is None
    monkeypatch.setattr(registered.comm, "gather", lambda data: shards)
    monkeypatch.setattr(registered.comm, "is_main_process", lambda: True)
    np.testing.assert_equal(evaluator.evaluate(), alone)


def test_detectron2s_own_boundary_figure_has_a_name_of_its_own_and_is_asked_for(registered):
    listed = registered.DatasetCatalog.get(NAME)
    plain = run(registered.Evaluator(NAME), listed, predictions(listed))["sem_seg"]
    with_theirs = run(registered.Evaluator(NAME, detectron2_boundary_iou=True), listed, predictions(listed))["sem_seg"]
    assert with_theirs.pop("detectron2_boundary_iou") == 35  # the mean over the classes that have one
    np.testing.assert_equal(with_theirs, plain)
    assert not any("BoundaryIoU" in metric or metric == "mIoU" for metric in plain)


@pytest.mark.parametrize("computes", [False, None])
def test_a_detectron2_without_boundary_iou_says_so_before_anything_is_predicted(registered, monkeypatch, computes):
    monkeypatch.setattr(SemSegEvaluator, "_compute_boundary_iou", computes)
    if computes is None:  # release 0.6 has no such attribute
        monkeypatch.delattr(SemSegEvaluator, "_compute_boundary_iou")
    with pytest.raises(UserError, match="OpenCV" if computes is False else "build it from source"):
        registered.Evaluator(NAME, detectron2_boundary_iou=True)
    registered.Evaluator(NAME)


class Broken:
    """Finds a detectron2 whose import fails as it does beside a torchvision that doesn't fit torch."""

    def find_spec(self, name, *_):
        if name == "detectron2":
            raise RuntimeError("operator torchvision::nms does not exist")


@pytest.mark.parametrize("module", ["harness.interop.detectron2", "harness.interop.detectron2_methods"])
@pytest.mark.parametrize("reason", ["absent", "torchvision::nms"])
def test_without_detectron2_the_import_says_what_is_missing(monkeypatch, module, reason):
    for name in [name for name in sys.modules if name.split(".")[0] == "detectron2"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, module, raising=False)
    if reason == "absent":
        monkeypatch.setitem(sys.modules, "detectron2", None)
    else:
        monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(ImportError, match=r"needs detectron2 .*docs/other-frameworks\.md") as caught:
        importlib.import_module(module)
    assert reason == "absent" or reason in str(caught.value)


def test_the_real_detectron2_lists_and_scores_a_data_set(tiny_data, tmp_path):
    try:
        from detectron2.data import DatasetCatalog as Catalog
        from detectron2.data import MetadataCatalog as Described
        from detectron2.evaluation import SemSegEvaluator as Theirs
        from detectron2.evaluation import inference_on_dataset
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"detectron2 does not import here, the stand-ins above are all that is tested: {error}")
    from harness.evaluation.external_predictions import score_predictions
    from harness.interop.detectron2 import Evaluator, register

    register({"tiny": tiny_data}, results=tmp_path)
    listed = Catalog.get(NAME)
    maps = {each["file_name"]: np.minimum(read_label(Path(each["sem_seg_file_name"])), 2) for each in listed}

    class Perfect(torch.nn.Module):
        def forward(self, batch):
            return [{"sem_seg": logits(maps[each["file_name"]])} for each in batch]

    found = inference_on_dataset(Perfect(), [[each] for each in listed], Evaluator(NAME, detectron2_boundary_iou=True))
    assert found["sem_seg"]["miou"] == 100
    assert 0 < found["sem_seg"]["detectron2_boundary_iou"] <= 100

    # The stand-ins do what these do: the same calls, keys and refusals.
    assert (DatasetEvaluator.__name__, SemSegEvaluator.__name__) == (Theirs.__mro__[1].__name__, Theirs.__name__)
    with pytest.raises(AssertionError, match="registered"):
        Catalog.register(NAME, list)
    with pytest.raises(AssertionError):
        Described.get(NAME).set(ignore_label=0)

    # Its own scores of other maps, and the file that it writes, scored here.
    maps = {each["file_name"]: labels for each, labels in zip(listed, predictions(listed), strict=True)}
    evaluator = Evaluator(NAME)
    ours = inference_on_dataset(Perfect(), [[each] for each in listed], evaluator)["sem_seg"]
    theirs = inference_on_dataset(
        Perfect(), [[each] for each in listed], Theirs(NAME, distributed=False, output_dir=str(tmp_path / "theirs"))
    )["sem_seg"]
    for metric, key in (("miou", "mIoU"), ("fwiou", "fwIoU"), ("mean_accuracy", "mACC"), ("pixel_accuracy", "pACC")):
        assert ours[metric] == pytest.approx(theirs[key], rel=1e-12)
    scored = score_predictions(tmp_path / "theirs", datasets.load("tiny", tiny_data))
    assert scored["scores"]["miou"] == pytest.approx(theirs["mIoU"], rel=1e-12)
