"""What an experiment would run, what is done, and the time, memory, disk and energy that the rest takes. No torch."""

import csv
import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from math import ceil, prod
from pathlib import Path
from statistics import median
from typing import Any

from harness.compute.progress import plural
from harness.config import read_size, size_name
from harness.errors import UserError
from harness.experiment.run import Run
from harness.experiment.schema import Experiment, Schedule
from harness.runs.record import RECORD, TRAINING, Device, Record, is_set_aside
from harness.runs.state import state_of

COST_TABLE = Path(__file__).parents[2] / "results" / "reports" / "cost" / "cost.csv"
# FLOPs a second in training, if nothing was measured. Of a GPU: what the published 8.967 h of HRNet-W48 on
# Cityscapes (arXiv 2608.22679, table XVI; 40,000 iterations of batch 8) come to, all GPUs together; an A100's float32
# peak is 19.5e12. Of one processor core: what the committed runs of cross entropy on EPYC come to
# (results/reference/epyc; lite0_fpn, 1.27 s an iteration, augmentation included).
GPU_FLOPS, CORE_FLOPS = 11.2e12, 40e9
PASSES = 3  # one forward, and twice as much backward
MEASURED, ESTIMATED = "measured on", "estimated for"
ON_A_GPU = f"{ESTIMATED} a GPU of {GPU_FLOPS / 1e12:.1f} TFLOPS, without the methods' own time"
ON_A_CORE = f"{ESTIMATED} a processor core of {CORE_FLOPS / 1e9:.0f} GFLOPS, without the methods' own time"
NOT_MEASURED = "no such run was measured here yet"
# Bytes kept for backward per multiply-add of the forward pass, if nothing was measured: the published 26,692 MiB of
# the same network, data set and batch (table XVI) without weights, gradients and momenta. bfloat16 takes less.
ACTIVATION_BYTES = 0.0181
WATTS = 400.0  # of a busy GPU, if nothing was measured: an A100 SXM4's maximum (NVIDIA's data sheet)
# What to ask a scheduler for: a multiple of the planned time, plus the start (packages, verification, cached images).
SAFETY = {True: 1.5, False: 4.0}  # of a measured and of an estimated time, which leaves out the method and slower GPUs
START_MINUTES = 30
UNKNOWN_MINUTES = 24 * 60
CHECKPOINTS = 2  # that a run keeps, besides the weights of the inference network
TO_TRAIN = ("not run", "unfinished", "stale", "unreadable")

Key = tuple[str, str, int, str]  # model, crop, batch, precision


@dataclass(frozen=True, order=True)
class Pace:
    """Seconds per iteration, on which device, and how many runs shared it."""

    gpu: bool
    seconds: float
    device: str
    sharers: int = 1


Times = dict[Key, dict[str, list[Pace]]]  # by method


@dataclass(frozen=True)
class PlannedRun:
    """A run of an experiment and what it takes.

    status: "done", "not run", "unfinished", "not evaluated", "stale", "diverged" ...; `reason` says more: for a run
    that is done, which protocols are missing. hours: of the whole training; hours_from: where they were measured, or
    what they were estimated for. kwh: of the GPU alone (of the processor, if that trains and counts its energy).
    gpu_bytes: peak memory on the GPU. disk_bytes: weights and checkpoints, without label maps and methods' memories.
    None if neither the cost table nor a record has the model.
    """

    dataset: str
    model: str
    arm: str
    method: str
    seed: int
    iterations: int
    batch: int
    crop: str
    status: str
    reason: str
    hours: float | None
    hours_from: str
    disk_bytes: int | None
    gpu_bytes: int | None = None
    kwh: float | None = None
    gpu_bytes_measured: bool = False


