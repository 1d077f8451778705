"""The pieces of `make bench-gpu`: arms timed in turns on one device, so that disturbances affect all of them alike."""

import gc
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu_record import Measured, Piece
from harness import datasets, models
from harness.compute.machine import Machine
from harness.compute.provenance import provenance
from harness.cost.arms import LEARNING_RATE, generated_batch, schedule, trainer
from harness.cost.conditions import device_folder, machine_name
from harness.cost.equivalence import FEWEST_ROUNDS, ratio
from harness.cost.latency import measure_latency
from harness.cost.timing import Plan, Work, take_turns
from harness.datasets.dataset import Dataset
from harness.evaluation.evaluate import measure, ready
from harness.evaluation.pipeline import counting
from harness.evaluation.record import count_pair
from harness.experiment import discovery
from harness.experiment.schema import Experiment
from harness.models.compiled import require_compiler
from harness.models.inference import predict
from harness.models.segmenter import Segmenter
from harness.training.train import train
from harness.training.trainer import Trainer

BASELINE = "cross_entropy"
FIRST_METHODS = ("contextrast", "multiscale_contrast", "pixel_contrast")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class Setting:
    """A training setting: crops of `size` (height, width), for a data set of `num_classes` classes."""

    model: str
    size: tuple[int, int]
    batch: int
    num_classes: int


@dataclass(frozen=True)
class Sizes:
    """The sizes of all measurements."""

    small: Setting
    large: Setting
    matrix: int  # rows and columns in the floors' matrix product
    copied: int  # bytes in the floors' copy
    images: int  # number of evaluated images
    scaled_images: int  # with several scales
    slow_images: int  # one at a time
    iterations: int  # of a whole training
    log_every: int
    steps: Plan
    latency: Plan
    latency_size: tuple[int, int]


FULL = Sizes(
    small=Setting("lite0_fpn", (360, 480), 16, 11),
    large=Setting("hrnet_w48", (512, 1024), 8, 19),
    matrix=8192,
    copied=2**31,
    images=192,
    scaled_images=64,
    slow_images=16,
    iterations=240,
    log_every=20,
    steps=Plan(warmup_iterations=4, warmup_seconds=0.1, rounds=7, settle=1, block=3),
    latency=Plan(warmup_iterations=10, warmup_seconds=0.3, rounds=20, settle=2, block=10),
    latency_size=(512, 1024),
)
TINY = Sizes(
    small=Setting("hrnet_tiny", (64, 64), 2, 11),
    large=Setting("lite0_fpn", (64, 64), 2, 19),
    matrix=128,
    copied=2**20,
    images=4,
    scaled_images=1,
    slow_images=1,
    iterations=4,
    log_every=1,
    steps=Plan(warmup_iterations=2, warmup_seconds=0.0, rounds=FEWEST_ROUNDS, settle=0, block=1),
    latency=Plan(warmup_iterations=2, warmup_seconds=0.0, rounds=FEWEST_ROUNDS, settle=0, block=1),
    latency_size=(64, 64),
)


