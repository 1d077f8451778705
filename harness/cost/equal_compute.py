"""Equal compute: ratios of measured step times, by which one arm trains as long as another."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

import numpy as np
import torch
import yaml

from harness import datasets
from harness.compute import atomic
from harness.compute.machine import Machine
from harness.cost import records
from harness.cost.arms import LEARNING_RATE, fill_memories
from harness.cost.conditions import conditions, settings
from harness.cost.timing import Plan, Timings, Work, take_turns
from harness.errors import UserError
from harness.experiment.schema import Experiment
from harness.training.samples import batches, training_images, training_samples
from harness.training.trainer import Trainer

GPU_PLAN = Plan(rounds=12, settle=1, block=5, seconds=2)
CPU_PLAN = Plan(warmup_iterations=3, warmup_seconds=0, rounds=8, settle=0, block=1)
BATCHES = 4  # batches of the training data, used in turn

Ratios = dict[str, dict[str, float]]  # {arm: {DATASET/MODEL: factor on iterations}}


def measure(
    experiment: Experiment,
    machine: Machine,
    results: Path,
    *,
    roots: Mapping[str, Path] | None = None,
    weights: str = "auto",
    plan: Plan | None = None,
) -> Ratios:
    """For every arm with `compute_of`, the ratio of that other arm's step time to its own, per data set and model.

    A step is `Trainer.step` with the arm's settings (a CUDA graph if a run uses one), on preloaded batches of the
    training split, with full memory banks and without diagnostics. Reading and augmentation, which take equally long in
    both arms, are not included: the ratio of whole iterations would be closer to 1. Arms are timed in turns, and a
    ratio is the median over rounds of the ratio of mean step times. Writes a record for each pair to
    `results`/cost/equal_compute. Raises UserError if there is no such arm, if a method is active only in a part of the
    schedule, and for missing data.
    """
    wanted = {name: arm.compute_of for name, arm in experiment.arms.items() if arm.compute_of is not None}
    if not wanted:
        raise UserError(f"no arm of {experiment.name} has compute_of, so there is nothing to measure")
    for name in wanted.values():
        if experiment.arms[name].ends_at != 1:
            raise UserError(
                f"arms.{name} has ends_at, so its steps do not all take the same time: leave one of both out"
            )
    timed = list(dict.fromkeys([*wanted.values(), *wanted]))
    alone = {name: experiment.arms[name].model_copy(update={"compute_of": None}) for name in timed}
    steps = experiment.model_copy(update={"arms": experiment.arms | alone})
    device = machine.use()
    plan = plan or (GPU_PLAN if device.type == "cuda" else CPU_PLAN)
    found: Ratios = {name: {} for name in wanted}
    for dataset, model in experiment.pairs():
        root = datasets.resolve_root(dataset, (roots or {}).get(dataset, experiment.roots.get(dataset)), results)
        started, before = datetime.now(UTC).isoformat(timespec="seconds"), conditions(device)
        work = {arm: _step(steps, dataset, model, arm, root, device, weights, machine.graphs) for arm in timed}
        timings = take_turns(work, device, plan, f"equal compute {dataset} {model}")
        for arm, target in wanted.items():
            found[arm][f"{dataset}/{model}"] = ratio(timings, target, arm)
        schedule = experiment.schedule_of(dataset, model)
        content = {
            "setting": {"dataset": dataset, "model": model, "schedule": schedule.model_dump(mode="json")},
            "ratios": {arm: found[arm][f"{dataset}/{model}"] for arm in wanted},
            "plan": asdict(plan),
            "torch": settings(device),
            "conditions": {"before": before, "after": conditions(device)},
            "started": started,
        }
        arms = {arm: {"settings": _settings(steps, dataset, model, arm)} for arm in timed}
        records.write(results, "equal_compute", f"{experiment.name}-{dataset}-{model}", device, content, arms, timings)
    return found


def ratio(timings: Timings, above: str, below: str) -> float:
    """The median over rounds of mean time of `above` / mean time of `below`."""
    means = [timings.nanoseconds[arm].mean(axis=1) for arm in (above, below)]
    return float(np.median(means[0] / means[1]))


def fill_in(path: Path, ratios: Ratios) -> None:
    """Write the `compute_ratio` of these arms into the experiment file `path` and leave the rest unchanged.

    Raises UserError for an arm that is not a mapping with `compute_of` in the file.
    """
    text = path.read_text(encoding="utf-8")
    document = yaml.compose(text, Loader=yaml.SafeLoader)
    edits: list[tuple[int, int, str]] = []
    for arm, measured in ratios.items():
        node = _child(_child(document, "arms"), arm)
        named, old = _child(node, "compute_of"), _child(node, "compute_ratio")
        if not isinstance(node, yaml.MappingNode) or named is None:
            raise UserError(f"{path}: arms.{arm} must have the key compute_of in this file")
        written = "{" + ", ".join(f"{pair}: {value:.4g}" for pair, value in measured.items()) + "}"
        if old is not None:
            end = old.start_mark.index + len(text[old.start_mark.index : old.end_mark.index].rstrip())
            edits.append((old.start_mark.index, end, written))
        else:
            place = named.end_mark.index
            between = ", " if node.flow_style else "\n" + " " * node.start_mark.column
            edits.append((place, place, f"{between}compute_ratio: {written}"))
    for start, end, written in sorted(edits, reverse=True):
        text = text[:start] + written + text[end:]
    atomic.write_text(path, text)


def _child(node: yaml.Node | None, key: str) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for name, value in pairs if name.value == key), None)


def _settings(experiment: Experiment, dataset: str, model: str, arm: str) -> dict[str, object]:
    return experiment.settings(experiment.run(dataset, model, arm, experiment.seeds[0]))


def _step(
    experiment: Experiment,
    dataset: str,
    model: str,
    arm: str,
    root: Path,
    device: torch.device,
    weights: str,
    graphs: bool,
) -> Work:
    """A function that runs one training step of an arm."""
    data = datasets.load(dataset, root)
    trainer = Trainer(_settings(experiment, dataset, model, arm), len(data.classes), device, weights, graphs)
    fill_memories(trainer.method)
    keyed = training_samples(
        data, training_images(data, trainer.schedule), trainer.schedule, trainer.seed, trainer.network.pad_value
    )
    ready = cycle([(images.to(device), labels.to(device)) for images, labels in batches(keyed, 0, BATCHES, 0)])
    after = trainer.starts_at, trainer.starts_at + 1
    iteration = next((i for i in after if not trainer.observes(i)), trainer.starts_at)

    def step() -> None:
        trainer.step(*next(ready), iteration, LEARNING_RATE)

    return step
