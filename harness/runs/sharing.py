"""How many runs one GPU should hold at a time: as many as its memory takes and as measurements say is of use."""

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

# Small networks leave room, but unless a multi-process service runs they take turns, and each needs a core to feed it.
MOST = 4
CONTEXT_BYTES = 1 << 30  # of CUDA and its libraries, a process
ROOM = 0.9  # of a GPU's memory that runs are packed into
WORTH = 1.05  # times the iterations an hour: what sharing must be measured to give


@dataclass(frozen=True)
class Proposal:
    """How many `runs` a GPU should hold at a time.

    need: bytes of the run that needs most, None where that is not known of every run; `measured`: whether it was
    measured of every run. gain: how many times the iterations in the same time `runs` of them were measured to make on
    one GPU, over one alone; None where that was not measured.
    """

    runs: int
    need: int | None
    measured: bool
    gain: float | None


def propose(rows: Sequence[PlannedRun], memory: int, cores: int, times: Times | None = None) -> Proposal:
    """For runs that are left, GPUs of so many bytes of `memory`, and so many `cores` for each of them.

    `times` as `planning.measured_times` gives them.
    """
    needs = [row.gpu_bytes for row in rows]
    measured = bool(rows) and all(row.gpu_bytes_measured for row in rows)
    known = [need for need in needs if need is not None]
    if not memory or not needs or len(known) < len(needs):
        return Proposal(1, None, False, None)
    fitting = max(1, min(int(ROOM * memory / (max(known) + CONTEXT_BYTES)), MOST, cores))
    gains = measured_gains(times or {})
    tried = {number: gain for number, gain in gains.items() if number <= fitting}
    if tried and fitting in gains:  # else more than was tried may be better still
        fitting = max(tried, key=lambda number: tried[number])
        fitting = fitting if tried[fitting] >= WORTH else 1
    return Proposal(fitting, max(known), measured, gains.get(fitting) if fitting > 1 else None)


def cores_each(gpus: int) -> int:
    """Processor cores of this machine for each of its GPUs."""
    return max(1, devices.cores() // gpus)


def measured_gains(times: Times) -> dict[int, float]:
    """{number of runs on a GPU: times the iterations in the same time, over one run alone}, where both were measured.

    The median over all settings, methods and devices for which there are both.
    """
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
    """A line of the plan: how many runs a GPU holds, by what, and what that makes of so many `hours` of GPUs."""
    if proposal.need is None:
        return "runs on one GPU at a time: 1, since the memory of some is not known"
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
    """How many runs of an experiment are on a GPU of this machine at a time.

    What `CONTEXTRAST_BENCH_SHARE` says, else what was `asked`: a number or "auto", which is what `propose` says for the
    runs that are left where the memory of all of them was measured, and else 1. Raises UserError for anything else.
    """
    if os.environ.get(devices.SHARE):
        return devices.share()
    if asked != "auto":
        if not asked.isdecimal() or int(asked) < 1:
            raise UserError(f"share={asked}: give auto, or the number of runs that may be on a GPU at a time")
        return int(asked)
    if not (gpus := devices.visible()):
        return 1
    left = [row for row in planning.plan(experiment, results) if row.status in planning.TO_TRAIN]
    found = propose(left, devices.memory(gpus), cores_each(len(gpus)), planning.times(results))
    return found.runs if found.measured else 1