class Bench:
    """The pieces on a device; on "cpu" at tiny sizes."""

    def __init__(self, device: str, results: Path) -> None:
        self.machine = Machine(device, alone=True)
        self.device = self.machine.use()
        self.machine.hasten(self.device)
        self.sizes = FULL if self.device.type == "cuda" else TINY
        self.results = results
        self.path = results / "cost" / "gpu" / f"{device_folder(self.device)}.json"
        self._provenance = provenance(str(self.device))
        self._work_folder = tempfile.TemporaryDirectory(prefix="bench-gpu-")

    @property
    def commit(self) -> str | None:
        """The commit of the code."""
        found = self._provenance["commit"]
        return None if found is None else str(found)

    def head(self) -> dict[str, Any]:
        """The record's entries about the machine."""
        return {"machine": machine_name(self.device), "provenance": self._provenance}

    def pieces(self) -> list[Piece]:
        """All pieces, the most valuable first."""
        small, large = self.sizes.small, self.sizes.large
        others = [name for name in discovery.names() if name not in (BASELINE, *FIRST_METHODS)]
        again: Sequence[str] = FIRST_METHODS
        if self.device.type != "cuda":  # a dry run tries every kind of piece, not every method
            others, again = [], FIRST_METHODS[:1]
        # The first piece of a network and precision takes longer, since cuDNN benchmarks its algorithms.
        found = [Piece("floors", 3, self.floors)]
        found.append(self._step(small, "float32"))
        found.append(Piece(f"loop/{small.model}", 25, partial(self.loop, small)))
        found.append(self._evaluate(small, "whole", 12))
        found.append(self._evaluate(large, "ms_flip", 20))
        found.append(self._step(large, "float32"))
        found += [self._method(setting, name, "float32") for setting in (large, small) for name in FIRST_METHODS]
        found += [self._latency(large, precision, ["contextrast"], 25) for precision in PRECISIONS]
        found += [self._step(setting, "bfloat16") for setting in (large, small)]
        found += [self._method(small, name, "float32") for name in others]
        found.append(self._evaluate(small, "ms_flip", 12))
        found.append(self._evaluate(large, "whole", 12))
        found += [self._method(large, name, "float32") for name in others]
        found.append(Piece(f"loop/{large.model}", 45, partial(self.loop, large)))
        found += [self._method(setting, name, "bfloat16") for setting in (large, small) for name in again]
        if self.device.type == "cuda":  # compiling for a processor takes minutes
            found += [self._compiled(setting, "bfloat16") for setting in (large, small)]
        return [replace(piece, measure=partial(_with_room, piece.measure)) for piece in found]

    # Each piece in turn.

    def floors(self) -> Measured:
        """The device's peak rates: bytes per second of a copy, FLOPs per second of a matrix product."""
        size = self.sizes.matrix
        source = torch.zeros(self.sizes.copied, dtype=torch.uint8, device=self.device)
        goal = torch.empty_like(source)
        work: dict[str, Work] = {"copy": lambda: goal.copy_(source)}
        rates = {"copy": 2 * self.sizes.copied}  # read and written
        for name, dtype, precision in (
            ("float32", torch.float32, "highest"),
            ("tf32", torch.float32, "high"),
            ("bfloat16", torch.bfloat16, "highest"),
        ):
            work[name] = partial(_product, torch.ones(size, size, dtype=dtype, device=self.device), precision)
            rates[name] = 2 * size**3
        timings = take_turns(work, self.device, self.sizes.steps, "floors")
        seconds = {name: float(np.median(each)) / 1e9 for name, each in timings.nanoseconds.items()}
        return {name: rates[name] / seconds[name] for name in work} | {"bytes": self.sizes.copied, "matrix": size}

    def step(self, setting: Setting, precision: str) -> Measured:
        """A training step with cross entropy, ours compared with mmengine's train_step of the same network."""
        ours, theirs = self._trainer(setting, BASELINE, precision), self._mmengine(setting, precision)
        arms: dict[str, Work] = {"mmengine": theirs, "harness": _Steps(ours, *self._batch(setting))}
        return self._in_turns(arms, "mmengine") | {"setting": _described(setting, precision)}

    def method(self, setting: Setting, name: str, precision: str) -> Measured:
        """A training step with a method over one with cross entropy, with labels as in street scenes."""
        batch = self._batch(setting)
        arms = {each: _Steps(self._trainer(setting, each, precision), *batch) for each in (BASELINE, name)}
        return self._in_turns(arms, BASELINE) | {"setting": _described(setting, precision)}

    def compiled(self, setting: Setting, precision: str) -> Measured:
        """A training step of cross entropy with `schedule.compile` over one without."""
        require_compiler(self.device)
        batch = self._batch(setting)
        arms = {
            name: _Steps(self._trainer(setting, BASELINE, precision, compiled=name == "compiled"), *batch)
            for name in ("plain", "compiled")
        }
        return self._in_turns(arms, "plain") | {"setting": _described(setting, precision)}

    def loop(self, setting: Setting) -> Measured:
        """Time per iteration of a whole training as in the workflow, including reading, over the bare step."""
        sizes, dataset = self.sizes, self._dataset()
        overrides = [f"datasets=[{dataset.name}]", f"models=[{setting.model}_scratch]", "arms={cross_entropy: {}}"]
        overrides += ["baseline=cross_entropy", f"schedule.crop=[{setting.size[0]}, {setting.size[1]}]"]
        overrides += [f"schedule.batch={setting.batch}", f"schedule.iterations={sizes.iterations}"]
        overrides += [f"schedule.log_every={sizes.log_every}", "schedule.checkpoint_every=1000000"]
        if f"{setting.model}_scratch" not in models.names():
            overrides[1] = f"models=[{setting.model}]"
        experiment = Experiment.load(Path("config/camvid.yaml"), overrides)
        run = experiment.run(dataset.name, experiment.models[0], BASELINE, 0)
        folder = Path(self._work_folder.name)
        record = train(experiment, run, folder, self.machine, root=dataset.folder(), weights="none", restart=True)
        if record.status != "done":
            raise RuntimeError(f"the training ended as {record.status}: {record.reason}")
        curve = np.genfromtxt(run.folder(folder) / "curve.csv", delimiter=",", names=True)
        middle = len(curve) // 2  # before it, readers start, cuDNN benchmarks and steps are captured
        spent = float(curve["seconds"][-1] - curve["seconds"][middle])
        whole = spent / float(curve["iteration"][-1] - curve["iteration"][middle])
        schedule_of_run = experiment.schedule_of(run.dataset, run.model, run.arm).model_dump(mode="json")
        schedule_of_run["log_every"] = schedule_of_run["checkpoint_every"]  # so that no step computes diagnostics
        settings: dict[str, Any] = {
            "model": run.model,
            "method": BASELINE,
            "options": discovery.options(BASELINE),
            "seed": 0,
        }
        settings["schedule"] = schedule_of_run
        made = Trainer(settings, len(dataset.classes), self.device, "none", self.machine.graphs)
        steps = _Steps(made, *self._batch(replace(setting, num_classes=len(dataset.classes))))
        bare = self._wall_clock(steps, 2 * sizes.log_every)
        return {"dataset": dataset.name, "loop_ms": 1e3 * whole, "bare_ms": 1e3 * bare, "ratio": whole / bare}

    def evaluate(self, setting: Setting, protocol: str) -> Measured:
        """Milliseconds per image of an evaluation, compared with one image at a time and counting in four threads."""
        dataset = self._dataset()
        network = ready(models.build(setting.model, len(dataset.classes), weights="none"), self.device)
        number = self.sizes.images if protocol == "whole" else self.sizes.scaled_images
        several, few = _Part(dataset, number), _Part(dataset, self.sizes.slow_images)
        with counting(self.device) as counters:
            work = partial(measure, network, several, [protocol], None, counters)  # type: ignore[arg-type]
            work()  # warm-up: libraries choose their algorithms, and files are read from disk
            ours = _seconds(work)
        _one_at_a_time(network, few, protocol)
        theirs = _seconds(partial(_one_at_a_time, network, few, protocol))
        here, plainly = 1e3 * ours / len(several), 1e3 * theirs / len(few)
        return {"dataset": dataset.name, "images": len(several), "ms": here, "plain_ms": plainly} | {
            "ratio": plainly / here
        }

    def latency(self, setting: Setting, precision: str, methods: list[str]) -> Measured:
        """Latency of one image: the baseline compared with itself and with methods, as a graph and called normally."""
        modes = ["graph", "single_stream"] if self.device.type == "cuda" else ["single_stream"]
        keys: dict[str, Any] = {"precision": precision, "modes": modes, "methods": methods}
        place = Path(self._work_folder.name) / "latency"
        paths = measure_latency(
            setting.model, self.sizes.latency_size, self.machine, place, **keys, plan=self.sizes.latency
        )
        found: Measured = {}
        for mode, path in zip(modes, paths, strict=True):
            record = json.loads(path.read_text(encoding="utf-8"))
            samples = {name: np.array(arm["nanoseconds"]) for name, arm in record["arms"].items()}
            base = samples.pop(record["baseline"])
            found[mode] = {"ms": float(np.median(base)) / 1e6} | {
                ("again" if name == record["control"] else name): _interval(each, base)
                for name, each in samples.items()
            }
        return found

    # Their parts.

    def _step(self, setting: Setting, precision: str) -> Piece:
        seconds = 30 if setting is self.sizes.small else 40
        return Piece(f"step/{setting.model}/{precision}", seconds, partial(self.step, setting, precision))

    def _method(self, setting: Setting, name: str, precision: str) -> Piece:
        seconds = 5 if setting is self.sizes.small else 12
        return Piece(
            f"method/{setting.model}/{precision}/{name}", seconds, partial(self.method, setting, name, precision)
        )

    def _compiled(self, setting: Setting, precision: str) -> Piece:
        return Piece(f"compiled/{setting.model}/{precision}", 90, partial(self.compiled, setting, precision))

    def _evaluate(self, setting: Setting, protocol: str, seconds: float) -> Piece:
        return Piece(f"evaluate/{setting.model}/{protocol}", seconds, partial(self.evaluate, setting, protocol))

    def _latency(self, setting: Setting, precision: str, methods: list[str], seconds: float) -> Piece:
        return Piece(
            f"latency/{setting.model}/{precision}", seconds, partial(self.latency, setting, precision, methods)
        )

    def _in_turns(self, arms: Mapping[str, Work], baseline: str) -> Measured:
        """{"ms": {arm: median}, "ratio": the other arm over the baseline} of arms timed in turns."""
        timings = take_turns(arms, self.device, self.sizes.steps, " and ".join(arms))
        base = timings.nanoseconds[baseline]
        found: Measured = {"ms": {name: float(np.median(each)) / 1e6 for name, each in timings.nanoseconds.items()}}
        found["warm_up_seconds"] = {name: state["seconds"] for name, state in timings.warmup.items()}
        for name, each in timings.nanoseconds.items():
            if name != baseline:
                found["ratio"] = _interval(each, base)
        return found

    def _trainer(self, setting: Setting, method: str, precision: str, compiled: bool = False) -> Trainer:
        given = schedule(setting.batch, setting.size, precision, channels_last=True)
        given = given.model_copy(update={"compile": compiled})
        return trainer(setting.model, method, setting.num_classes, self.device, given, self.machine.graphs)

    @cache  # noqa: B019  # one bench a process
    def _batch(self, setting: Setting) -> tuple[Tensor, Tensor]:
        images, labels = generated_batch(setting.num_classes, setting.batch, setting.size)
        return images.to(self.device), labels.to(self.device)

    def _mmengine(self, setting: Setting, precision: str) -> Work:
        """The train_step of an mmengine model with its optimiser wrapper, with the images already on the device.

        In NCHW, as in mmsegmentation's configurations; mmsegmentation's accuracy of every batch is left out.
        """
        from mmengine.model import BaseModel
        from mmengine.optim import AmpOptimWrapper, OptimWrapper

        network = models.build(setting.model, setting.num_classes, weights="none")

        class Theirs(BaseModel):  # type: ignore[misc]  # mmengine has no types
            def __init__(self) -> None:
                super().__init__()
                self.network = network

            def forward(self, inputs: Tensor, data_samples: Tensor, mode: str) -> dict[str, Tensor]:
                logits, auxiliary = self.network.decode(self.network.features(inputs))
                weights = [1.0, *self.network.auxiliary_weights()]
                return {
                    f"loss_{place}": weight * _plain_cross_entropy(each, data_samples, self.network.align_corners)
                    for place, (weight, each) in enumerate(zip(weights, [logits, *auxiliary], strict=True))
                }

        model = Theirs().to(self.device).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=0.9, weight_decay=5e-4)
        if precision == "bfloat16" and self.device.type == "cuda":
            wrapper = AmpOptimWrapper(dtype="bfloat16", optimizer=optimizer)
        else:
            wrapper = OptimWrapper(optimizer=optimizer)
        images, labels = self._batch(setting)
        return partial(model.train_step, {"inputs": images.contiguous(), "data_samples": labels.long()}, wrapper)

    def _dataset(self) -> Dataset:
        """CamVid if CAMVID_ROOT is set, otherwise the rendered scenes."""
        name = "camvid" if "CAMVID_ROOT" in os.environ else "scenes"
        found = datasets.load(name, datasets.resolve_root(name, None, Path(self._work_folder.name)))
        datasets.prepare(found)
        return found

    def _wall_clock(self, work: Callable[[], object], count: int) -> float:
        """Wall-clock seconds per call, over `count` calls."""
        for _ in range(min(5, count)):
            work()
        _wait(self.device)
        start = time.perf_counter()
        for _ in range(count):
            work()
        _wait(self.device)
        return (time.perf_counter() - start) / count


