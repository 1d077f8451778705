"""Training cost of methods relative to the baseline: time per step and peak memory."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor

from harness import datasets
from harness.compute.energy import EnergyMeter
from harness.compute.machine import Machine
from harness.config import size_name
from harness.cost import records
from harness.cost.arms import LABELS, LEARNING_RATE, arm_names, generated_batch, schedule, trainer
from harness.cost.complexity import parameters
from harness.cost.conditions import conditions, settings
from harness.cost.latency import Precision, fast_convolutions
from harness.cost.memory import held_bytes, peak_bytes
from harness.cost.timing import Plan, Work, take_turns
from harness.errors import unknown
from harness.training.trainer import Trainer

GPU_PLAN = Plan(rounds=20, settle=1, block=5, seconds=10)
CPU_PLAN = Plan(warmup_iterations=4, rounds=20, settle=0, block=1)


def measure_overhead(
    model: str,
    size: tuple[int, int],
    machine: Machine,
    results: Path,
    *,
    dataset: str = "cityscapes",
    batch: int = 8,
    baseline: str = "cross_entropy",
    methods: Sequence[str] | None = None,
    precision: Precision = "float32",
    channels_last: bool = True,
    rounds: int | None = None,
    plan: Plan | None = None,
) -> Path:
    """Time training steps with every method on the same inputs; returns the record's path.

    size: (height, width) of the crops. methods: default all, with default options and full memory banks. rounds:
    default the plan's. A step is `Trainer.step`: forward, losses, backward, optimiser. Inputs are `generated_batch`'s.
    The network is untrained, so nearly every pixel is misclassified, the worst case for methods that sample these. The
    record's peak_bytes are parameters, buffers, optimiser state and the memory that the step adds. Raises UserError for
    unknown names.
    """
    if precision not in get_args(Precision):
        raise unknown("precision", precision, get_args(Precision))
    names = arm_names(baseline, methods)
    num_classes = len(datasets.load(dataset).classes)
    device = machine.use()
    plan = plan or (GPU_PLAN if device.type == "cuda" else CPU_PLAN)
    plan = replace(plan, rounds=rounds or plan.rounds)
    given = schedule(batch, size, precision, channels_last)
    inputs = [tensor.to(device) for tensor in generated_batch(num_classes, batch, size)]
    trainers = {name: trainer(model, name, num_classes, device, given) for name in names}
    work: dict[str, Work] = {name: partial(_Steps(each), *inputs) for name, each in trainers.items()}
    parts = [model, dataset, size_name(size), f"batch{batch}", precision] + ["channels_last"] * channels_last
    name = "-".join(parts + ([] if device.type == "cuda" else [f"{torch.get_num_threads()}threads"]))
    started, before = datetime.now(UTC).isoformat(timespec="seconds"), conditions(device)
    with fast_convolutions(device):
        torch_settings = settings(device)
        with EnergyMeter(device) as energy:
            timings = take_turns(work, device, plan, f"training cost {name}")
        arms = {}
        for arm, each in trainers.items():
            each.optimizer.zero_grad(set_to_none=True)
            arms[arm] = {
                "parameters": parameters(each.network) + parameters(each.method),
                "peak_bytes": held_bytes(_state(each)) + peak_bytes(work[arm], device),
            }
    content = {
        "setting": {"model": model, "dataset": dataset, "size": size, "batch": batch, "precision": precision}
        | {"channels_last": channels_last},
        "labels": LABELS,
        "baseline": baseline,
        "plan": asdict(plan),
        "torch": torch_settings,
        "conditions": {"before": before, "after": conditions(device)},
        "energy_joules": energy.joules(),
        "energy_seconds": energy.seconds,
        "started": started,
    }
    return records.write(results, "training", name, device, content, arms, timings)


class _Steps:
    """Consecutive steps of a trainer; every arm draws the same random numbers in its n-th step."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.iteration = trainer, 0

    def __call__(self, images: Tensor, labels: Tensor) -> None:
        self.trainer.step(images, labels, self.iteration, LEARNING_RATE)
        self.iteration += 1


def _state(trainer: Trainer) -> Iterator[Tensor]:
    """Tensors that persist between steps, without gradients."""
    for module in (trainer.network, trainer.method):
        yield from module.parameters()
        yield from module.buffers()
    for state in trainer.optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, Tensor))
