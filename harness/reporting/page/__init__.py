"""One self-contained page: what was run, what came out, and where every number is from."""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.comparison import Cell, by_gain
from harness.compute import atomic
from harness.evaluation.groups import display_name
from harness.experiment.schema import Arm, Experiment
from harness.reporting.examples import gather_examples
from harness.reporting.figures import figure_names
from harness.reporting.measured import Measured, measure
from harness.reporting.notes import ABSENT, MANY, MEANING, PROTOCOLS, aa_text
from harness.reporting.over_settings import over_settings
from harness.reporting.page.content import (
    cell_table,
    class_table,
    data_uri,
    run_facts,
    run_key,
    run_table,
    settings_table,
)
from harness.reporting.page.gallery import Gallery, gallery
from harness.reporting.page.papers import paper_tables, verdict_counts
from harness.reporting.summary import demonstration

HERE = Path(__file__).parent
SECTIONS = {
    "summary": "Summary",
    "run": "What was run",
    "read": "How to read it",
    "tables": "Tables",
    "figures": "Figures",
    "examples": "Examples",
    "runs-table": "Runs",
}


@dataclass(frozen=True)
class Figure:
    """A figure of the page: a data URI with the size that it is shown at in pixels, or why there is none."""

    caption: str
    source: str = ""
    width: int = 0
    height: int = 0
    missing: str = ""


def write_page(
    experiment: Experiment,
    results: Path,
    measured: Sequence[Measured] | None = None,
    pictures: bool = True,
) -> Path:
    """Write `results`/reports/<experiment>/report.html from the records and figures that exist; returns its path.

    The page holds all it shows. What the papers say of it comes from the CSV files in tables/, and figures come from
    figures/: write those first. `measured` saves reading the records again. `pictures`: with examples, which hold
    images of the data set (licences differ in whether those may be passed on).
    """
    measured = measure(experiment, results) if measured is None else measured
    folder = Path(results) / "reports" / experiment.name
    path = folder / "report.html"
    found, reasons = gather_examples(experiment, results) if pictures else ([], ["left out of this page."])
    galleries = [gallery(each, f"examples-{number}") for number, each in enumerate(found)]
    atomic.write_text(path, page(experiment, results, measured, folder, galleries, reasons))
    return path