def plan(
    experiment: Experiment, results: Path, cost_table: Path = COST_TABLE, *, on_gpu: bool | None = None
) -> list[PlannedRun]:
    """Every run of `experiment`, in its order; what is done is read from `results`.

    Hours come from the records in `results` of the same model, crop, batch and precision (`measured_pace`). Otherwise
    they are estimated from the multiply-adds in `cost_table`. on_gpu: plan for GPUs, or for processor cores; None: for
    whichever the records are from, a GPU first and if there are none. Memory is what runs or
    measurements of the training cost found for the same setting, and power what they found for the same device, else
    `ACTIVATION_BYTES` and `WATTS`.
    """
    trained = trained_records(results)
    times, measured = measured_times(trained, results), _Measured(results, trained)
    costs = _Costs(cost_table)
    rows = []
    for run in experiment.runs():
        schedule = experiment.schedule_of(run.dataset, run.model, run.arm)
        method = experiment.arms[run.arm].method
        state = state_of(experiment, run, results)
        if state.status == "skipped" and state.work == "train":  # its data are there now
            state = replace(state, status="not run", reason="")
        seconds, source = _seconds(times, costs, run, schedule, method, on_gpu)
        hours = None if seconds is None else seconds * schedule.iterations / 3600
        peak = measured.gpu_bytes(run, schedule, method)
        rows.append(
            PlannedRun(
                dataset=run.dataset,
                model=run.model,
                arm=run.arm,
                method=method,
                seed=run.seed,
                iterations=schedule.iterations,
                batch=schedule.batch,
                crop=size_name(schedule.crop),
                status=state.status,
                reason=state.reason,
                hours=hours,
                hours_from=source,
                disk_bytes=costs.disk_bytes(run, schedule, method),
                gpu_bytes=peak or costs.gpu_bytes(run, schedule, method),
                kwh=measured.kwh(hours, source),
                gpu_bytes_measured=peak is not None,
            )
        )
    return rows


def time_limit(row: PlannedRun) -> int:
    """Minutes to ask a scheduler for: the training's hours with a margin (`SAFETY`, `START_MINUTES`).

    A training that hits the limit continues from its last checkpoint when it is started again.
    """
    if row.hours is None:
        return UNKNOWN_MINUTES
    return START_MINUTES + ceil(60 * row.hours * SAFETY[row.hours_from.startswith(MEASURED)])


def summary(rows: Sequence[PlannedRun], at_a_time: int = 1) -> dict[str, Any]:
    """What is left to train: how many runs of each status, hours by their source, wall time, energy of the
    GPUs, memory of the run that needs most, disk space.

    wall_hours: with `at_a_time` runs at a time, in the order of `rows`.
    """
    if at_a_time < 1:
        raise UserError(f"--gpus must be 1 or larger, not {at_a_time}")
    left = [row for row in rows if row.status in TO_TRAIN]
    hours: dict[str, float] = defaultdict(float)
    for row in left:
        hours[row.hours_from] += row.hours or 0
    free_at = [0.0] * at_a_time
    for row in left:
        heapq.heapreplace(free_at, free_at[0] + (row.hours or 0))
    return {
        "runs": len(rows),
        "statuses": dict(Counter(row.status for row in rows)),
        "to_train": len(left),
        "hours": dict(hours),
        "at_a_time": at_a_time,
        "wall_hours": max(free_at),
        "kwh": sum(row.kwh or 0 for row in left),
        "gpu_bytes": max((row.gpu_bytes or 0 for row in left), default=0),
        "disk_bytes": sum(row.disk_bytes or 0 for row in left),
    }


def describe(rows: Sequence[PlannedRun], at_a_time: int = 1, sharing: str = "", *, on_gpu: bool = True) -> str:
    """The plan as text: totals, `sharing` (how runs can share a GPU), then one line per run."""
    whole = summary(rows, at_a_time)
    lines = [f"{plural(whole['runs'], 'run')}: {', '.join(f'{n} {status}' for status, n in whole['statuses'].items())}"]
    lines += [*(_needs(rows, whole, sharing, on_gpu) if whole["to_train"] else ["nothing is left to train"]), ""]
    table = [("data set", "model", "arm", "seed", "iterations", "batch", "crop", "time", "status")]
    for row in rows:
        time = "?" if row.hours is None else _time(row.hours)
        numbers = (str(row.seed), str(row.iterations), str(row.batch))
        status = f"{row.status}: {row.reason}" if row.reason else row.status
        table.append((row.dataset, row.model, row.arm, *numbers, row.crop, time, status))
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines += ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in table]
    return "\n".join(lines)


