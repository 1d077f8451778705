"""One self-contained page: the runs, the results, and the source of every number."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from harness.comparison import Cell
from harness.compute import atomic
from harness.compute.provenance import ROOT, code
from harness.evaluation.groups import arm_order
from harness.experiment import discovery
from harness.experiment.schema import Arm, Experiment
from harness.reporting.examples import gather_examples
from harness.reporting.figures import figure_names
from harness.reporting.measured import Measured, measure
from harness.reporting.names import (
    arm_name,
    arm_styles,
    baseline_name,
    dataset_name,
    model_name,
    protocol_name,
    setting_name,
)
from harness.reporting.notes import ABSENT, MANY, MEANING, PROTOCOLS, aa_text
from harness.reporting.over_settings import over_settings
from harness.reporting.page.content import (
    PageTable,
    cell_table,
    class_table,
    run_facts,
    run_key,
    run_table,
    settings_table,
)
from harness.reporting.page.gallery import Gallery, gallery
from harness.reporting.page.graphics import Graphic, downloads, graphic
from harness.reporting.page.leaderboard import CHOICES, MIOU, answer, boards, key_facts, selects, title
from harness.reporting.page.papers import paper_tables, verdict_counts
from harness.reporting.summary import demonstration
from harness.runs.external_arms import EXTERNAL
from harness.statistics.scores import METRICS

HERE = Path(__file__).parent
PICTURE = (".pdf", ".png")  # of a figure that is offered with its table only as a file
# The folded sections: the families of figures in each. Of mIoU and of the classes the page has tables.
FAMILIES = {
    "gains": ("settings", "gains", "schedules"),
    "classes": ("confusion",),
    "edges": ("boundary",),
    "sizes": ("frequency",),
    "cost": ("latency",),
    "training": ("training", "diagnostics"),
    "embeddings": ("embeddings", "negatives"),
}


@dataclass(frozen=True)
class Section:
    """A folded part of the page; `counts` are (number, what), shown first."""

    key: str
    title: str
    about: str
    figures: list[Graphic] = field(default_factory=list)
    tables: list[PageTable] = field(default_factory=list)
    counts: list[tuple[int, str]] = field(default_factory=list)

    @property
    def arms(self) -> list[str]:
        """The arms that its figures can show by themselves."""
        return list(dict.fromkeys(arm for figure in self.figures for arm in figure.arms))


class Described(NamedTuple):
    """An arm's method on the page: `facts` are (term, text, address or "")."""

    arm: str
    name: str
    color: str
    idea: str
    facts: list[tuple[str, str, str]]


