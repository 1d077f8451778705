"""A static site of committed records: experiments, methods with what they gain in each, and how to hand in results.

Every page holds all it shows, so that any host of files can serve it and a single page can be sent to somebody.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markupsafe import Markup

from harness.compute import atomic
from harness.errors import UserError
from harness.experiment import discovery
from harness.experiment.schema import Experiment, as_told
from harness.reporting.figures import write_figures
from harness.reporting.measured import Measured, measure
from harness.reporting.names import COLORS
from harness.reporting.over_settings import over_settings
from harness.reporting.page import environment, looks, page
from harness.reporting.page.content import run_facts, run_key
from harness.reporting.page.leaderboard import MIOU, Rank, answer, boards, key_facts, title
from harness.reporting.tables import write_tables
from harness.runs.external_arms import with_external_arms

HERE = Path(__file__).parent
SUBMIT = Path(__file__).parents[3] / "docs" / "submit-results.md"
HOME = "index.html"


@dataclass(frozen=True)
class Shown:
    """An experiment of a results folder: what is said of it on the index, and its first ranking for each setting."""

    address: str
    machine: str
    name: str
    title: str
    answer: str
    facts: list[tuple[str, str]]
    ranks: list[tuple[str, Rank]]  # (data set and network, row)
    demonstration: bool


class Result(NamedTuple):
    """What a method came to in one setting of an experiment."""

    experiment: Shown
    setting: str
    rank: Rank


class Method(NamedTuple):
    """A method's page: its facts, its options and code, and its results."""

    name: str
    address: str
    color: str
    about: discovery.About
    options: list[tuple[str, str]]
    source: str
    results: list[Result]


def write_site(results: Sequence[Path], out: Path, configs: Path, figures: bool = True) -> list[Path]:
    """Write the site of all experiments in `configs` that have runs in one of the `results` folders; returns its pages.

    `figures`: draw them, which takes most of the time. Tables and figures are written under `out`/reports. Raises
    UserError if no folder holds runs of an experiment, or this is no checkout of the project.
    """
    if not SUBMIT.is_file():
        raise UserError(f"there is no {SUBMIT}: make the site in a checkout of the project")
    pages: dict[str, str] = {}
    shown = []
    for folder, experiment, told in _experiments(results, configs):
        measured = measure(experiment, folder)
        address = f"{folder.name}-{experiment.name}.html"
        report = out / "reports" / folder.name / experiment.name
        write_tables(experiment, folder, measured, report / "tables")
        if figures:
            write_figures(experiment, folder, measured, folder=report / "figures")
        pages[address] = page(experiment, folder, measured, report, [], [], home=HOME, told=told)
        shown.append(_shown(experiment, folder, measured, address))
    if not shown:
        raise UserError(f"no folder of {', '.join(map(str, results))} holds runs of an experiment in {configs}")
    methods = [_method(name, shown) for name in discovery.names()]
    templates = environment(HERE)
    common = {**looks(), "home": HOME, "methods": methods, "experiments": shown}
    pages[HOME] = templates.get_template("index.html").render(common)
    for method in methods:
        pages[method.address] = templates.get_template("method.html").render(common, method=method)
    pages["submit.html"] = templates.get_template("submit.html").render(common, text=_submit())
    for name, text in pages.items():
        atomic.write_text(out / name, text)
    return [out / name for name in pages]


def _experiments(results: Sequence[Path], configs: Path) -> Iterator[tuple[Path, Experiment, tuple[str, ...]]]:
    """Results folder, experiment with the data sets and networks that have runs there, and its file and --set."""
    for folder in results:
        for runs in sorted((folder / "runs").glob("*")):
            config = configs / f"{runs.name}.yaml"
            if config.is_file():
                settings = _with_runs(Experiment.load(config), folder)
                experiment = with_external_arms(Experiment.load(config, settings), folder)
                yield folder, experiment, as_told(config.name, settings)


def _with_runs(experiment: Experiment, results: Path) -> list[str]:
    """What to set so that an experiment has only the data sets and networks of which there are runs."""
    ran = [run for run in experiment.runs() if run.folder(results).is_dir()]
    named = {
        "datasets": (experiment.datasets, {run.dataset for run in ran}),
        "models": (experiment.models, {run.model for run in ran}),
    }
    return [
        f"{key}=[{', '.join(name for name in names if name in kept)}]"
        for key, (names, kept) in named.items()
        if kept and kept < set(names)
    ]


def _shown(experiment: Experiment, folder: Path, measured: Sequence[Measured], address: str) -> Shown:
    facts = {
        run_key(run.dataset, run.model, run.arm, run.seed): run_facts(experiment, run, folder)
        for run in experiment.runs()
    }
    shown = MIOU, experiment.protocols[0]
    found = boards(experiment, measured, facts)
    first = [each for each in found if (each.choices["metric"][0], each.choices["protocol"][0]) == shown]
    return Shown(
        address=address,
        machine=folder.name,
        name=experiment.name,
        title=title(experiment),
        answer=answer(experiment, measured, over_settings(experiment, measured)),
        facts=key_facts(experiment, measured, facts),
        ranks=[(board.setting, row) for board in first for row in board.rows if row.mean_value is not None],
        demonstration=experiment.demonstration,
    )


def _method(name: str, shown: Sequence[Shown]) -> Method:
    found = [
        Result(experiment, setting, rank)
        for experiment in shown
        for setting, rank in experiment.ranks
        if rank.method == name
    ]
    return Method(
        name=name,
        address=f"method-{name}.html",
        color=COLORS.get(name, found[0].rank.color if found else "currentColor"),
        about=discovery.about(name),
        options=[(key, str(value)) for key, value in discovery.options(name).items()],
        source=(discovery.FOLDER / f"{name}.py").read_text(encoding="utf-8"),
        results=found,
    )


def _submit() -> Markup:
    """The document on handing in results; its links to other documents of the repository become plain text."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(SUBMIT.read_text(encoding="utf-8"))
    for token in tokens:
        for child in token.children or []:
            if child.type in ("link_open", "link_close"):
                child.type, child.tag, child.attrs = "text", "", {}
    return Markup(markdown.renderer.render(tokens, markdown.options, {}))