def _needs(rows: Sequence[PlannedRun], whole: dict[str, Any], sharing: str, on_gpu: bool) -> list[str]:
    """Lines about what the remaining runs take."""
    lines = []
    guessed = [source for source in whole["hours"] if source.startswith(ESTIMATED)]
    for source, hours in whole["hours"].items():
        why = f" ({NOT_MEASURED})" if source in guessed else ""
        lines.append(f"to train: {_time(hours)} {source}{why}" if source else "to train: some runs of unknown length")
    estimated = ""
    if guessed:
        estimated = " (estimated)" if len(whole["hours"]) == 1 else " (estimated in part)"
    unknown = [row.hours is None for row in rows if row.status in TO_TRAIN]
    wall = f"{_time(whole['wall_hours'])}{' or more' if any(unknown) else ''}{estimated}"
    lines.append(f"wall time, {whole['at_a_time']} at a time: {'unknown' if unknown and all(unknown) else wall}")
    memory, disk = (_bytes(rows, key, whole[key]) for key in ("gpu_bytes", "disk_bytes"))
    if on_gpu:
        if any(row.kwh is not None for row in rows if row.status in TO_TRAIN):
            lines.append(f"energy of the GPUs: {_amount(1000 * whole['kwh'], 'Wh', 'kWh')}{estimated}")
        lines.append(f"memory of a GPU, for the run that needs most: {memory}")
    lines += [sharing] if sharing else []
    return [*lines, f"disk, without label maps and methods' memories: {disk}"]


def _bytes(rows: Sequence[PlannedRun], key: str, known: int) -> str:
    """An amount from `summary` as text; "unknown" if the runs' models are in no cost table."""
    missing = [getattr(row, key) is None for row in rows if row.status in TO_TRAIN]
    if not any(missing):
        return _amount(known / 1e6, "MB", "GB")
    if all(missing):
        return "unknown (the model is in no cost table)"
    return f"{_amount(known / 1e6, 'MB', 'GB')} or more (some of the models are in no cost table)"


def times(results: Path) -> Times:
    """Seconds per iteration of everything trained or measured in `results`."""
    return measured_times(trained_records(results), results)


def measured_times(trained: Iterable[Record], results: Path | None = None) -> Times:
    """Seconds per iteration of the `trained_records`, and of the steps measured on GPUs in `results`.

    Skipped are records that lack the needed fields, and steps on labels with equally frequent classes, which cost some
    methods far more than a data set does.
    """
    times: Times = defaultdict(lambda: defaultdict(list))
    for record in trained:
        if (device := _device(record)) and record.seconds and record.iterations:
            pace = Pace(device.type == "cuda", record.seconds / record.iterations, device.name, device.sharers)
            times[key_of(record.key.model, record.schedule)][record.method].append(pace)
    for measured in _measured_records(results, "training") if results else []:
        with suppress(KeyError, TypeError, ValueError, IndexError, AttributeError):
            if measured["provenance"]["device"]["type"] == "cuda" and "labels" in measured:
                for method, arm in measured["arms"].items():
                    seconds = median(each for turn in arm["nanoseconds"] for each in turn) / 1e9
                    times[_key_of_setting(measured["setting"])][method].append(
                        Pace(True, seconds, str(measured["machine"]))
                    )
    for measured in _measured_records(results, "gpu") if results else []:
        with suppress(KeyError, TypeError, ValueError, IndexError, AttributeError):
            for name, piece in measured["pieces"].items() if measured["provenance"]["device"]["type"] == "cuda" else ():
                if name.startswith("method/") and "measured" in piece:
                    for method, ms in piece["measured"]["ms"].items():
                        pace = Pace(True, ms / 1000, str(measured["machine"]))
                        times[_key_of_setting(piece["measured"]["setting"])][method].append(pace)
    return times


