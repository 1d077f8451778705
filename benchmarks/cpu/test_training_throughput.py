"""Iterations per second of a whole training, compared with mmengine's Runner with the same network.

hrnet_tiny as in config/smoke.yaml, where reading and overhead matter most, and lite0_fpn as in config/camvid-small.yaml
but with batches of 4; on CamVid if CAMVID_ROOT is set, otherwise on the rendered scenes. The Runner has our network and
cross entropy, the same optimiser and schedule, float32 in channels last, its own data loader and hooks, and
mmsegmentation's data set and pipeline with our augmentation settings. Ours is the verb `train` with only cross entropy
and images from files; it also computes the gradient norm, checks for divergence and writes curves.

Both train in turns, with one thread and a new training per turn; times are from the start of one step to that of a
later one, so that start and end are excluded. The ratio is theirs over ours, of CPU time and of wall-clock time, with
the lowest and highest turn; with a worker that reads, only of wall-clock time.

A step's breakdown is measured in separate turns, as shares of CPU time: reading and augmenting; the network (forward,
cross entropy, backward, optimiser); the method's forward pass (its backward pass counts as the network's); logging; and
the rest, which moves the batch and checks the gradient.
"""

import os
import time
from collections import defaultdict
from functools import wraps

import numpy as np
import pytest
import torch
from mmsegmentation_data import training_set

from harness import datasets, models
from harness.compute.machine import Machine
from harness.cost.equivalence import FEWEST_ROUNDS, ratio
from harness.experiment.schema import Experiment
from harness.models.segmenter import Segmenter
from harness.training import loop, train
from harness.training.history import History
from harness.training.trainer import Trainer

# Model: experiment file, batch, iterations a turn, of which the first WARM_UP are left out.
CASES = {"hrnet_tiny": ("smoke", 8, 13), "lite0_fpn": ("camvid-small", 4, 8)}
WARM_UP = 2
DATASET = "camvid" if "CAMVID_ROOT" in os.environ else "scenes"
CPU = torch.device("cpu")


pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture
def case(request, repository, tmp_path):
    """The experiment of a model on the data set, and the data set."""
    file, batch, iterations = CASES[request.param]
    overrides = [f"datasets=[{DATASET}]", f"models=[{request.param}]"]
    overrides += [f"schedule.batch={batch}", f"schedule.iterations={iterations}"]
    experiment = Experiment.load(repository / "config" / f"{file}.yaml", overrides)
    dataset = datasets.load(DATASET, datasets.resolve_root(DATASET, None, tmp_path))
    datasets.prepare(dataset)
    return experiment, dataset


class Times(list):
    """Start times of steps in seconds: (CPU time, wall-clock time)."""

    def note(self):
        self.append((time.process_time(), time.perf_counter()))

    def an_iteration(self):
        """Nanoseconds per iteration: (CPU time, wall-clock time)."""
        first, last = np.array(self[WARM_UP]), np.array(self[-1])
        return 1e9 * (last - first) / (len(self) - 1 - WARM_UP)


