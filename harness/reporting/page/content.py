"""What the page's tables hold: rows of cells that sort, and the runs that each number was made of."""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from harness.comparison import Cell
from harness.errors import UserError
from harness.evaluation.groups import arm_order, display_name
from harness.experiment.run import Run
from harness.experiment.schema import Experiment
from harness.reporting.entries import gain_text, interval_text, runs_text
from harness.reporting.markup import points
from harness.reporting.measured import Measured
from harness.runs.record import read_json
from harness.runs.state import Missing, read_record
from harness.statistics.scores import mean_defined
from harness.statistics.settings import MeanGain

SHORT = 10  # letters of a hash that tell it from the others


@dataclass(frozen=True)
class Entry:
    """A cell of a page's table: its text, what it sorts by (None: the text), its CSS class and the keys of its runs."""

    text: str
    value: float | None = None
    kind: str = ""
    runs: str = ""
    title: str = ""


@dataclass(frozen=True)
class Heading:
    """A column: its name, and whether it sorts by number."""

    text: str
    number: bool = False


@dataclass(frozen=True)
class Row:
    """A row, and whether it stands for something that is missing."""

    cells: list[Entry]
    hole: bool = False


@dataclass(frozen=True)
class PageTable:
    """A table of the page; `key` is its id in the document: letters, digits and hyphens."""

    key: str
    title: str
    headings: list[Heading]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)

    def compact(self, *columns: int) -> "PageTable":
        """Without those of the columns in which all rows say the same: what they say goes into the title."""
        told = {place: {row.cells[place].text for row in self.rows} for place in columns}
        alike = {place: texts.pop() for place, texts in told.items() if len(texts) == 1}
        kept = [place for place in range(len(self.headings)) if place not in alike]
        said = [text for text in alike.values() if text.lower() not in self.title.lower()]
        return replace(
            self,
            title=f"{self.title}: {', '.join(said)}" if said else self.title,
            headings=[self.headings[place] for place in kept],
            rows=[replace(row, cells=[row.cells[place] for place in kept]) for row in self.rows],
        )


def number(value: float | None, sign: bool = False) -> Entry:
    """A number with two decimals that sorts by all its digits; empty, and last, for None and NaN."""
    if value is None or math.isnan(value):
        return Entry("", kind="number")
    return Entry(points(value, sign), value, "number")


def run_key(dataset: str, model: str, arm: str, seed: int) -> str:
    """What a run is called in the page."""
    return f"{dataset}/{model}/{arm}/seed{seed}"


def run_facts(experiment: Experiment, run: Run, results: Path) -> dict[str, str]:
    """What the page says of a run: where it is, what became of it, and what it was made with."""
    record = read_record(experiment, run, results)
    facts = {"run": str(run.folder(Path("results")))}
    if isinstance(record, Missing):
        facts |= {"status": record.status, "reason": record.reason}
        try:
            record = read_json(run.folder(results) / "record.json")
        except UserError:
            return facts
    made = record.get("provenance") or {}
    device = made.get("device") or {}
    commit = str(made.get("commit") or "unknown")
    return facts | {
        "status": facts.get("status", str(record.get("status"))),
        "reason": facts.get("reason") or str(record.get("reason") or ""),
        "seed": str(run.seed),
        "commit": commit + (" with changes that are in no commit" if made.get("dirty") else ""),
        "data fingerprint": str(made.get("data_fingerprint") or "unknown"),
        "weights": str(record.get("weights_hash") or "unknown"),
        "iterations": str(record.get("iterations") or ""),
        "device": str(device.get("name") or device.get("type") or "unknown"),
        "packages": ", ".join(f"{name} {version}" for name, version in (made.get("packages") or {}).items()),
        "started": str(record.get("started") or ""),
        "seconds": str(record.get("seconds") or ""),
    }


def cell_table(
    key: str, title: str, found: Sequence[Cell], facts: Mapping[str, dict[str, str]], verdicts: bool = False
) -> PageTable:
    """A row a cell: its level with runs, and its gain with interval; with `verdicts` what the interval says."""
    headings = [Heading(text) for text in ("Data set", "Model", "Protocol", "Metric", "Arm")]
    headings += [Heading("Mean (%)", True), Heading("SD", True), Heading("Runs", True), Heading("Gain [95 %]", True)]
    headings += [*([Heading("Verdict")] if verdicts else []), Heading("Note")]
    rows = []
    for cell in found:
        text, kind = verdict_text(cell)
        spread = cell.spread
        rows.append(
            Row(
                [
                    *(Entry(name) for name in (cell.dataset, cell.model, cell.protocol, cell.metric)),
                    Entry(display_name(cell.arm) + (" (baseline)" if cell.is_baseline else "")),
                    _mean(cell, facts),
                    number(spread.sd if spread else None),
                    Entry(runs_text(cell), len(cell.values), "number"),
                    Entry(gain_text(cell), cell.gain.difference if cell.gain else None, "number"),
                    *([Entry(text, kind=kind)] if verdicts else []),
                    Entry(cell.note, kind="wide"),
                ],
                hole=not cell.values,
            )
        )
    return PageTable(key, title, headings, rows).compact(0, 1, 2, 3)


