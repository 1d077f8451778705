"""Training samples per second on one core, compared with mmsegmentation's data set and pipeline on the same files.

Needs CAMVID_ROOT. The goal with the decoded cache is 1.5 times as many. Times are CPU time, which other programs hardly
affect. Both apply the same augmentation (random resize, a crop with cat_max_ratio 0.75, flip and photometric
distortion) and make tensors; ours also pads. With augmentation on a GPU, the CPU only draws the random numbers and
sends the decoded images if they are not on the GPU yet.
"""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from mmsegmentation_data import training_set

from harness.datasets import load
from harness.datasets.augmentation import Augmentation
from harness.datasets.cache import open_cache
from harness.experiment.schema import Experiment
from harness.training.device_samples import DeviceSamples
from harness.training.samples import TrainingSamples

SAMPLES = 100


@pytest.fixture
def camvid():
    if "CAMVID_ROOT" not in os.environ:
        pytest.skip("set CAMVID_ROOT to a CamVid folder (480x360, 11 classes) to run this")
    return load("camvid", Path(os.environ["CAMVID_ROOT"]))


def seconds(draw):
    start = time.process_time()
    for index in range(SAMPLES):
        draw(index)
    return time.process_time() - start


@pytest.mark.parametrize("kind", ["ram", "disk", None], ids=["decoded_in_memory", "decoded_on_disk", "from_files"])
def test_reading_speed(benchmark, repository, camvid, one_core, tmp_path, kind):
    samples = camvid.samples("train")
    reader = open_cache(camvid, samples, kind, tmp_path)
    schedule = Experiment.load(repository / "config" / "camvid.yaml").schedule
    augmentation = Augmentation(schedule.crop, schedule.scale, schedule.flip, schedule.photometric.model_dump())
    ours = TrainingSamples(reader, samples, augmentation, seed=0, batch=1)
    compare(benchmark, camvid, schedule, lambda index: ours[index, 0])


@pytest.mark.parametrize("room", [1e9, 0], ids=["decoded_on_the_gpu", "sent_to_the_gpu"])
def test_what_the_processor_does_for_a_gpu(benchmark, repository, camvid, one_core, tmp_path, room):
    samples = camvid.samples("train")
    schedule = Experiment.load(repository / "config" / "camvid.yaml").schedule
    augmentation = Augmentation(schedule.crop, schedule.scale, schedule.flip, schedule.photometric.model_dump())
    keyed = TrainingSamples(open_cache(camvid, samples, "disk", tmp_path), samples, augmentation, seed=0, batch=1)
    ours = DeviceSamples(camvid, keyed, torch.device("cpu"), room)
    compare(benchmark, camvid, schedule, ours.draw)


def compare(benchmark, camvid, schedule, draw):
    """Compare the samples per second of `draw(index)` with mmsegmentation's."""
    theirs = training_set(camvid, schedule)
    assert len(theirs) == len(camvid.samples("train"))
    np.random.seed(0)  # noqa: NPY002
    mine, others = [], []  # in turns, since a machine's speed changes

    def both():
        others.append(seconds(lambda index: theirs[index]))
        mine.append(seconds(draw))

    benchmark.pedantic(both, rounds=5, warmup_rounds=1)
    per_second, their_per_second = (SAMPLES / float(np.median(taken[1:])) for taken in (mine, others))
    ratio = per_second / their_per_second
    benchmark.extra_info["images a second on one core"] = round(per_second)
    benchmark.extra_info["mmsegmentation"] = round(their_per_second)
    benchmark.extra_info["times as many"] = round(ratio, 2)
    print(f"\n{per_second:.0f} images/s a core, mmsegmentation {their_per_second:.0f}: {ratio:.2f} times as many")
