"""A data set that is small enough to be written and trained on within a test."""

from pathlib import Path

import cv2
import numpy as np
import yaml

from harness import datasets


def write_tiny(folder):
    """Write the data set `tiny` below `folder`; returns its root and the folder with its description.

    In CamVid's layout: six training, two validation and three test images of 32x48 pixels. The upper half is class 0,
    bluish; the lower one is class 1, grey, with a box of class 2 and an ignored corner.
    """
    root, random = folder / "tiny", np.random.default_rng(0)
    counts = {"train": 6, "val": 2, "test": 3}
    for split, count in counts.items():
        lines = []
        for index in range(count):
            image = random.integers(0, 60, (32, 48, 3), np.uint8)
            label = np.zeros((32, 48), np.uint8)
            image[:16] += np.array([120, 60, 0], np.uint8)
            image[16:] += 90
            label[16:] = 1
            x, y = random.integers(4, 30), random.integers(4, 18)
            image[y : y + 10, x : x + 12, 2] += 90
            label[y : y + 10, x : x + 12] = 2
            label[:3, :3] = 11
            name = f"{split}_{index}.png"
            for part, content in ((split, image), (f"{split}annot", label)):
                (root / part).mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(root / part / name), content)
            lines.append(f"{split}/{name} {split}annot/{name}\n")
        (root / f"{split}.txt").write_text("".join(lines))

    described = folder / "datasets"
    described.mkdir()
    camvid = yaml.safe_load((Path(datasets.__file__).parent / "camvid.yaml").read_text())
    tiny = camvid | {"name": "tiny", "splits": counts, "class_pixels": {}, "size": None, "root_variable": "TINY_ROOT"}
    tiny["classes"] = camvid["classes"][:3]
    (described / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    return root, described
