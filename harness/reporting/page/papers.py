"""The papers' tables on the page: their CSV files, with a verdict on every published gain."""

import csv
from collections.abc import Mapping
from pathlib import Path

from harness.experiment.schema import Experiment
from harness.reporting.names import dataset_name, method_name, model_name, protocol_name
from harness.reporting.page.content import Heading, PageCell, PageTable, Row, hover, number, run_key
from harness.reporting.page.graphics import downloads
from harness.reporting.verdicts import CONFIRMED, CONTRADICTED, NOT_COMPARED, NOT_MEASURABLE, NOT_RUN

VERDICTS = "papers_verdicts"
# Columns of the files and what they are called here; a sign goes before differences.
TEXTS = {"dataset": "Data set", "model": "Network", "method": "Method", "setting": "Setting", "metric": "Metric"}
TEXTS |= {"reading": "Reading", "protocol": "Protocol"}
NAMED = {"dataset": dataset_name, "model": model_name, "method": method_name, "protocol": protocol_name}
NUMBERS = {"published": ("Published", False), "published_gain": ("Published gain", True), "mean": ("Measured", False)}
NUMBERS |= {"gain": ("Gain", True), "low": ("from", True), "high": ("to", True), "runs": ("Runs", False)}
NO_VERDICT = "–: no verdict, since the runs are not as published; the number says why."
HOLES = (NOT_RUN, NOT_MEASURABLE)
COLORS = {CONFIRMED: "better", CONTRADICTED: "worse"}


def verdict_counts(tables: Path) -> list[tuple[int, str]]:
    """How many published gains have which verdict, over all the tables in the folder; nothing without them."""
    counted: dict[str, int] = {}
    for line in _lines(tables / f"{VERDICTS}.csv"):
        counted[line["verdict"]] = counted.get(line["verdict"], 0) + int(line["gains"])
    return [(count, kind) for kind, count in counted.items() if count]


def paper_tables(experiment: Experiment, tables: Path, facts: Mapping[str, dict[str, str]]) -> list[PageTable]:
    """Every papers_*.csv of `tables` that compares published figures with measured ones, as a table that sorts."""
    found = []
    for path in sorted(tables.glob("papers_*.csv")):
        lines = _lines(path)
        if not lines or "published_gain" not in lines[0] or "verdict" not in lines[0]:
            continue
        texts = [name for name in TEXTS if any(line.get(name) for line in lines)]
        headings = [Heading(TEXTS[name]) for name in texts]
        headings += [Heading(title, True) for title, _ in NUMBERS.values()]
        headings += [Heading("Verdict"), Heading("Why"), Heading("Source")]
        rows = [_row(experiment, line, texts, facts) for line in lines]
        title = f"Published and measured: {path.stem.removeprefix('papers_').replace('_', ' ')}"
        key, files = path.stem.replace("_", "-"), downloads(tables, path.stem)
        notes = [NO_VERDICT] if any(line["verdict"] == NOT_COMPARED for line in lines) else []
        table = PageTable(key, title, headings, rows, notes, files)
        found.append(table.said_once(len(headings) - 2, len(headings) - 1).without_empty())
    return found


def _row(experiment: Experiment, line: dict[str, str], texts: list[str], facts: Mapping[str, dict[str, str]]) -> Row:
    keys = [
        run_key(line["measured_dataset"], line["measured_model"], line["arm"], seed)
        for seed in (experiment.seeds_of(line["arm"]) if line["arm"] else [])
        if line["arm"] and line["mean"]
    ]
    keys = [key for key in keys if key in facts]
    cells = [PageCell(NAMED[name](line[name]) if name in NAMED else line[name]) for name in texts]
    for name, (_, sign) in NUMBERS.items():
        entry = number(float(line[name]) if line[name] else None, sign)
        if name == "runs":
            entry = PageCell(line[name], float(line[name] or 0), "number")
        if name == "mean" and keys:
            title = hover([facts[key] for key in keys])
            entry = PageCell(entry.text, entry.value, "number", " ".join(keys), title)
        cells.append(entry)
    visible = f" (gains of {float(line['gain_visible']):.2f} would be seen)" if line["gain_visible"] else ""
    verdict = "–" if line["verdict"] == NOT_COMPARED else line["verdict"] + visible
    cells.append(PageCell(verdict, kind=COLORS.get(line["verdict"], "")))
    cells += [PageCell(line["reason"], kind="wide"), PageCell(line["source"], kind="wide")]
    return Row(cells, hole=line["verdict"] in HOLES)


def _lines(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
