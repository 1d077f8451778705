import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from harness.datasets.dataset import Dataset
from harness.datasets.spec import read_specs

YAML = Path(__file__).parents[2] / "harness" / "datasets" / "camvid.yaml"
COUNTS = {"train": 3, "val": 2, "test": 4}


@pytest.fixture
def camvid_root() -> Path:
    if "CAMVID_ROOT" not in os.environ:
        pytest.skip("set CAMVID_ROOT to a CamVid folder (480x360, 11 classes) to run this")
    return Path(os.environ["CAMVID_ROOT"])


@pytest.fixture
def make_tree() -> Callable[..., Dataset]:
    """Writes a CamVid-like tree of random noise, 12x10 pixels: NAME.png or .jpg, labels 0..11."""

    def make(root: Path, suffix: str = ".png", prefix: str = "", seed: int = 0) -> Dataset:
        rng = np.random.default_rng(seed)
        for split, count in COUNTS.items():
            lines = []
            for folder in (split, f"{split}annot"):
                (root / folder).mkdir(parents=True)
            for index in range(count):
                name = f"Seq{index % 2}_{split}{index:03d}"
                cv2.imwrite(str(root / split / f"{name}{suffix}"), rng.integers(0, 256, (10, 12, 3), dtype=np.uint8))
                cv2.imwrite(str(root / f"{split}annot" / f"{name}.png"), rng.integers(0, 12, (10, 12), dtype=np.uint8))
                lines.append(f"{prefix}{split}/{name}.png {prefix}{split}annot/{name}.png\n")
            (root / f"{split}.txt").write_text("".join(lines))
        spec = read_specs(YAML)[0].model_copy(update={"splits": COUNTS, "class_pixels": {}, "size": None})
        return Dataset(spec, root)

    return make


@pytest.fixture
def tree(tmp_path: Path, make_tree: Callable[..., Dataset]) -> Dataset:
    return make_tree(tmp_path / "camvid")
