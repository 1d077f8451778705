"""What the page's tables hold: rows of cells that sort, and the runs that each number was made of."""

import csv
import io
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.comparison import Cell
from harness.errors import UserError
from harness.evaluation.groups import arm_order
from harness.experiment.run import Run
from harness.experiment.schema import Experiment
from harness.reporting.entries import gain_text, interval_text, runs_text
from harness.reporting.markup import points
from harness.reporting.measured import Measured
from harness.reporting.names import arm_name, baseline_name, dataset_name, metric_title, model_name, protocol_name
from harness.reporting.page.graphics import Download, address
from harness.runs.health import health_of
from harness.runs.record import RECORD, Provenance, Record
from harness.runs.state import Missing, read_record
from harness.statistics.scores import mean_defined
from harness.statistics.settings import MeanGain

HOTTEST = 60  # percent of the colour
SHORT = 10  # letters of a hash that tell it from the others


@dataclass(frozen=True)
class PageCell:
    """A cell of a page's table: its text, what it sorts by (None: the text), its CSS class and the keys of its runs.

    `heat` is how strongly it is coloured, in percent; None for not at all.
    """

    text: str
    value: float | None = None
    kind: str = ""
    runs: str = ""
    title: str = ""
    heat: int | None = None


@dataclass(frozen=True)
class Heading:
    """A column: its name, and whether it sorts by number."""

    text: str
    number: bool = False


@dataclass(frozen=True)
class Row:
    """A row, and whether its result is missing."""

    cells: list[PageCell]
    hole: bool = False


@dataclass(frozen=True)
class PageTable:
    """A table of the page; `key` is its id in the document: letters, digits and hyphens; `kind` its CSS class."""

    key: str
    title: str
    headings: list[Heading]
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    downloads: list[Download] = field(default_factory=list)
    kind: str = ""

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

    def said_once(self, *columns: int, least: int = 3) -> "PageTable":
        """With what `least` rows or more say alike in one of the columns under the table, and a number in its place."""
        counted = Counter(row.cells[place].text for row in self.rows for place in columns)
        often = [text for text, count in counted.items() if text and count >= least]
        numbers = {text: f"[{number}]" for number, text in enumerate(often, 1)}
        rows = []
        for row in self.rows:
            cells = list(row.cells)
            for place in columns:
                if (text := cells[place].text) in numbers:
                    cells[place] = replace(cells[place], text=numbers[text], title=text, kind="")
            rows.append(replace(row, cells=cells))
        told = [f"{number} {text}" + ("" if text.endswith(".") else ".") for text, number in numbers.items()]
        return replace(self, rows=rows, notes=[*self.notes, *told])

    def without_empty(self) -> "PageTable":
        """Without columns in which no row has a text."""
        kept = [place for place in range(len(self.headings)) if any(row.cells[place].text for row in self.rows)]
        if not self.rows:
            return self
        return replace(
            self,
            headings=[self.headings[place] for place in kept],
            rows=[replace(row, cells=[row.cells[place] for place in kept]) for row in self.rows],
        )


def number(value: float | None, sign: bool = False) -> PageCell:
    """A number with two decimals that sorts by all its digits; empty, and last, for None and NaN."""
    if value is None or math.isnan(value):
        return PageCell("", kind="number")
    return PageCell(points(value, sign), value, "number")


def run_key(dataset: str, model: str, arm: str, seed: int) -> str:
    """What a run is called in the page."""
    return f"{dataset}/{model}/{arm}/seed{seed}"


def run_facts(experiment: Experiment, run: Run, results: Path) -> dict[str, str]:
    """The page's entry for a run: its folder, how it ended, and its settings and machine."""
    record = read_record(experiment, run, results)
    facts = {"run": str(run.folder(Path("results")))}
    if isinstance(record, Missing):
        facts |= {"status": record.status, "reason": record.reason}
        try:
            record = Record.load(run.folder(results) / RECORD)
        except UserError:
            return facts
    made = record.provenance or Provenance()
    device = made.device
    return facts | {
        "status": facts.get("status", record.status),
        "reason": facts.get("reason") or record.reason or "",
        "seed": str(run.seed),
        "commit": (made.commit or "unknown") + (" with changes that are in no commit" if made.dirty else ""),
        "data fingerprint": made.data_fingerprint or "unknown",
        "weights": record.weights_hash or "unknown",
        "iterations": str(record.iterations or ""),
        "device": (device and (device.name or device.type)) or "unknown",
        "sharers": str(device.sharers) if device and device.sharers > 1 else "",
        "packages": ", ".join(f"{name} {version}" for name, version in made.packages.items()),
        "started": record.started or "",
        "seconds": str(record.seconds or ""),
        "health": ", ".join(mark.mark for mark in health_of(run.folder(results), record)),
    }


