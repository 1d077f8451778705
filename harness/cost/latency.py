"""Latency of every method's inference network (metrics.md, section Cost)."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from harness import datasets
from harness.compute.energy import EnergyMeter
from harness.compute.machine import Machine
from harness.config import size_name
from harness.cost import records
from harness.cost.arms import arm_names, inference_network
from harness.cost.complexity import flops, parameters
from harness.cost.conditions import conditions, settings
from harness.cost.memory import peak_bytes
from harness.cost.timing import Plan, Work, take_turns
from harness.errors import UserError, unknown
from harness.models.segmenter import Segmenter

Precision = Literal["float32", "bfloat16"]
# graph: one image, replayed as a CUDA graph, without kernel launches by the host, which vary far more than kernels.
# single_stream: one image, called normally. offline: the largest batch that fits, on a CPU 8.
MODES = ("graph", "single_stream", "offline")
CPU_BATCH = 8  # of the mode offline
LARGEST_BATCH = 1024
# Every arm gets at least 200 iterations and 10 s on a GPU, 150 and 2 s in graph mode, 30 and 5 s on a CPU.
GPU_PLAN = Plan(rounds=20, settle=2, block=10, seconds=10)
GRAPH_PLAN = Plan(rounds=30, settle=1, block=5, seconds=2)  # replayed kernels vary by 0.1 %, not 10 %
CPU_PLAN = Plan(rounds=30, settle=1, block=1, seconds=5)
CONTROL = " (again)"  # a second network of the baseline (A/A control)


@dataclass(frozen=True)
class Setting:
    """The timed setting, which also determines the record's name."""

    model: str
    dataset: str  # determines the number of classes
    size: tuple[int, int]  # height and width of the images and label maps, in pixels
    mode: str  # of MODES
    batch: int
    precision: Precision = "float32"
    channels_last: bool = False
    compiled: bool = False  # by torch.compile

    def name(self, threads: int | None) -> str:
        """The record's file name without suffix; threads: on a CPU."""
        parts = [self.model, self.dataset, size_name(self.size), self.mode, f"batch{self.batch}", self.precision]
        parts += ["channels_last"] * self.channels_last + ["compiled"] * self.compiled
        return "-".join(parts + ([] if threads is None else [f"{threads}threads"]))


def measure_latency(
    model: str,
    size: tuple[int, int],
    machine: Machine,
    results: Path,
    *,
    dataset: str = "cityscapes",
    modes: Sequence[str] | None = None,
    baseline: str = "cross_entropy",
    methods: Sequence[str] | None = None,
    batch: int | None = None,
    precision: Precision = "float32",
    channels_last: bool = False,
    compiled: bool = False,
    plan: Plan | None = None,
) -> list[Path]:
    """Time every method's inference network; returns the paths of the records, one per mode.

    size: (height, width) of images and label maps. modes: of `MODES`, default all that the device supports. methods:
    default all. batch: for the mode offline; default the largest power of two that fits, on a CPU 8. Each arm has its
    own `inference_network`; the baseline has two. Nothing else should run on the machine.

    Raises UserError for unknown names, if even one image does not fit, and for the mode graph on a CPU.
    """
    for kind, given, allowed in (("mode", modes or (), MODES), ("precision", [precision], get_args(Precision))):
        for name in given:
            if name not in allowed:
                raise unknown(kind, name, allowed)
    names = arm_names(baseline, methods)
    num_classes = len(datasets.load(dataset).classes)
    device = machine.use()
    if device.type != "cuda" and "graph" in (modes or ()):
        raise UserError("the mode graph replays a CUDA graph and needs a GPU: leave --mode graph out here")
    modes = modes or [mode for mode in MODES if mode != "graph" or device.type == "cuda"]
    arms = {baseline: baseline, baseline + CONTROL: baseline} | {name: name for name in names}
    networks = {arm: inference_network(model, method, num_classes) for arm, method in arms.items()}
    costs = {arm: _cost(network, size) for arm, network in networks.items()}
    for network in networks.values():
        network.to(device, torch.bfloat16 if precision == "bfloat16" else torch.float32)
        if channels_last:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing from torch's stubs
    paths = []
    for mode in modes:
        images = batch or _offline_batch(networks, size, device) if mode == "offline" else 1
        setting = Setting(model, dataset, size, mode, images, precision, channels_last, compiled)
        usual = GRAPH_PLAN if mode == "graph" else GPU_PLAN if device.type == "cuda" else CPU_PLAN
        paths.append(_measure(setting, networks, costs, baseline, device, plan or usual, results))
    return paths


