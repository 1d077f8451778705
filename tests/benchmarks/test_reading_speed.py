"""Training samples a second on one core, beside mmsegmentation's own data set and pipeline on the same files.

Run with `CAMVID_ROOT=... pytest tests/benchmarks/test_reading_speed.py --benchmark-enable -s`. Needed are 1.5 times as
many with the decoded cache. Time is the processor's, which other work on the machine lengthens little. Both draw the
same augmentation: random resize, a crop with cat_max_ratio 0.75, flip and photometric distortion; ours also pads and
makes tensors, as the training loop needs them.
"""

import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from harness.datasets import load
from harness.datasets.augmentation import Augmentation
from harness.datasets.cache import open_cache
from harness.datasets.dataset import Dataset
from harness.experiment import Photometric
from harness.training.samples import TrainingSamples

CROP, SCALE, FLIP, CAT_MAX_RATIO = (360, 480), (0.5, 2.0), 0.5, 0.75  # of config/camvid.yaml
SAMPLES = 100


@pytest.fixture
def camvid():
    if "CAMVID_ROOT" not in os.environ:
        pytest.skip("set CAMVID_ROOT to a CamVid folder (480x360, 11 classes) to run this")
    return load("camvid", Path(os.environ["CAMVID_ROOT"]))


@pytest.fixture
def one_core():
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    yield
    cv2.setNumThreads(threads[0])
    torch.set_num_threads(threads[1])


def of_mmsegmentation(camvid: Dataset):
    """mmsegmentation's data set of the training images, with its usual pipeline."""
    from mmseg.datasets import BaseSegDataset
    from mmseg.utils import register_all_modules

    register_all_modules()
    first = camvid.samples("train")[0]
    return BaseSegDataset(
        metainfo={"classes": camvid.classes, "palette": [list(color) for color in camvid.colors]},
        data_root=str(camvid.folder()),
        data_prefix={"img_path": first.image_path.parent.name, "seg_map_path": first.label_path.parent.name},
        img_suffix=first.image_path.suffix,
        seg_map_suffix=first.label_path.suffix,
        pipeline=[
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations"},
            {"type": "RandomResize", "scale": (480, 360), "ratio_range": SCALE, "keep_ratio": True},
            {"type": "mmseg.RandomCrop", "crop_size": CROP, "cat_max_ratio": CAT_MAX_RATIO},
            {"type": "RandomFlip", "prob": FLIP},
            {"type": "mmseg.PhotoMetricDistortion", **Photometric().model_dump()},
        ],
    )


def seconds(draw):
    start = time.process_time()
    for index in range(SAMPLES):
        draw(index)
    return time.process_time() - start


@pytest.mark.parametrize("kind", ["ram", "disk", None], ids=["decoded_in_memory", "decoded_on_disk", "from_files"])
def test_reading_speed(benchmark, request, camvid, one_core, tmp_path, kind):
    if not request.config.getoption("benchmark_enable"):
        pytest.skip("a measurement: run with --benchmark-enable")
    samples = camvid.samples("train")
    reader = open_cache(camvid, samples, kind, tmp_path)
    augmentation = Augmentation(CROP, SCALE, FLIP, Photometric().model_dump(), CAT_MAX_RATIO)
    ours = TrainingSamples(reader, samples, augmentation, seed=0, batch=1)
    theirs = of_mmsegmentation(camvid)
    assert len(theirs) == len(samples)

    np.random.seed(0)  # noqa: NPY002
    mine, others = [], []  # in turns, since a machine's speed changes

    def both():
        others.append(seconds(lambda index: theirs[index]))
        mine.append(seconds(lambda index: ours[index, 0]))

    benchmark.pedantic(both, rounds=5, warmup_rounds=1)
    per_second, their_per_second = (SAMPLES / float(np.median(taken[1:])) for taken in (mine, others))
    ratio = per_second / their_per_second
    benchmark.extra_info["images a second on one core"] = round(per_second)
    benchmark.extra_info["mmsegmentation"] = round(their_per_second)
    benchmark.extra_info["times as many"] = round(ratio, 2)
    print(f"\n{per_second:.0f} images/s a core, mmsegmentation {their_per_second:.0f}: {ratio:.2f} times as many")