def _measured_records(results: Path, kind: str) -> Iterator[dict[str, Any]]:
    """The readable records in `results`/cost/`kind`."""
    for path in sorted((Path(results) / "cost" / kind).glob("**/*.json")):
        with suppress(OSError, ValueError):
            record = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(record, dict):
                yield record


def _device(record: Record) -> Device | None:
    """The device of a run; None if the record does not say, or its schedule is from another version."""
    with suppress(UserError):
        return record.device if record.schedule else None
    return None


def key_of(model: str, schedule: Schedule) -> Key:
    """What runs have in common whose times and memory can be compared."""
    return model, size_name(schedule.crop), schedule.batch, schedule.precision


def _key_of_setting(setting: dict[str, Any]) -> Key:
    return setting["model"], size_name(setting["size"]), setting["batch"], setting["precision"]


def trained_records(results: Path) -> list[Record]:
    """The records of all runs under `results`/runs that were trained to the end."""
    folders = [path for path in sorted((Path(results) / "runs").glob("*/*/*/*/seed*")) if not is_set_aside(path)]
    found = [_read(folder / TRAINING) or _read(folder / RECORD) for folder in folders]
    return [record for record in found if record and record.status == "done"]


def measured_pace(times: Times, key: Key, method: str, on_gpu: bool | None = None) -> tuple[float, str] | None:
    """Median seconds per iteration and the devices' names; None if nothing comparable was timed.

    Of the slowest method if `method` was not timed. Runs that had their device to themselves count first. on_gpu: only
    times from a GPU, or only from a processor; None: whichever there are, a GPU's first.
    """
    known = times.get(key, {})
    if on_gpu is None:
        on_gpu = any(
            pace.gpu for name, paces in known.items() if name == method or method not in known for pace in paces
        )
    found = {}
    for name, paces in known.items():
        best = [pace for pace in paces if pace.gpu == on_gpu]
        if best := [pace for pace in best if pace.sharers == 1] or best:
            devices = ", ".join(sorted({pace.device for pace in best}))
            found[name] = median(pace.seconds for pace in best), devices
    return found.get(method) or max(found.values(), default=None)


def _seconds(
    times: Times, costs: "_Costs", run: Run, schedule: Schedule, method: str, on_gpu: bool | None
) -> tuple[float | None, str]:
    """Seconds an iteration takes, and how that is known."""
    if found := measured_pace(times, key_of(run.model, schedule), method, on_gpu):
        return found[0], f"{MEASURED} {found[1]}"
    gmacs = costs.gmacs(run, schedule)
    if gmacs is None:
        return None, ""
    flops, source = (CORE_FLOPS, ON_A_CORE) if on_gpu is False else (GPU_FLOPS, ON_A_GPU)
    return PASSES * 2 * gmacs * 1e9 * schedule.batch / flops, source


class _Costs:
    """The cost table; for a data set or size that it lacks, its nearest row."""

    def __init__(self, path: Path) -> None:
        rows: list[dict[str, str]] = []
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
        self._by_model: dict[str, list[dict[str, str]]] = defaultdict(list)
        for row in rows:
            self._by_model[row["model"]].append(row)
        self._row = cache(self._find)

    def gmacs(self, run: Run, schedule: Schedule) -> float | None:
        """1e9 multiply-adds of one image at the schedule's crop, scaled by the number of pixels if necessary."""
        row = self._row(run.model, run.dataset, size_name(schedule.crop), None)
        return None if row is None else float(row["gmacs"]) * prod(schedule.crop) / prod(read_size(row["size"]))

    def disk_bytes(self, run: Run, schedule: Schedule, method: str) -> int | None:
        """Float32 weights of the inference network, plus checkpoints of everything trained with its moments."""
        row = self._row(run.model, run.dataset, size_name(schedule.crop), method)
        if row is None:
            return None
        kept = CHECKPOINTS * (1 + _moments(schedule)) * int(row["training_parameters"])
        return 4 * (int(row["inference_parameters"]) + kept)

    def gpu_bytes(self, run: Run, schedule: Schedule, method: str) -> int | None:
        """Float32 weights, gradients and moments of everything trained, plus the activations of a batch."""
        row, gmacs = self._row(run.model, run.dataset, size_name(schedule.crop), method), self.gmacs(run, schedule)
        if row is None or gmacs is None:
            return None
        kept = 4 * (2 + _moments(schedule)) * int(row["training_parameters"])
        return kept + round(ACTIVATION_BYTES * gmacs * 1e9 * schedule.batch)

    def _find(self, model: str, dataset: str, crop: str, method: str | None) -> dict[str, str] | None:
        rows: Iterable[dict[str, str]] = self._by_model[model]
        if method is not None:
            rows = [row for row in rows if row["method"] == method] or rows
        return max(rows, key=lambda row: (row["dataset"] == dataset, row["size"] == crop), default=None)


