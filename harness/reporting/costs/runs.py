"""What the runs of an experiment took: hours of a GPU or of processor threads, and energy if it was counted."""

from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

from harness.compute import atomic
from harness.errors import UserError
from harness.reporting.markup import markdown_table
from harness.reporting.names import name_by_method
from harness.reporting.writing import csv_text
from harness.runs.record import TRAINING, Record, is_set_aside

COLUMNS = (
    *("dataset", "model", "arm", "seed", "status", "iterations", "seconds", "device", "threads"),
    *("gpu_hours", "thread_hours", "gpu_joules", "gpu_counted_seconds", "gpu_counted_by"),
    *("processor_joules", "processor_counted_seconds", "processor_counted_by"),
)
PARTS = ("gpu", "processor")
WHOLE = 0.99  # of a run's seconds: energy of less is not the run's
JOULES_PER_KWH = 3.6e6

Row = dict[str, Any]


def write_runs_table(experiment: str, results: Path) -> Path | None:
    """Write runs.csv and runs.md into `results`/reports/`experiment`/cost from its runs' training.json.

    Returns that folder; None, and writes nothing, if no run of the experiment has been trained here.
    """
    rows = run_rows(experiment, results)
    if not rows:
        return None
    folder = Path(results) / "reports" / experiment / "cost"
    atomic.write_text(folder / "runs.csv", csv_text(COLUMNS, ([row[name] for name in COLUMNS] for row in rows)))
    atomic.write_text(folder / "runs.md", _table(experiment, rows))
    return folder


def run_rows(experiment: str, results: Path) -> list[Row]:
    """A row of `COLUMNS` for every trained run, whatever its status, in order of its folder; damaged ones are skipped.

    A run has gpu_hours or thread_hours (threads times hours), never both. counted_seconds: of its `seconds` those whose
    energy was counted, fewer than all if it went on elsewhere. What was not counted is None, never 0.
    """
    rows = []
    for path in sorted((Path(results) / "runs" / experiment).glob(f"*/*/*/*/{TRAINING}")):
        if is_set_aside(path):
            continue
        with suppress(UserError):  # a damaged file
            rows += [row] if (row := _row(Record.load(path))) else []
    return rows


def _row(training: Record) -> Row | None:
    device = training.device
    if device is None or training.seconds is None:  # nothing was trained
        return None
    gpu, hours = device.type == "cuda", training.seconds / 3600
    row: Row = {name: getattr(training.key, name) for name in ("dataset", "model", "arm", "seed")}
    row["method"] = training.method
    row |= {name: getattr(training, name) for name in ("status", "iterations", "seconds", "gpu_hours")}
    row |= {"device": device.name, "threads": device.threads}
    row["thread_hours"] = None if gpu or device.threads is None else hours * device.threads
    for part in PARTS:
        counted = training.energy.get(part)
        row |= {f"{part}_joules": counted and counted.joules, f"{part}_counted_seconds": counted and counted.seconds}
        row[f"{part}_counted_by"] = counted and counted.source
    return row


def _table(experiment: str, rows: list[Row]) -> str:
    def case(row: Row) -> tuple[str, ...]:
        return row["dataset"], row["model"], name_by_method(row["arm"], row["method"]), row["device"]

    lines = []
    for (dataset, model, arm, device), group in groupby(sorted(rows, key=case), key=case):
        runs = list(group)
        lines.append(
            [
                f"{model}, {dataset}, {arm}",
                device,
                str(len(runs)),
                *(_sum(runs, name) for name in ("gpu_hours", "thread_hours")),
                *(_kwh(runs, part) for part in PARTS),
            ]
        )
    return markdown_table(
        f"What the runs of {experiment} took",
        ["", "device", "runs", "GPU hours", "thread hours", "GPU, kWh", "processor, kWh"],
        lines,
        [
            "Sums over the runs, failed and diverged ones included: time in the training loop, evaluation not counted.",
            "Energy is the whole device's, by the driver's (NVML) or the processor's (RAPL) own counter; runs.csv says "
            "by which. Empty: the machine does not count it, or not for the whole of every run.",
        ],
    )


def _sum(runs: list[Row], name: str, unit: float = 1) -> str:
    """Empty unless every run has the figure."""
    values = [row[name] for row in runs]
    return "" if None in values else f"{sum(values) / unit:.3g}"


def _kwh(runs: list[Row], part: str) -> str:
    """Empty unless the whole of every run was counted."""
    whole = all((row[f"{part}_counted_seconds"] or 0) >= WHOLE * row["seconds"] for row in runs)
    return _sum(runs, f"{part}_joules", JOULES_PER_KWH) if whole else ""
