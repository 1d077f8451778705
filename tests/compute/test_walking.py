"""Linked folders are searched, and links that lead back end."""

from pathlib import Path

import numpy as np
import pytest

from harness.compute.walking import files_below
from harness.datasets import Sample
from harness.datasets.augmentation import Augmentation
from harness.errors import UserError
from harness.evaluation.external_predictions import find_predictions


def test_files_in_linked_folders_are_found_once(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "deep" / "a.png").touch()
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(root)
    assert [path.relative_to(root).as_posix() for path in files_below(root)] == ["link/deep/a.png"]


def test_predictions_in_linked_folders_are_found(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.PNG").touch()
    (tmp_path / "predictions").mkdir()
    (tmp_path / "predictions" / "city").symlink_to(tmp_path / "real")
    found = find_predictions(tmp_path / "predictions", [Sample(Path("a.jpg"), Path("a.png"), "a")])
    assert found == [tmp_path / "predictions" / "city" / "a.PNG"]


def test_a_scale_that_leaves_no_pixel_is_named() -> None:
    augment = Augmentation((4, 4), scale=(0.01, 0.01), photometric=None)
    with pytest.raises(UserError, match=r"schedule\.scale .* 16x8"):
        augment(np.zeros((8, 16, 3), np.uint8), np.zeros((8, 16), np.uint8), (0,))
