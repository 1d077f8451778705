"""One self-contained page: what was run, what came out, and where every number is from."""

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness import atomic
from harness.experiment import Arm, Experiment
from harness.reporting.examples import gather_examples
from harness.reporting.figures import figure_names
from harness.reporting.measured import Measured, measure
from harness.reporting.notes import ABSENT, CORRECTION, MEANING, POOLED, PROTOCOLS
from harness.reporting.page.content import cell_table, class_table, data_uri, run_facts, run_key, run_table
from harness.reporting.page.gallery import Gallery, gallery
from harness.reporting.page.papers import paper_tables, verdict_counts
from harness.reporting.records import Cell, display_name
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
    tables = [cell_table("miou", "mIoU", region, facts)]
    for key, title, found in (
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
    gains = [name for name in figures if name.startswith("gains_")]  # what was found, at a glance
    return environment.get_template("page.html").render(
        name=experiment.name,
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        js=Markup((HERE / "page.js").read_text(encoding="utf-8")),
        runs_json=embedded_json(facts),
        sections=list(SECTIONS.items()),
        demonstration=demonstration(experiment) if experiment.demonstration else "",
        headline=headline(experiment, region),
        counts=[(statuses.count(status), status.replace("_", " ")) for status in dict.fromkeys(statuses)],
        verdict_counts=verdict_counts(folder / "tables"),
        verdicts=paper_tables(experiment, folder / "tables", facts),
        description=_description(experiment),
        schedules=_schedules(experiment),
        reading=_reading(experiment),
        tables=tables,
        gains=[figures[name] for name in gains],
        figures=[figure for name, figure in figures.items() if name not in gains],
        examples=galleries,
        no_examples=reasons,
        run_table=run_table(experiment, facts),
    )


def embedded_json(value: Any) -> Markup:
    """JSON that may stand in a script element: no text in it can end the element or begin a comment."""
    return Markup(json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def headline(experiment: Experiment, region: Sequence[Cell]) -> str:
    """What the mIoU table says in one sentence: how many comparisons are outside the noise, and how many are not."""
    pairs = [cell for cell in region if not cell.is_baseline]
    better = sum(cell.verdict and cell.interval is not None and cell.interval.difference > 0 for cell in pairs)
    worse = sum(cell.verdict for cell in pairs) - better
    compared = sum(cell.interval is not None for cell in pairs)
    few = sum(cell.interval is not None and cell.interval.seeds < 3 for cell in pairs)
    return (
        f"Of {len(pairs)} comparisons with {display_name(experiment.baseline)} in mIoU (an arm, a data set, a model "
        f"and a protocol each), {compared} have runs on both sides: {better} better and {worse} worse outside the "
        f"noise, {compared - better - worse - few} inside it, and {few} with too few seeds for a verdict."
    )


def _description(experiment: Experiment) -> list[tuple[str, str]]:
    arms = [display_name(name) + _arm_text(name, arm) for name, arm in experiment.arms.items()]
    return [
        ("Arms", "; ".join(arms)),
        ("Baseline", display_name(experiment.baseline)),
        ("Data sets and models", "; ".join(f"{dataset} with {model}" for dataset, model in experiment.pairs())),
        ("Seeds", ", ".join(map(str, experiment.seeds))),
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


def _reading(experiment: Experiment) -> list[str]:
    return [
        MEANING["region"],
        MEANING["boundary"],
        MEANING["trimap"],
        f"A difference is an arm less {display_name(experiment.baseline)}, in percentage points, paired by seed and by "
        f"image, with its 95 % interval, {CORRECTION}.",
        "Better and worse: the interval leaves out 0, with three seeds or more. Anything else is inside the noise, or "
        "has too few seeds to say. With one seed the interval knows the noise of the test images and not that of "
        "training.",
        f"With pooled scatter: {POOLED} It has no part in the words of the next column.",
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
