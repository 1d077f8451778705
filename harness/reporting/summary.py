"""The last screen of `make run`, `run` and `report`: scores, the page, what to type next. Never imports torch."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from harness import datasets
from harness.compute.shipped import program
from harness.experiment.schema import Experiment
from harness.reporting.names import arm_name
from harness.runs.external_arms import EXTERNAL, with_external_arms
from harness.runs.health import Mark, health_of, marks_of
from harness.runs.state import Missing, read_record

COUNTS = "counts.npz"
REASON = 60  # characters of a reason that are shown


def summary(experiment: Experiment, config: Path, results: Path, overrides: Sequence[str] = ()) -> str:
    """A table of the arms for every data set and model, the page's address, and what to do next.

    config, overrides: what the experiment was read from, for the command to type next.
    """
    parts = [_table(experiment, results, dataset, model) for dataset, model in experiment.pairs()]
    if experiment.demonstration:
        parts.append(demonstration(experiment))
    page = Path(results) / "reports" / experiment.name / "report.html"
    where = f"page  {page.resolve().as_uri()}" if page.is_file() else "page  none yet"
    return "\n\n".join([*parts, "\n".join([where, *_next(experiment, config, results, overrides)])])


def demonstration(experiment: Experiment) -> str:
    """What a demonstration shows, in two sentences."""
    iterations = " or ".join(
        dict.fromkeys(f"{experiment.schedule_of(*pair).iterations:,}" for pair in experiment.pairs())
    )
    rendered = all(datasets.load(name).spec.generator for name in experiment.datasets)
    data = "rendered scenes" if rendered else ", ".join(experiment.datasets)
    seeds = f"{len(experiment.seeds)} seed{'s' if len(experiment.seeds) > 1 else ''}"
    return (
        f"This is a demonstration: {seeds}, {data}, {iterations} iterations. "
        "It shows that everything works; nothing about the methods follows from it."
    )


def _table(experiment: Experiment, results: Path, dataset: str, model: str) -> str:
    protocol = experiment.protocols[0]
    experiment = with_external_arms(experiment, results)
    rows, of_baseline = [], None
    for arm in sorted(experiment.arms, key=lambda arm: arm != experiment.baseline):
        scores: list[float] = []
        missing: list[Missing] = []
        health: list[list[Mark]] = []
        for seed in experiment.seeds_of(arm):
            run = experiment.run(dataset, model, arm, seed)
            found = read_record(experiment, run, results)
            if isinstance(found, Missing):
                missing.append(found)
            elif not (run.folder(results) / COUNTS).is_file():
                missing.append(Missing("unreadable", f"{COUNTS} is missing"))
            elif (score := found.score(protocol)) is not None:
                scores.append(score)
                health.append(health_of(run.folder(results), found))
        if not scores and experiment.arms[arm].method == EXTERNAL:  # it is of another data set or network
            continue
        mean = fmean(scores) if scores else None
        of_baseline = mean if arm == experiment.baseline else of_baseline
        gain = "" if mean is None or of_baseline is None or arm == experiment.baseline else f"{mean - of_baseline:+.2f}"
        why = "; ".join([*marks_of(health), *([_short(str(missing[0]))] if missing else [])])
        shown = "-" if mean is None else f"{mean:.2f}"
        rows.append((arm_name(experiment, arm), shown, gain, f"{len(scores)} of {len(experiment.seeds_of(arm))}", why))
    title = f"{experiment.name}: {model} on {dataset}, {protocol}, in percent"
    return "\n".join([title, *_aligned([("method", "mIoU", "gain", "runs", ""), *rows])])


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as lines: the first and the last column to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligns = "<" + ">" * (len(widths) - 2) + "<"
    cells = [[f"{text:{align}{width}}" for text, align, width in zip(row, aligns, widths, strict=True)] for row in rows]
    return [f"  {'  '.join(row)}".rstrip() for row in cells]


def _next(experiment: Experiment, config: Path, results: Path, overrides: Sequence[str]) -> list[str]:
    harness = program()
    given = f" {shlex.quote(str(config))}"
    given += "".join(f" --set {shlex.quote(each)}" for each in overrides)
    elsewhere = "" if results == Path("results") else f" --results {shlex.quote(str(results))}"
    states = [read_record(experiment, run, results) for run in experiment.runs()]
    if any(isinstance(state, Missing) for state in states):
        return [f"next  {harness} status{given}{elsewhere}    says what is missing, and why"]
    page = Path(results) / "reports" / experiment.name / "report.html"
    if page.is_file() and experiment.demonstration:
        return [
            f"next  {harness} new-method my_method    writes a method of your own that already trains",
            f"      {harness} list datasets    says which real data are found here, and how to name a place",
        ]
    if page.is_file():
        runs = shlex.quote(str(results / "runs" / experiment.name))
        return [
            f"next  {harness} check-record {runs}    says whether the runs can be handed in (docs/submit-results.md)"
        ]
    return [f"next  {harness} report{given}{elsewhere}    writes the tables, figures and page"]


def _short(text: str) -> str:
    return text if len(text) <= REASON else text[: REASON - 3] + "..."