def verdict_text(cell: Cell) -> tuple[str, str]:
    """What a cell's interval says, and the CSS class that marks it."""
    if cell.is_baseline:
        return "the baseline", ""
    if cell.gain is None:
        return ("no baseline" if cell.values else cell.status.replace("_", " ")), ""
    if cell.gain.low is None:
        return "no interval", ""
    if cell.excludes_zero:
        return ("better", "better") if cell.gain.difference > 0 else ("worse", "worse")
    return "not told from 0", ""


def settings_table(means: Mapping[str, MeanGain]) -> PageTable:
    """A row an arm: its mean gain in mIoU over all data sets and networks, with both intervals."""
    headings = [Heading("Arm"), Heading("Settings", True), Heading("Gain (points)", True)]
    headings += [Heading("This grid [95 %]", True), Heading("Settings like these [95 %]", True)]
    rows = [
        Row(
            [
                Entry(display_name(arm)),
                Entry(str(mean.settings), mean.settings, "number"),
                number(mean.difference, sign=True),
                Entry(interval_text(mean.low, mean.high), mean.low, "number"),
                Entry(interval_text(mean.low_like, mean.high_like), mean.low_like, "number"),
            ]
        )
        for arm, mean in means.items()
    ]
    notes = [
        "This grid: for these very settings, all arms at once. Settings like these: Student's t over the settings."
    ]
    return PageTable("settings", "Mean gain in mIoU over all data sets and networks", headings, rows, notes)


def class_table(experiment: Experiment, each: Measured, key: str) -> PageTable:
    """IoU by class, the mean over seeds: classes down, arms across."""
    arms = arm_order(experiment)
    rows = []
    for index, name in enumerate(each.classes):
        values = [[float(seed[index]) for seed in each.class_iou.get(arm, {}).values()] for arm in arms]
        means = [float(mean_defined(np.array(seeds))) if seeds else None for seeds in values]
        rows.append(Row([Entry(name), *map(number, means)], hole=all(not _there(mean) for mean in means)))
    headings = [Heading("Class"), *(Heading(display_name(arm), True) for arm in arms)]
    notes = ["IoU in percent, the mean over the seeds that are done; empty where none is, or the class is absent."]
    return PageTable(key, f"IoU by class: {each.title}, {each.protocol}", headings, rows, notes)


def run_table(experiment: Experiment, facts: Mapping[str, dict[str, str]]) -> PageTable:
    """Every run of the experiment with what became of it."""
    headings = [*map(Heading, ("Data set", "Model", "Arm")), Heading("Seed", True)]
    headings += [*map(Heading, ("Status", "Reason", "Commit", "Data")), Heading("Seconds", True)]
    rows = []
    for run in experiment.runs():
        key = run_key(run.dataset, run.model, run.arm, run.seed)
        of_run = facts[key]
        done = of_run["status"] == "done"
        seconds = of_run.get("seconds")
        rows.append(
            Row(
                [
                    *(Entry(name) for name in (run.dataset, run.model, display_name(run.arm))),
                    Entry(str(run.seed), run.seed, "number"),
                    Entry(of_run["status"], runs=key, title=hover([of_run])),
                    Entry(of_run["reason"], kind="wide"),
                    Entry(of_run.get("commit", "")[:SHORT]),
                    Entry(of_run.get("data fingerprint", "")[:SHORT]),
                    Entry(seconds or "", float(seconds) if seconds else None, "number"),
                ],
                hole=not done,
            )
        )
    return PageTable("runs-all", "Every run", headings, rows).compact(0, 1)


def hover(runs: Sequence[Mapping[str, str]]) -> str:
    """The short provenance of a number: seeds, commits and data of its runs."""
    parts = []
    for name, shown in (("seed", 8), ("commit", SHORT), ("data fingerprint", SHORT)):
        values = dict.fromkeys(of_run[name][:shown] for of_run in runs if of_run.get(name))
        if values:
            parts.append(f"{name} {', '.join(values)}")
    return "; ".join(parts) or "; ".join(dict.fromkeys(of_run["run"] for of_run in runs))


def _mean(cell: Cell, facts: Mapping[str, dict[str, str]]) -> Entry:
    """The mean, or in a hole its status, with the runs behind it."""
    seeds = sorted(cell.values) or sorted(cell.missing)
    keys = [run_key(cell.dataset, cell.model, cell.arm, seed) for seed in seeds]
    text = points(cell.spread.mean) if cell.spread else cell.status.replace("_", " ")
    value = cell.spread.mean if cell.spread else None
    return Entry(text, value, "number", " ".join(keys), hover([facts[key] for key in keys]))


def _there(value: float | None) -> bool:
    return value is not None and not math.isnan(value)


def data_uri(png: bytes) -> str:
    """A PNG as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