def cell_table(
    experiment: Experiment, key: str, title: str, found: Sequence[Cell], facts: Mapping[str, dict[str, str]]
) -> PageTable:
    """A row a cell: its level with runs, and its gain with interval."""
    headings = [Heading(text) for text in ("Arm", "Data set", "Network", "Protocol", "Metric")]
    headings += [Heading("Mean (%)", True), Heading("SD", True), Heading("Runs", True), Heading("Gain [95 %]", True)]
    headings += [Heading("Note")]
    rows = []
    names = _names(experiment)
    for cell in found:
        spread = cell.spread
        rows.append(
            Row(
                [
                    PageCell(arm_name(experiment, cell.arm) + (" (baseline)" if cell.is_baseline else "")),
                    *(PageCell(names[key]) for key in (cell.dataset, cell.model)),
                    *(PageCell(name) for name in (protocol_name(cell.protocol), metric_title(cell.metric))),
                    _mean(cell, facts),
                    number(spread.sd if spread else None),
                    PageCell(runs_text(cell), len(cell.values), "number"),
                    PageCell(gain_text(cell), cell.gain.difference if cell.gain else None, "number"),
                    PageCell(cell.note, kind="wide"),
                ],
                hole=not cell.values,
            )
        )
    table = PageTable(key, title, headings, rows).said_once(len(headings) - 1).compact(1, 2, 3, 4)
    return table.without_empty()


def settings_table(experiment: Experiment, means: Mapping[str, MeanGain]) -> PageTable:
    """A row an arm: its mean gain in mIoU over all data sets and networks, with both intervals."""
    headings = [Heading("Arm"), Heading("Settings", True), Heading("Gain (points)", True)]
    headings += [Heading("This grid [95 %]", True), Heading("Settings like these [95 %]", True)]
    rows = [
        Row(
            [
                PageCell(arm_name(experiment, arm)),
                PageCell(str(mean.settings), mean.settings, "number"),
                number(mean.difference, sign=True),
                PageCell(interval_text(mean.low, mean.high), mean.low, "number"),
                PageCell(interval_text(mean.low_like, mean.high_like), mean.low_like, "number"),
            ]
        )
        for arm, mean in means.items()
    ]
    notes = [
        "This grid: for these very settings, all arms at once. Settings like these: Student's t over the settings."
    ]
    return PageTable("settings", "Mean gain in mIoU over all data sets and networks", headings, rows, notes)


def class_table(experiment: Experiment, each: Measured, key: str) -> PageTable:
    """A row a class: the baseline's IoU, and how much every other arm has more or less of it, coloured."""
    baseline = experiment.baseline
    level = _class_means(each, baseline)
    arms = [arm for arm in arm_order(experiment) if arm != baseline and _class_means(each, arm) is not None]
    gains = {arm: each.over_baseline(each.class_iou, arm, baseline) for arm in arms}
    shown = {arm: gain for arm, gain in gains.items() if gain is not None}
    if not shown:  # without a baseline, or with it alone: levels
        arms = [arm for arm in arm_order(experiment) if arm != baseline]
    sizes = [abs(float(value)) for gain in shown.values() for value in gain if not np.isnan(value)]
    reach = max([0.1, *sizes])
    rows = []
    for index, name in enumerate(each.classes):
        own = None if level is None else float(level[index])
        cells = [_heat(float(gain[index]), reach) for gain in shown.values()]
        if not shown:
            means = [_class_means(each, arm) for arm in arms]
            cells = [number(None if mean is None else float(mean[index])) for mean in means]
        rows.append(Row([PageCell(name), number(own), *cells], hole=not _there(own) and not any(c.text for c in cells)))
    names = [arm_name(experiment, arm) for arm in (shown or arms)]
    headings = [Heading("Class"), Heading(f"{arm_name(experiment, baseline)} (%)", True)]
    headings += [Heading(name, True) for name in names]
    notes = [
        f"IoU of {baseline_name(experiment)} in percent, and what the others have more (orange) or less (violet), in "
        "points; means over seeds. Single classes are noisier than their mean: no intervals here. Empty: the class is "
        "absent."
    ]
    return PageTable(key, f"{each.title}, {protocol_name(each.protocol)}", headings, rows, notes, kind="heat")