def environment(*folders: Path) -> Environment:
    """Where pages' templates are found, in `folders` and here."""
    return Environment(
        loader=FileSystemLoader([*folders, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def looks() -> dict[str, Markup]:
    """Style and script that every page holds."""
    return {part: Markup((HERE / f"page.{part}").read_text(encoding="utf-8")) for part in ("css", "js")}


def write_page(
    experiment: Experiment,
    results: Path,
    measured: Sequence[Measured] | None = None,
    pictures: bool = True,
    told: Sequence[str] = (),
) -> Path:
    """Write `results`/reports/<experiment>/report.html from the records and figures that exist; returns its path.

    The page holds all it shows. What the papers say of it comes from the CSV files in tables/, and figures come from
    figures/: write those first. `measured` saves reading the records again. `pictures`: with examples, which hold
    images of the data set (licences differ in whether those may be passed on). `told`: the experiment's file and --set
    as the verbs take them, for the commands that make the page again; default: its name.
    """
    measured = measure(experiment, results) if measured is None else measured
    folder = Path(results) / "reports" / experiment.name
    path = folder / "report.html"
    found, reasons = gather_examples(experiment, results) if pictures else ([], ["left out of this page."])
    galleries = [gallery(experiment, each, f"examples-{number}") for number, each in enumerate(found)]
    atomic.write_text(path, page(experiment, results, measured, folder, galleries, reasons, told=told))
    return path


def page(
    experiment: Experiment,
    results: Path,
    measured: Sequence[Measured],
    folder: Path,
    galleries: Sequence[Gallery],
    reasons: Sequence[str],
    home: str = "",
    told: Sequence[str] = (),
) -> str:
    """The page's HTML; `folder` holds tables and figures, `reasons` say why some examples are not there.

    `home` is the address of the site that it is a page of, if any.
    """
    facts = {
        run_key(run.dataset, run.model, run.arm, run.seed): run_facts(experiment, run, results)
        for run in experiment.runs()
    }
    means = over_settings(experiment, measured)
    tables = folder / "tables"
    ranked = boards(experiment, measured, facts)
    shown = MIOU, experiment.protocols[0]
    first = [cell for each in measured for cell in each.region if (cell.metric, cell.protocol) == shown]
    return (
        environment()
        .get_template("page.html")
        .render(
            **looks(),
            home=home,
            name=experiment.name,
            heading=title(experiment),
            answer=answer(experiment, measured, means),
            badges=_badges(experiment, first),
            facts=key_facts(experiment, measured, facts),
            boards=ranked,
            selects=selects(ranked),
            labels=CHOICES,
            board_downloads=[*downloads(tables, "miou"), *downloads(folder / "figures", "miou", PICTURE)],
            examples=galleries,
            no_examples=reasons,
            sections=_sections(experiment, measured, folder, facts),
            names={arm: arm_name(experiment, arm) for arm in arm_order(experiment)},
            baseline=experiment.baseline,
            methods=_methods(experiment, home),
            reproduce=_reproduce(told or [experiment.name], results),
            description=_description(experiment),
            schedules=_schedules(experiment),
            reading=_reading(experiment, first),
            runs_json=embedded_json(facts),
        )
    )


def _badges(experiment: Experiment, first: Sequence[Cell]) -> list[str]:
    """What must be known before a number is read."""
    badges = [demonstration(experiment)] if experiment.demonstration else []
    gains = [cell.gain for cell in first if cell.gain]
    if gains and not experiment.demonstration and all(gain.low is None for gain in gains):
        badges.append("Not enough runs: a single run of an arm says nothing about its method.")
    badges += dict.fromkeys(
        f"Not the published {dataset_name(cell.dataset)}: {origin.data}"
        for cell in first
        for origin in cell.origins.values()
        if origin.data
    )
    return badges


def _sections(
    experiment: Experiment, measured: Sequence[Measured], folder: Path, facts: dict[str, dict[str, str]]
) -> list[Section]:
    """All that is folded until somebody asks for it; what has nothing to show is left out."""
    tables = folder / "tables"
    means = over_settings(experiment, measured)

    def table(key: str, heading: str, found: Sequence[Cell], *files: str) -> list[PageTable]:
        if not any(cell.values for cell in found):
            return []
        made = cell_table(experiment, key, heading, found, facts)
        made.downloads.extend(file for name in files for file in downloads(tables, name))
        return [made]

    figures = _figures(experiment, folder / "figures")
    classes = [class_table(experiment, each, f"classes-{number}") for number, each in enumerate(measured)]
    for each, made in zip(measured, classes, strict=True):
        made.downloads.extend(downloads(folder / "figures", f"classes_{each.dataset}_{each.model}", PICTURE))
    if classes:
        classes[0].downloads[:0] = downloads(tables, "per_class")
    edges = [cell for each in measured for cell in each.edges]
    frequency = [cell for each in measured for cell in each.frequency]
    objects = [cell for each in measured for cell in each.objects]
    others = [cell for each in measured for cell in each.others]
    papers = paper_tables(experiment, tables, facts)
    found = [
        Section("gains", "Gains", "by protocol and setting, as figures", figures["gains"]),
        Section("classes", "Classes", f"IoU of each class and its gain; {MANY}", figures["classes"], classes),
        Section(
            "edges",
            "Boundaries",
            f"boundary and trimap mIoU by width; {MANY}",
            figures["edges"],
            table("boundary", "Boundary and trimap mIoU", edges, "boundary"),
        ),
        Section(
            "sizes",
            "Size and frequency",
            f"small and rare things; {MANY}",
            figures["sizes"],
            [
                *table("objects", "mIoU by object size", objects, "objects"),
                *table("frequency", "mIoU of frequent, middling and rare classes", frequency, "frequency"),
            ],
        ),
        Section(
            "other-metrics",
            "Other metrics",
            f"{', '.join(each.title for name, each in METRICS.items() if name != 'miou')}; {MANY}",
            [],
            table("metrics", "Other metrics", others, "metrics"),
        ),
        Section("published", "Published gains", "the papers' figures, found again or not", [], papers),
        Section("cost", "Cost and latency", "accuracy over the time of an image", figures["cost"]),
        Section("training", "Training", "losses and diagnostics that several arms log", figures["training"]),
        Section("embeddings", "Embeddings and negatives", "what the features look like", figures["embeddings"]),
        Section("methods", "Methods", "papers, options, source files"),
        Section("measured", "How it was measured", "intervals, protocols, training settings"),
        Section("runs-table", "All runs", "with status, commit and data", [], [run_table(experiment, facts)]),
    ]
    if means:
        found[0].tables.append(settings_table(experiment, means))
        found[0].tables[0].downloads.extend(downloads(tables, "settings"))
    for section in found:
        if section.key == "published":
            section.counts.extend(verdict_counts(tables))
    always = ("methods", "measured")
    return [each for each in found if each.figures or each.tables or each.key in always]


def _figures(experiment: Experiment, folder: Path) -> dict[str, list[Graphic]]:
    """The figures of each section."""
    found: dict[str, list[Graphic]] = {}
    for section, families in FAMILIES.items():
        names = figure_names(experiment).items()
        of_section = [(name, caption) for family in families for name, caption in names if _is_of(name, family)]
        drawn = [graphic(folder, name, caption) for name, caption in of_section]
        found[section] = [figure for figure in drawn if not figure.empty]
    return found


def _is_of(name: str, family: str) -> bool:
    return name == family or name.startswith(f"{family}_")


def _methods(experiment: Experiment, home: str) -> list[Described]:
    found = []
    for name, (color, _) in arm_styles(experiment).items():
        arm, shown = experiment.arms[name], arm_name(experiment, name)
        if arm.method == EXTERNAL:
            found.append(Described(name, shown, color, "Predictions that were made elsewhere.", []))
            continue
        about = discovery.about(arm.method)
        facts = [("Paper", f"{about.paper}, {about.published}", about.url)] if about.paper else []
        options = {**discovery.options(arm.method), **arm.options}
        facts += [
            ("Source", f"methods/{arm.method}.py, {discovery.source_fingerprint(arm.method)[:10]}", ""),
            ("Options", ", ".join(f"{key} {value}" for key, value in options.items()) or "none", ""),
        ]
        facts += [("In this arm", said.strip(" ()"), "")] if (said := _arm_text(name, arm)) else []
        facts += [("Left open", about.left_open, "")] if about.left_open else []
        facts += [("Elsewhere", "results in all experiments", f"method-{arm.method}.html")] if home else []
        found.append(Described(name, shown, color, about.idea, facts))
    return found


def _reproduce(told: Sequence[str], results: Path) -> list[tuple[str, str]]:
    """(What, command) to write this page again, and to train and measure again what it shows."""
    stem, *settings = told[0].removesuffix(".yaml"), *told[1:]
    of_project = (ROOT / "config" / f"{stem}.yaml").is_file()
    name = shlex.join([stem if of_project else f"{stem}.yaml", *settings])
    folder = Path(results).resolve()
    of_folder = f" --results {folder.relative_to(ROOT)}" if folder.is_relative_to(ROOT) else ""
    made = code()
    found = [("This page", f"python -m harness report {name}{of_folder.removesuffix(' --results results')}")]
    found += [("Its runs", f"python -m harness run {name}")]
    if made["commit"]:
        dirty = "  # and changes that were in no commit" if made["dirty"] else ""
        found.insert(0, ("The code", f"git checkout {made['commit']}{dirty}"))
    return found


def embedded_json(value: Any) -> Markup:
    """JSON for a script element: no text in it can end the element or begin a comment."""
    return Markup(json.dumps(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _description(experiment: Experiment) -> list[tuple[str, str]]:
    arms = [arm_name(experiment, name) + _arm_text(name, arm) for name, arm in experiment.arms.items()]
    return [
        ("Arms", "; ".join(arms)),
        ("Baseline", baseline_name(experiment)),
        ("Data sets and networks", "; ".join(_with_keys(dataset, model) for dataset, model in experiment.pairs())),
        ("Seeds", ", ".join(map(str, experiment.seeds))),
        ("Seeds of the baseline", ", ".join(map(str, experiment.seeds_of(experiment.baseline)))),
        ("Protocols", "; ".join(f"{protocol_name(key)} ({key}): {PROTOCOLS[key]}" for key in experiment.protocols)),
        ("Absent classes", f"{experiment.absent}: {ABSENT[experiment.absent]}"),
    ]


def _with_keys(dataset: str, model: str) -> str:
    """Names and keys: "CamVid (camvid) with HRNet-W48 (hrnet_w48)"."""
    return f"{dataset_name(dataset)} ({dataset}) with {model_name(model)} ({model})"


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
        grouped.setdefault(text, []).append(setting_name(dataset, model))
    return [
        (", ".join(names), [(key.replace("_", " "), str(value)) for key, value in json.loads(text).items()])
        for text, names in grouped.items()
    ]


def _reading(experiment: Experiment, found: Sequence[Cell]) -> list[str]:
    halves = [(cell, aa_text(cell, found)) for cell in found if cell.is_baseline]
    return [
        MEANING["region"],
        MEANING["boundary"],
        MEANING["trimap"],
        f"A gain is an arm's mean less that of {baseline_name(experiment)}, in percentage points, with a 95 % "
        "interval that knows the noise of seeds and of test images and holds for all arms of a column at once.",
        "A filled mark: the interval leaves out 0. From a single run there is no interval: it says nothing about a "
        "method. Verdicts are in the ranking alone; everything else is one of many comparisons.",
        *(f"{setting_name(cell.dataset, cell.model)}. {text}" for cell, text in halves if text),
        "A number that is a button says which runs it was made of: commit, seed, data fingerprint. Point at it or "
        "press it.",
        "Grey rows are holes: what was not run, or failed, with its reason.",
    ]
