"""The Python interface: its examples, its figures against independent ones, and its refusals."""

import doctest

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import binary_erosion

import harness
import methods
from harness import api
from harness.errors import UserError
from harness.experiment import discovery


@pytest.mark.parametrize("module", [api, methods])
def test_the_examples_are_true(module, monkeypatch, repository):
    monkeypatch.chdir(repository)
    found = doctest.testmod(module)
    assert found.attempted > 4 and found.failed == 0


def drawn(seed, size=(40, 50), classes=4):
    generator = np.random.default_rng(seed)
    small = generator.integers(0, classes, (5, 5)).astype(np.uint8)
    return cv2.resize(small, size[::-1], interpolation=cv2.INTER_NEAREST)


def band(mask, reach):
    """The pixels of a mask within `reach` of its edge, the frame included: the mask less its erosion."""
    inside = binary_erosion(np.pad(mask, reach), np.ones((2 * reach + 1,) * 2))[reach:-reach, reach:-reach]
    return mask & ~inside


def test_boundary_iou_is_that_of_eroded_masks():
    prediction, label = drawn(1), drawn(2)
    expected = []
    for number in range(4):
        one, other = band(prediction == number, 3), band(label == number, 3)
        expected.append(100 * (one & other).sum() / (one | other).sum())
    assert harness.boundary_iou(prediction, label, 4, "3px") == pytest.approx(expected, abs=1e-12)


def test_label_maps_are_scored_alike_from_arrays_and_from_folders(tmp_path):
    pairs = [(drawn(seed), drawn(seed + 10)) for seed in range(3)]
    for place, (prediction, label) in enumerate(pairs):
        for folder, values in (("predictions", prediction), ("labels", label)):
            (tmp_path / folder).mkdir(exist_ok=True)
            cv2.imwrite(str(tmp_path / folder / f"{place}.png"), values)
    by_array = harness.evaluate_label_maps(*zip(*pairs, strict=True), num_classes=4)
    assert harness.evaluate_label_maps(tmp_path / "predictions", tmp_path / "labels", num_classes=4) == by_array
    stacked = [np.stack(each) for each in zip(*pairs, strict=True)]
    ious = [
        100 * ((stacked[0] == c) & (stacked[1] == c)).sum() / ((stacked[0] == c) | (stacked[1] == c)).sum()
        for c in range(4)
    ]
    assert by_array["miou"] == pytest.approx(np.mean(ious), abs=1e-12)
    assert by_array["pixel_accuracy"] == pytest.approx(100 * (stacked[0] == stacked[1]).mean(), abs=1e-12)


def test_what_does_not_fit_is_one_sentence(tmp_path, repository):
    label = drawn(0)
    (tmp_path / "empty").mkdir()
    for call, said in (
        (lambda: harness.evaluate_label_maps([label], [], 4), "1 predictions for 0 labels"),
        (lambda: harness.evaluate_label_maps([], [], 4), "no label maps"),
        (lambda: harness.evaluate_label_maps(tmp_path, [label], 4), "two folders or two lists"),
        (lambda: harness.evaluate_label_maps([label[1:]], [label], 4), "image 0"),
        (lambda: harness.evaluate_label_maps([label], [label], 4, absent="never"), "never"),
        (lambda: harness.evaluate_label_maps(tmp_path, tmp_path / "empty", 4), "holds no PNG"),
        (lambda: harness.boundary_iou(label, label, 4, "wide"), "wide"),
        (lambda: harness.load_records(tmp_path), "holds no record.json"),
        (lambda: harness.compare(repository / "config" / "quick.yaml", metric="miuo"), "did you mean miou"),
        (lambda: harness.compare(repository / "config" / "quick.yaml", baseline="none"), "unknown arm"),
    ):
        with pytest.raises(UserError, match=said):
            call()


def test_records_and_comparisons_are_those_of_the_committed_tables(repository, monkeypatch):
    monkeypatch.chdir(repository)
    results = "results/reference/h100"
    runs = harness.load_records(results)
    miou = runs[(runs.experiment == "camvid-small") & (runs.metric == "miou") & (runs.protocol == "whole")]
    table = harness.compare("camvid-small", results)
    table = table[(table.model == "lite0_fpn") & (table.protocol == "whole")].set_index("arm")
    means = miou[miou.model == "lite0_fpn"].groupby("arm").score.mean()
    for arm in table.index:
        assert table["mean"][arm] == pytest.approx(means[arm], abs=1e-9)
    written = pd.read_csv(f"{results}/reports/camvid-small/tables/miou.csv")
    written = written[(written.model == "lite0_fpn") & (written.protocol == "whole")].set_index("arm")
    for column in ("mean", "gain", "low", "high"):
        assert table[column].to_numpy() == pytest.approx(written[column].reindex(table.index).to_numpy(), nan_ok=True)


def test_the_functions_are_completed_in_a_notebook():
    assert set(harness.__all__) <= set(dir(harness))


def test_every_method_is_a_loss_that_can_be_imported_by_its_class():
    for name in discovery.names():
        assert getattr(methods, discovery.load(name).__name__) is discovery.load(name)
    assert issubclass(methods.PixelContrast, torch.nn.Module)
    with pytest.raises(ImportError):
        from methods import NoSuchMethod  # noqa: F401
