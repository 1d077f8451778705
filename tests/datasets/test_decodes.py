"""How often files are decoded for a training sample."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from harness.datasets import augmentation
from harness.datasets.augmentation import Augmentation
from harness.datasets.cache import open_cache
from harness.datasets.dataset import Dataset
from harness.training.samples import TrainingSamples


@pytest.fixture
def one_class(tree: Dataset) -> Dataset:
    """The tree with labels of a single class, so that every crop of them is drawn again ten times."""
    for sample in tree.samples("train"):
        cv2.imwrite(str(sample.label_path), np.full((10, 12), 3, np.uint8))
    return tree


@pytest.mark.parametrize(("kind", "decodes_a_draw"), [(None, 2), ("ram", 0), ("disk", 0)])
def test_a_class_balanced_crop_decodes_image_and_label_once_or_never(
    one_class: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str | None, decodes_a_draw: int
) -> None:
    counted = {"decodes": 0, "crops": 0}
    imdecode, draw = cv2.imdecode, Augmentation._any_corner

    def decode(*arguments: object) -> object:
        counted["decodes"] += 1
        return imdecode(*arguments)

    def crop(self: Augmentation, size: tuple[int, int], rng: np.random.RandomState) -> tuple[int, int]:
        counted["crops"] += 1
        return draw(self, size, rng)

    samples = one_class.samples("train")
    reader = open_cache(one_class, samples, kind, tmp_path)
    keyed = TrainingSamples(reader, samples, Augmentation((6, 6), cat_max_ratio=0.75), seed=0, batch=4)
    monkeypatch.setattr(cv2, "imdecode", decode)
    monkeypatch.setattr(Augmentation, "_any_corner", crop)
    for iteration in range(5):
        for slot in range(4):
            keyed[iteration, slot]
    assert counted == {"decodes": 20 * decodes_a_draw, "crops": 20 * (1 + augmentation.CROPS)}