class _Steps:
    """Consecutive steps of a trainer on one batch."""

    def __init__(self, made: Trainer, images: Tensor, labels: Tensor) -> None:
        self.made, self.images, self.labels, self.iteration = made, images, labels, 0

    def __call__(self) -> None:
        self.made.step(self.images, self.labels, self.iteration, LEARNING_RATE)
        self.iteration += 1


class _Part:
    """A data set with only the first `number` images of its evaluation split."""

    def __init__(self, dataset: Dataset, number: int) -> None:
        self._dataset = dataset
        self._samples = dataset.samples(dataset.evaluation_split)[:number]

    def __len__(self) -> int:
        return len(self._samples)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._dataset, name)

    def samples(self, split: str) -> list[Any]:
        """The samples, whatever the split."""
        return list(self._samples)


def _described(setting: Setting, precision: str) -> dict[str, Any]:
    return {"model": setting.model, "size": setting.size, "batch": setting.batch, "precision": precision}


def _one_at_a_time(network: Segmenter, part: _Part, protocol: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        pending = []
        for sample in part.samples(""):
            image, label = part.read(sample)
            pending.append(pool.submit(count_pair, predict(network, image, protocol), label, network.num_classes))
        for future in pending:
            future.result()


def _plain_cross_entropy(logits: Tensor, labels: Tensor, align_corners: bool) -> Tensor:
    resized = F.interpolate(logits.float(), labels.shape[-2:], mode="bilinear", align_corners=align_corners)
    return F.cross_entropy(resized, labels, ignore_index=datasets.IGNORE_INDEX)


def _product(matrix: Tensor, precision: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    torch.mm(matrix, matrix)
    torch.set_float32_matmul_precision(before)


def _interval(arm: np.ndarray, base: np.ndarray) -> list[float]:
    """Ratio, low and high of the 90 % interval."""
    found = ratio(arm, base)
    return [found.value, found.low, found.high]


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _with_room(measure: Callable[[], Measured]) -> Measured:
    """Measure after freeing an earlier piece's memory; captured steps keep theirs until then."""
    _free()
    return measure()


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