def train_ours(experiment, dataset, folder, workers=0, arm="cross_entropy"):
    times, step = Times(), Trainer.step

    def noting(*arguments):
        times.note()
        return step(*arguments)

    run = experiment.run(DATASET, experiment.models[0], arm, 0)
    machine = Machine("cpu", workers=workers, threads=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", noting)
        record = train.train(experiment, run, folder, machine, root=dataset.root, weights="none", restart=True)
    assert (record.status, len(times)) == ("done", record.iterations)
    return times


def train_theirs(experiment, dataset, folder, workers=0):
    from mmengine.model import BaseModel
    from mmengine.runner import Runner

    schedule, times = experiment.schedule, Times()
    weights = schedule.class_weights
    class_weights = torch.tensor(weights) if weights else None

    class Theirs(BaseModel):
        def __init__(self):
            pixels = {"bgr_to_rgb": True, "size": schedule.crop, "pad_val": 0, "seg_pad_val": datasets.IGNORE_INDEX}
            super().__init__({"type": "mmseg.SegDataPreProcessor", **pixels})
            torch.manual_seed(0)
            self.network = models.build(experiment.models[0], len(dataset.classes), weights="none")
            self.network.to(memory_format=torch.channels_last)

        def train_step(self, data, optim_wrapper):
            times.note()
            return super().train_step(data, optim_wrapper)

        def forward(self, inputs, data_samples, mode):
            labels = torch.stack([sample.gt_sem_seg.data[0] for sample in data_samples]).long()
            labels[labels >= len(dataset.classes)] = datasets.IGNORE_INDEX
            images = inputs.contiguous(memory_format=torch.channels_last)
            found = self.network.losses(*self.network.decode(self.network.features(images)), labels, class_weights)
            return {f"loss_{name}": term for name, term in found.items()}

    optimizer = {"lr": schedule.learning_rate, "weight_decay": schedule.weight_decay}
    optimizer |= {"type": "SGD", "momentum": schedule.momentum} if schedule.optimizer == "sgd" else {"type": "AdamW"}
    end, warm = schedule.iterations, min(schedule.warmup, schedule.iterations)
    decay = {"type": "PolyLR", "power": schedule.power, "begin": 0, "end": end, "by_epoch": False}
    start = {"type": "LinearLR", "start_factor": 1e-6, "begin": 0, "end": warm, "by_epoch": False}
    loader = {"batch_size": schedule.batch, "num_workers": workers, "persistent_workers": workers > 0}
    runner = Runner(
        model=Theirs(),
        work_dir=str(folder),
        train_dataloader=loader
        | {"dataset": training_set(dataset, schedule), "sampler": {"type": "InfiniteSampler", "shuffle": True}},
        train_cfg={"type": "IterBasedTrainLoop", "max_iters": end},
        optim_wrapper={"type": "OptimWrapper", "optimizer": optimizer},
        param_scheduler=[start, decay],
        default_hooks={
            "logger": {"type": "LoggerHook", "interval": schedule.log_every, "log_metric_by_epoch": False},
            "checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": schedule.checkpoint_every},
        },
        log_processor={"by_epoch": False},
        default_scope="mmseg",
        randomness={"seed": 0},
        experiment_name=f"turn{time.monotonic_ns()}",  # mmengine keeps a logger for every name
        log_level="WARNING",
    )
    runner.train()
    assert len(times) == end
    return times


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("case", CASES, indirect=True)
def test_training_throughput(benchmark, case, tmp_path, workers):
    if workers and case[0].models == ["lite0_fpn"]:
        pytest.skip("reading is a small part of its step")
    mine, others = [], []

    def both():
        others.append(train_theirs(*case, tmp_path / "theirs", workers).an_iteration())
        mine.append(train_ours(*case, tmp_path / "ours", workers).an_iteration())

    benchmark.pedantic(both, rounds=FEWEST_ROUNDS)
    for column, name in enumerate(("processor's time", "wall clock")[workers:], start=workers):
        theirs, ours = (np.array(taken)[:, column : column + 1] for taken in (others, mine))
        found = ratio(theirs, ours)
        benchmark.extra_info[f"iterations a second over mmengine's, {name}"] = round(found.value, 3)
        benchmark.extra_info[f"{name}, of the turns"] = f"{found.low:.3f} to {found.high:.3f}"
        benchmark.extra_info[f"{name}, ms an iteration"] = round(float(np.median(ours)) / 1e6, 1)
    print(f"\n{case[0].models[0]} on {DATASET}, {workers} workers: {benchmark.extra_info}")


@pytest.mark.parametrize("case", CASES, indirect=True)
@pytest.mark.parametrize("arm", ["cross_entropy", "contextrast"])
def test_where_a_step_goes(benchmark, case, tmp_path, monkeypatch, arm):
    spent = defaultdict(float)

    def clocked(part, function):
        @wraps(function)
        def timed(*arguments, **options):
            start = time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                spent[part] += time.process_time() - start

        return timed

    def reading(*arguments):
        following = clocked("reading", iter(batches(*arguments)).__next__)
        while True:
            try:
                yield following()
            except StopIteration:
                return

    batches = loop.batches
    monkeypatch.setattr(loop, "batches", reading)
    kind = torch.optim.SGD if case[0].schedule.optimizer == "sgd" else torch.optim.AdamW
    for part, owner, name in (
        *(("network", Segmenter, name) for name in ("features", "decode", "losses")),
        ("network", torch.Tensor, "backward"),
        ("network", kind, "step"),
        ("method", Trainer, "_method_terms"),
        ("logging", History, "add"),
        ("logging", loop.Job, "_log"),
    ):
        monkeypatch.setattr(owner, name, clocked(part, getattr(owner, name)))
    seconds = []

    def turn():
        times = train_ours(*case, tmp_path / "ours", arm=arm)
        seconds.append(times[-1][0] - times[0][0])

    benchmark.pedantic(turn, rounds=1)
    steps = case[0].schedule.iterations
    whole = seconds[0] * steps / (steps - 1)  # the last step's end is not noted
    shares = {part: taken / whole for part, taken in spent.items()}
    shares["rest"] = max(0.0, 1 - sum(shares.values()))
    for part in ("network", "reading", "method", "logging", "rest"):
        benchmark.extra_info[f"{part}, % of a step"] = round(100 * shares[part], 1)
    print(f"\n{case[0].models[0]} with {arm}: {benchmark.extra_info}")