def _class_means(each: Measured, arm: str) -> NDArray[np.float64] | None:
    """IoU by class, the mean over the seeds in which it is defined; None without a run."""
    seeds = list(each.class_iou.get(arm, {}).values())
    if not seeds:
        return None
    stacked = np.stack(seeds)
    return np.array([mean_defined(stacked[:, index]) for index in range(stacked.shape[1])])


def _heat(gain: float, reach: float) -> PageCell:
    if math.isnan(gain):
        return PageCell("", kind="number")
    text, kind = f"{round(gain, 1) + 0.0:+.1f}", "number less" if gain < 0 else "number"
    return PageCell(text, gain, kind, heat=round(HOTTEST * abs(gain) / reach))


def run_table(experiment: Experiment, facts: Mapping[str, dict[str, str]]) -> PageTable:
    """Every run of the experiment with what became of it."""
    headings = [*map(Heading, ("Arm", "Data set", "Network")), Heading("Seed", True)]
    headings += [*map(Heading, ("Status", "Reason", "Commit", "Data")), Heading("Seconds", True)]
    rows = []
    names = _names(experiment)
    for run in experiment.runs():
        key = run_key(run.dataset, run.model, run.arm, run.seed)
        of_run = facts[key]
        done = of_run["status"] == "done"
        seconds = of_run.get("seconds")
        rows.append(
            Row(
                [
                    *(PageCell(name) for name in (arm_name(experiment, run.arm), names[run.dataset], names[run.model])),
                    PageCell(str(run.seed), run.seed, "number"),
                    PageCell(of_run["status"], runs=key, title=hover([of_run])),
                    PageCell(of_run["reason"], kind="wide"),
                    PageCell(of_run.get("commit", "")[:SHORT]),
                    PageCell(of_run.get("data fingerprint", "")[:SHORT]),
                    PageCell(seconds or "", float(seconds) if seconds else None, "number"),
                ],
                hole=not done,
            )
        )
    table = PageTable("runs-all", "Every run", headings, rows).compact(1, 2).without_empty()
    lines = io.StringIO()
    writer = csv.DictWriter(lines, list(dict.fromkeys(name for of_run in facts.values() for name in of_run)))
    writer.writeheader()
    writer.writerows(facts.values())
    table.downloads.append(Download("CSV", "runs.csv", address("text/csv", lines.getvalue().encode())))
    return table


def hover(runs: Sequence[Mapping[str, str]]) -> str:
    """The short provenance of a number: seeds, commits and data of its runs."""
    parts = []
    for name, shown in (("seed", 8), ("commit", SHORT), ("data fingerprint", SHORT)):
        values = dict.fromkeys(of_run[name][:shown] for of_run in runs if of_run.get(name))
        if values:
            parts.append(f"{name} {', '.join(values)}")
    return "; ".join(parts) or "; ".join(dict.fromkeys(of_run["run"] for of_run in runs))


def _mean(cell: Cell, facts: Mapping[str, dict[str, str]]) -> PageCell:
    """The mean, or in a hole its status, with the runs behind it."""
    seeds = sorted(cell.values) or sorted(cell.missing)
    keys = [run_key(cell.dataset, cell.model, cell.arm, seed) for seed in seeds]
    text = points(cell.spread.mean) if cell.spread else cell.status.replace("_", " ")
    value = cell.spread.mean if cell.spread else None
    return PageCell(text, value, "number", " ".join(keys), hover([facts[key] for key in keys]))


def _names(experiment: Experiment) -> dict[str, str]:
    """{key: name} of the experiment's data sets and networks."""
    return {key: dataset_name(key) for key in experiment.datasets} | {key: model_name(key) for key in experiment.models}


def _there(value: float | None) -> bool:
    return value is not None and not math.isnan(value)
