"""Keys that appear twice are refused wherever the project reads YAML."""

from pathlib import Path

import pytest

from harness import datasets, models
from harness.datasets.spec import read_specs
from harness.errors import UserError


def test_a_data_set_refuses_a_key_that_appears_twice(tmp_path: Path) -> None:
    path = tmp_path / "camvid.yaml"
    path.write_text((datasets.FOLDER / "camvid.yaml").read_text() + "evaluation_split: train\n")
    with pytest.raises(UserError, match=r"camvid\.yaml.*'evaluation_split' appears twice"):
        read_specs(path)


def test_a_model_refuses_a_key_that_appears_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (models.FOLDER / "hrnet_tiny.yaml").read_text()
    (tmp_path / "hrnet_tiny.yaml").write_text(text + "taps: {channels: [1], strides: [1]}\n")
    monkeypatch.setattr(models, "FOLDER", tmp_path)
    with pytest.raises(UserError, match=r"hrnet_tiny\.yaml.*'taps' appears twice"):
        models.load_spec("hrnet_tiny")
