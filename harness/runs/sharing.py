"""How many runs should share a GPU: as many as fit its memory, unless measurements say that fewer are faster."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from harness.compute import devices
from harness.errors import UserError
from harness.experiment.schema import Experiment
from harness.runs import planning
from harness.runs.planning import PlannedRun, Times

# Without the multi-process service, runs on a GPU take turns; each needs a core to feed it.
MOST = 4
CONTEXT_BYTES = 1 << 30  # of CUDA and its libraries, per process
ROOM = 0.9  # share of a GPU's memory to fill
WORTH = 1.05  # measured gain in throughput from which sharing is proposed


@dataclass(frozen=True)
class Proposal:
    """How many `runs` should share a GPU.

    need: bytes of the largest run, None if one is unknown; `measured`: whether all were measured. gain: throughput of
    `runs` runs on one GPU, divided by that of one alone; None if not measured.
    """

    runs: int
    need: int | None
    measured: bool
    gain: float | None


def propose(rows: Sequence[PlannedRun], memory: int, cores: int, times: Times | None = None) -> Proposal:
    """The proposal for the remaining runs. memory: bytes of each GPU. cores: per GPU. times: `planning.times`."""
    needs = [row.gpu_bytes for row in rows]
    measured = bool(rows) and all(row.gpu_bytes_measured for row in rows)
    known = [need for need in needs if need is not None]
    if not memory or not needs or len(known) < len(needs):
        return Proposal(1, None, False, None)
    fitting = max(1, min(int(ROOM * memory / (max(known) + CONTEXT_BYTES)), MOST, cores))
    gains = measured_gains(times or {})
    tried = {number: gain for number, gain in gains.items() if number <= fitting}
    if tried and fitting in gains:  # else a larger number than was tried may be better
        fitting = max(tried, key=lambda number: tried[number])
        fitting = fitting if tried[fitting] >= WORTH else 1
    return Proposal(fitting, max(known), measured, gains.get(fitting) if fitting > 1 else None)


def cores_each(gpus: int) -> int:
    """Processor cores of this machine for each of its GPUs."""
    return max(1, devices.cores() // gpus)


def measured_gains(times: Times) -> dict[int, float]:
    """{runs on a GPU: throughput divided by that of one run alone}, the median over settings, methods and devices."""
    found: dict[int, list[float]] = defaultdict(list)
    for methods in times.values():
        for entries in methods.values():
            by_place: dict[tuple[str, int], list[float]] = defaultdict(list)
            for entry in entries:
                if entry.gpu:
                    by_place[entry.device, entry.sharers].append(entry.seconds)
            for (device, sharers), seconds in by_place.items():
                if sharers > 1 and (alone := by_place.get((device, 1))):
                    found[sharers].append(sharers * median(alone) / median(seconds))
    return {number: median(gains) for number, gains in found.items()}


def describe(proposal: Proposal, hours: float) -> str:
    """A line for the plan: how many runs share a GPU, why, and how many of the GPU `hours` that saves."""
    if proposal.need is None:
        return "runs on one GPU at a time: 1, since the memory of some runs is not known"
    by = "measured" if proposal.measured else "estimated; measure before you share"
    line = f"runs on one GPU at a time: {proposal.runs} (the largest takes {proposal.need / 1e9:.1f} GB, {by})"
    if proposal.runs == 1:
        return line
    if proposal.gain is None:
        return f"{line}; what sharing saves is not measured yet"
    saved = hours * (1 - 1 / proposal.gain)
    return (
        f"{line}; {proposal.gain:.2f} times the iterations of one alone, measured: {saved:.1f} of {hours:.1f} h saved"
    )


def settled(asked: str, experiment: Experiment, results: Path) -> int:
    """How many runs of an experiment share a GPU of this machine, for the workflow.

    `CONTEXTRAST_BENCH_SHARE` if it is set, else `asked`: a number, or "auto" for what `propose` says if the memory of
    all remaining runs was measured, and 1 if not. Raises UserError for anything else.
    """
    if os.environ.get(devices.SHARE):
        return devices.share()
    if asked != "auto":
        if not asked.isdecimal() or int(asked) < 1:
            raise UserError(f"share={asked}: give auto, or the number of runs that may be on a GPU at a time")
        return int(asked)
    if not (gpus := devices.visible()):
        return 1
    left = [row for row in planning.plan(experiment, results, on_gpu=True) if row.status in planning.TO_TRAIN]
    found = propose(left, devices.memory(gpus), cores_each(len(gpus)), planning.times(results))
    return found.runs if found.measured else 1