class _Measured:
    """Peak memory and power from runs and from measurements of the training cost (`results`/cost/training)."""

    def __init__(self, results: Path, trained: Iterable[Record]) -> None:
        self._peaks: dict[tuple[Key, str], int] = {}
        self._processors: set[str] = set()  # of runs without a GPU
        watts: dict[str, list[float]] = defaultdict(list)
        for record in trained:
            if (device := _device(record)) is None or record.provenance is None:
                continue
            whole = record.micro_batch in (None, record.schedule.batch)
            if whole and (peak := record.provenance.gpu_bytes):
                place = key_of(record.key.model, record.schedule), record.method
                self._peaks[place] = max(peak, self._peaks.get(place, 0))
            if device.type != "cuda":
                self._processors.add(device.name)
            used = record.energy.get("gpu" if device.type == "cuda" else "processor")
            if used and used.seconds:
                watts[device.name].append(used.joules / used.seconds)
        for measured in _measured_records(results, "training"):
            try:
                machine, key = str(measured["machine"]), _key_of_setting(measured["setting"])
                peaks = {(key, method): int(arm["peak_bytes"]) for method, arm in measured["arms"].items()}
                joules, seconds = measured["energy_joules"].get("gpu"), measured.get("energy_seconds")
                power = joules / seconds if joules and seconds else None
            except (ValueError, KeyError, TypeError, IndexError, AttributeError):
                continue  # written by another version
            self._peaks = peaks | self._peaks  # a run's own peak takes precedence
            if power is not None:
                watts[machine].append(power)
        self._watts = {machine: median(found) for machine, found in watts.items()}

    def gpu_bytes(self, run: Run, schedule: Schedule, method: str) -> int | None:
        """The peak for the same model, crop, batch, precision and method."""
        return self._peaks.get((key_of(run.model, schedule), method))

    def kwh(self, hours: float | None, source: str) -> float | None:
        """At the mean power of the device that the hours were measured on, else at `WATTS`; None for a processor."""
        device = source.removeprefix(f"{MEASURED} ")
        watts = self._watts.get(device, None if device in self._processors else WATTS)
        return None if hours is None or watts is None else hours * watts / 1000


def _time(hours: float) -> str:
    """Such as "12 h", "1.5 h", "8 min" or "under 1 min"."""
    if hours >= 1:
        return f"{hours:.0f} h" if hours >= 10 else f"{hours:.1f} h"
    return f"{60 * hours:.0f} min" if 60 * hours >= 1 or hours == 0 else "under 1 min"


def _amount(number: float, unit: str, thousands: str) -> str:
    """A number with its unit, in thousands from 1,000 on."""
    if number >= 1000:
        return f"{number / 1000:.0f} {thousands}"
    return f"{number:.0f} {unit}" if number >= 1 or number == 0 else f"under 1 {unit}"


def _moments(schedule: Schedule) -> int:
    """Tensors that the optimizer keeps per parameter."""
    return 2 if schedule.optimizer == "adamw" else int(schedule.momentum > 0)


def _read(path: Path) -> Record | None:
    try:
        return Record.load(path)
    except UserError:
        return None