def page(
    experiment: Experiment,
    results: Path,
    measured: Sequence[Measured],
    folder: Path,
    galleries: Sequence[Gallery],
    reasons: Sequence[str],
) -> str:
    """The page's HTML; `folder` holds tables and figures, `reasons` say why some examples are not there."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    facts = {
        run_key(run.dataset, run.model, run.arm, run.seed): run_facts(experiment, run, results)
        for run in experiment.runs()
    }
    region = [cell for each in measured for cell in each.region]
    statuses = [of_run["status"] for of_run in facts.values()]
    first = [cell for cell in region if cell.protocol == experiment.protocols[0]]
    columns = [[cell for cell in first if (cell.dataset, cell.model) == pair] for pair in experiment.pairs()]
    main = cell_table("miou", "mIoU", [cell for column in columns for cell in by_gain(column)], facts, verdicts=True)
    means = over_settings(experiment, measured)
    tables = []
    for key, title, found in (
        ("protocols", "mIoU by other protocols", [cell for cell in region if cell.protocol != experiment.protocols[0]]),
        ("frequency", "mIoU of frequent, middling and rare classes", [c for each in measured for c in each.frequency]),
        ("boundary", "Boundary and trimap mIoU", [c for each in measured for c in each.edges]),
        ("objects", "mIoU by object size", [c for each in measured for c in each.objects]),
    ):
        if any(cell.values for cell in found):
            tables.append(cell_table(key, title, found, facts))
    tables += [class_table(experiment, each, f"classes-{number}") for number, each in enumerate(measured)]
    figures = {
        name: _figure(folder / "figures" / f"{name}.png", caption) for name, caption in figure_names(experiment).items()
    }
    gains = [name for name in figures if name == "settings" or name.startswith("gains_")]  # what was found, at a glance
    return environment.get_template("page.html").render(
        name=experiment.name,
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        js=Markup((HERE / "page.js").read_text(encoding="utf-8")),
        runs_json=embedded_json(facts),
        sections=list(SECTIONS.items()),
        demonstration=demonstration(experiment) if experiment.demonstration else "",
        headline=headline(experiment, first),
        counts=[(statuses.count(status), status.replace("_", " ")) for status in dict.fromkeys(statuses)],
        verdict_counts=verdict_counts(folder / "tables"),
        verdicts=paper_tables(experiment, folder / "tables", facts),
        description=_description(experiment),
        schedules=_schedules(experiment),
        reading=_reading(experiment, first),
        leading=[*([settings_table(means)] if means else []), main],
        tables=tables,
        many=MANY,
        gains=[figures[name] for name in gains],
        figures=[figure for name, figure in figures.items() if name not in gains],
        examples=galleries,
        no_examples=reasons,
        run_table=run_table(experiment, facts),
    )


def embedded_json(value: Any) -> Markup:
    """JSON that may stand in a script element: no text in it can end the element or begin a comment."""
    return Markup(json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def headline(experiment: Experiment, found: Sequence[Cell]) -> str:
    """What the mIoU table says in one sentence: how many arms can be told from the baseline, and how many cannot."""
    pairs = [cell for cell in found if not cell.is_baseline]
    gains = [cell.gain for cell in pairs if cell.gain is not None]
    better = sum(gain.excludes_zero and gain.difference > 0 for gain in gains)
    worse = sum(gain.excludes_zero for gain in gains) - better
    single = sum(gain.low is None for gain in gains)
    return (
        f"Of {len(pairs)} comparisons with {display_name(experiment.baseline)} in mIoU (an arm, a data set and a model "
        f"each), {len(gains)} have runs on both sides: {better} better and {worse} worse, "
        f"{len(gains) - better - worse - single} that cannot be told from 0, and {single} without an interval (single "
        "runs)."
    )


def _description(experiment: Experiment) -> list[tuple[str, str]]:
    arms = [display_name(name) + _arm_text(name, arm) for name, arm in experiment.arms.items()]
    return [
        ("Arms", "; ".join(arms)),
        ("Baseline", display_name(experiment.baseline)),
        ("Data sets and models", "; ".join(f"{dataset} with {model}" for dataset, model in experiment.pairs())),
        ("Seeds", ", ".join(map(str, experiment.seeds))),
        ("Seeds of the baseline", ", ".join(map(str, experiment.seeds_of(experiment.baseline)))),
        ("Protocols", "; ".join(f"{name}: {PROTOCOLS[name]}" for name in experiment.protocols)),
        ("Absent classes", f"{experiment.absent}: {ABSENT[experiment.absent]}"),
    ]


def _arm_text(name: str, arm: Arm) -> str:
    """In brackets what its name does not say of an arm: its method, and what is not the default."""
    parts = arm.model_dump(exclude_defaults=True, exclude={"method", "options"}) | arm.options
    said = [
        *([] if arm.method == name and not parts else [arm.method]),
        *(f"{key} {value}" for key, value in parts.items()),
    ]
    return f" ({', '.join(said)})" if said else ""


def _schedules(experiment: Experiment) -> list[tuple[str, list[tuple[str, str]]]]:
    """The training settings of every pair, those that are the same once."""
    grouped: dict[str, list[str]] = {}
    for dataset, model in experiment.pairs():
        text = json.dumps(experiment.schedule_of(dataset, model).model_dump(mode="json"))
        grouped.setdefault(text, []).append(f"{dataset} with {model}")
    return [
        (", ".join(names), [(key.replace("_", " "), str(value)) for key, value in json.loads(text).items()])
        for text, names in grouped.items()
    ]


def _reading(experiment: Experiment, found: Sequence[Cell]) -> list[str]:
    halves = [(cell, aa_text(cell)) for cell in found if cell.is_baseline]
    return [
        MEANING["region"],
        MEANING["boundary"],
        MEANING["trimap"],
        f"A gain is an arm's mean less that of {display_name(experiment.baseline)}, in percentage points, with a 95 % "
        "interval that knows the noise of seeds and of test images and holds for all arms of a column at once.",
        "Better and worse: the interval leaves out 0. From a single run there is no interval: it says nothing about a "
        "method. Verdicts stand in the first table alone; everything else is one of many comparisons.",
        *(f"{cell.dataset}, {cell.model}. {text}" for cell, text in halves if text),
        "A number that is a button says which runs it was made of: commit, seed, data fingerprint. Point at it or "
        "press it.",
        "Grey rows are holes: what was not run, or failed, with its reason.",
        "A click on a heading sorts, another one the other way round. The box above a table keeps the rows that hold "
        "all its words.",
    ]


def _figure(path: Path, caption: str) -> Figure:
    if not path.is_file():
        return Figure(caption, missing=f"{path.name} was not drawn; python -m harness report --part figures draws it.")
    content = path.read_bytes()
    width, height = struct.unpack(">II", content[16:24])  # of the PNG's header
    # At half its dots, so that text has one size in figures of one column and of two, and is sharp on any screen.
    return Figure(caption, data_uri(content), width // 2, height // 2)