def label_maps(network: Segmenter, images: Tensor) -> Tensor:
    """The timed work, protocol `whole`: images uint8 [B, 3, H, W] -> label maps int64 [B, H, W].

    It consists of normalisation, network, bilinear resizing of the float32 logits to the images' size, and argmax.
    """
    logits = network(images).float()
    return F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=network.align_corners).argmax(1)


def recorded(work: Work) -> torch.cuda.CUDAGraph:
    """`work` captured as a CUDA graph, which replays on the same tensors.

    `work` must not synchronise or branch on values. It first runs three times on a side stream, as torch requires, so
    that libraries choose their algorithms.
    """
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph


def _cost(network: Segmenter, size: tuple[int, int]) -> dict[str, Any]:
    """Parameters and GFLOPs of a network that is still on the CPU in float32."""
    return {"parameters": parameters(network), "gflops": flops(network, torch.zeros(1, 3, *size)) / 1e9}


def _measure(
    setting: Setting,
    networks: dict[str, Segmenter],
    costs: dict[str, dict[str, Any]],
    baseline: str,
    device: torch.device,
    plan: Plan,
    results: Path,
) -> Path:
    """Time `setting` with all arms and write its record."""
    name = setting.name(None if device.type == "cuda" else torch.get_num_threads())
    images = _images(setting.batch, setting.size, device, setting.channels_last)
    predict = torch.compile(label_maps, dynamic=False) if setting.compiled else label_maps
    work: dict[str, Work] = {arm: partial(predict, network, images) for arm, network in networks.items()}
    called = work
    started, before = datetime.now(UTC).isoformat(timespec="seconds"), conditions(device)
    with torch.inference_mode(), fast_convolutions(device), _compiled_for_each(len(networks)):
        if setting.mode == "graph":
            work = {arm: recorded(step).replay for arm, step in work.items()}
        with EnergyMeter(device) as energy:
            timings = take_turns(work, device, plan, f"latency {name}")
        peaks = {arm: peak_bytes(step, device) for arm, step in called.items()}
        content = {
            "setting": asdict(setting),
            "baseline": baseline,
            "control": baseline + CONTROL,
            "plan": asdict(plan),
            "torch": settings(device),
            "conditions": {"before": before, "after": conditions(device)},
            "energy_joules": energy.joules(),
            "energy_seconds": energy.seconds,
            "started": started,
        }
    arms = {arm: costs[arm] | {"peak_bytes": peaks[arm]} for arm in networks}
    return records.write(results, "latency", name, device, content, arms, timings)


def _images(batch: int, size: tuple[int, int], device: torch.device, channels_last: bool) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8, generator=generator).to(device)
    return images.contiguous(memory_format=torch.channels_last) if channels_last else images


@torch.inference_mode()
def _offline_batch(networks: dict[str, Segmenter], size: tuple[int, int], device: torch.device) -> int:
    """`CPU_BATCH`, or on a GPU the largest power of two up to `LARGEST_BATCH` that fits for every arm."""
    if device.type != "cuda":
        return CPU_BATCH
    fitting = 0
    for batch in (2**power for power in range(LARGEST_BATCH.bit_length())):
        try:
            with fast_convolutions(device):
                for network in networks.values():
                    label_maps(network, _images(batch, size, device, False))
        except torch.OutOfMemoryError:
            break
        finally:
            torch.cuda.empty_cache()
        fitting = batch
    if not fitting:
        raise UserError(f"one image of {size_name(size)} does not fit into the GPU's memory: give a smaller --size")
    return fitting


@contextmanager
def fast_convolutions(device: torch.device) -> Iterator[None]:
    """On a GPU, let cuDNN benchmark its algorithms during the warm-up, since shapes do not change."""
    cudnn = torch.backends.cudnn
    before, cudnn.benchmark = cudnn.benchmark, device.type == "cuda"
    try:
        yield
    finally:
        cudnn.benchmark = before


def _compiled_for_each(networks: int) -> AbstractContextManager[None]:
    """Let torch compile every network; by default it compiles eight and runs the rest uncompiled."""
    import torch._dynamo

    return torch._dynamo.config.patch(recompile_limit=networks + 1, fail_on_recompile_limit_hit=True)
