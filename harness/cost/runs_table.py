"""What the runs of an experiment took: hours of a GPU or of processor threads, and energy where it was counted."""

from itertools import groupby
from pathlib import Path
from typing import Any

from harness import atomic
from harness.errors import UserError
from harness.reporting.markup import escape_markdown, markdown_table
from harness.reporting.records import display_name
from harness.reporting.tables import csv_text
from harness.run import read_json

COLUMNS = (
    *("dataset", "model", "arm", "seed", "status", "iterations", "seconds", "device", "threads"),
    *("gpu_hours", "thread_hours", "energy_seconds", "joules_gpu", "joules_processor"),
)
JOULES_PER_KWH = 3.6e6

Row = dict[str, Any]


def write_runs_table(experiment: str, results: Path) -> Path:
    """Write runs.csv and runs.md into `results`/reports/`experiment`/cost from its runs' training.json.

    Returns that folder. Raises UserError if no run of the experiment has been trained.
    """
    rows = run_rows(experiment, results)
    if not rows:
        raise UserError(f"there is no trained run in {Path(results) / 'runs' / experiment}: train first")
    folder = Path(results) / "reports" / experiment / "cost"
    atomic.write_text(folder / "runs.csv", csv_text(COLUMNS, ([row[name] for name in COLUMNS] for row in rows)))
    atomic.write_text(folder / "runs.md", _table(experiment, rows))
    return folder


def run_rows(experiment: str, results: Path) -> list[Row]:
    """A row of `COLUMNS` for every trained run, whatever its status, in order of its folder.

    A run has gpu_hours or thread_hours (threads times hours), never both. energy_seconds: of its `seconds` those whose
    energy was counted, fewer than all if it was continued. What was not counted is None, never 0.
    """
    rows = []
    for path in sorted((Path(results) / "runs" / experiment).glob("*/*/*/*/training.json")):
        training = read_json(path)
        device, hours = training["provenance"]["device"], training["seconds"] / 3600
        gpu = device["type"] == "cuda"
        joules = training.get("energy_joules", {})
        rows.append(
            {name: training["key"][name] for name in ("dataset", "model", "arm", "seed")}
            | {name: training[name] for name in ("status", "iterations", "seconds")}
            | {"device": device["name"], "threads": device["threads"]}
            | {"gpu_hours": hours if gpu else None, "thread_hours": None if gpu else hours * device["threads"]}
            | {"energy_seconds": training.get("energy_seconds") if joules else None}
            | {f"joules_{part}": joules.get(part) for part in ("gpu", "processor")}
        )
    return rows


def _table(experiment: str, rows: list[Row]) -> str:
    def case(row: Row) -> tuple[str, ...]:
        return row["dataset"], row["model"], row["arm"], row["device"]

    lines = []
    for (dataset, model, arm, device), group in groupby(sorted(rows, key=case), key=case):
        runs = list(group)
        lines.append(
            [
                escape_markdown(f"{model}, {dataset}, {display_name(arm)}"),
                escape_markdown(device),
                str(len(runs)),
                *(_sum(runs, name, 1) for name in ("gpu_hours", "thread_hours")),
                *(_sum(runs, name, JOULES_PER_KWH) for name in ("joules_gpu", "joules_processor")),
            ]
        )
    return markdown_table(
        f"What the runs of {experiment} took",
        ["", "device", "runs", "GPU hours", "thread hours", "GPU, kWh", "processor, kWh"],
        lines,
        [
            "Sums over the runs, failed and diverged ones included: time in the training loop, evaluation not counted.",
            "Energy is the whole device's, by the driver's (NVML) or the processor's (RAPL) own counter. Empty: the "
            "machine does not count it, or not for the whole of every run.",
        ],
    )


def _sum(runs: list[Row], name: str, unit: float) -> str:
    """Empty unless every run has the figure, energy for all of its seconds."""
    values = [row[name] for row in runs]
    whole = not name.startswith("joules") or all((row["energy_seconds"] or 0) >= 0.99 * row["seconds"] for row in runs)
    return "" if None in values or not whole else f"{sum(values) / unit:.3g}"
