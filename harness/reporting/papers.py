"""The papers' tables beside what was measured: level, gain over the baseline, and a verdict on every gain."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.comparison import Cell
from harness.experiment.schema import Experiment
from harness.reporting import published, verdicts
from harness.reporting.claims import ABLATED, Finding, ablation_claims, claims, measure
from harness.reporting.entries import ABSENT_ENTRY, cell_entry, hole, number, stubs
from harness.reporting.markup import Entry, Grid, points
from harness.reporting.names import arm_name, method_name
from harness.reporting.notes import MEANING, facts, notes
from harness.reporting.settings_table import write_settings_table
from harness.reporting.writing import write_table
from harness.reporting.zoo_table import write_zoo_table

# A table's name, the file of its published figures, its title, and what it shows (`notes.MEANING`).
TABLES = (
    ("main", "miou_main.csv", "The papers' main table", "region"),
    ("cityscapes_test", "miou_cityscapes_test.csv", "Cityscapes test", "region"),
    ("other_backbones", "miou_other_backbones.csv", "Other backbones", "region"),
    ("class_frequency", "miou_by_class_frequency.csv", "Head, mid and tail classes", "frequency"),
    ("object_size", "miou_by_object_size.csv", "Object size", "objects"),
    ("boundary", "boundary_miou_cityscapes.csv", "Boundary mIoU by width, read in both ways", "boundary"),
)
ABLATIONS = "ablations_contextrast_pp_cityscapes_hrnet.csv"
COLUMNS = (
    *("table", "dataset", "split", "model", "method", "metric", "setting", "reading", "protocol", "published"),
    *("published_gain", "measured_dataset", "measured_model", "arm", "baseline", "measured_metric", "runs", "mean"),
    *("sd", "level_difference", "gain", "low", "high", "one_pair", "gain_difference", "verdict", "gain_visible"),
    *("reason", "source"),
)
READING = (
    "Published: the figure and, under it, its gain over the table's baseline. Gain: the measured gain less the "
    "published one and, in brackets, the measured level less the published one, by the published protocol.",
    "Verdict: is there a gain (its interval leaves out 0), and is the published one within the luck of one pair of "
    "runs? Confirmed: both. Contradicted: neither. Open: no gain is told from 0, and the published one is not ruled "
    "out. Only under the published data, settings, options and protocol (docs/metrics.md).",
)


def write_paper_tables(
    experiment: Experiment, results: Path, known: Iterable[Cell] = (), folder: Path | None = None
) -> list[Finding]:
    """Write tables/papers_* of `results`/reports/<experiment>: those that share a data set and model with it.

    `known` are cells with differences to the experiment's baseline that need not be computed again. Returns what was
    found of every published figure in them. `folder` is where they go instead.
    """
    folder = folder or Path(results) / "reports" / experiment.name / "tables"
    settings = published.training_settings(published.FOLDER / "training_settings.csv")
    known = list(known)
    found: dict[str, list[Finding]] = {}
    for name, file, title, kind in TABLES:
        rows = published.figures(published.FOLDER / file)
        if not {(row.dataset, row.model) for row in rows} & set(experiment.pairs()):
            continue
        found[name] = measure(experiment, results, claims(experiment, rows, settings), known)
        _write(experiment, folder, name, title, [MEANING[kind]], found[name])
    rows_of_ablations = published.ablations(published.FOLDER / ABLATIONS)
    if claimed := ablation_claims(experiment, rows_of_ablations, settings):
        found["ablations"] = measure(experiment, results, claimed, known)
        remark = f"Published for Contextrast++ with {ABLATED[1]} on {ABLATED[0]}; a gain is over the full method."
        _write(experiment, folder, "ablations", "Ablations", [remark], found["ablations"])
    if found:
        _write_summary(experiment, folder, found)
    main = found.get("main", []) + found.get("other_backbones", [])
    write_zoo_table(experiment, folder, main)
    write_settings_table(experiment, folder, settings)
    return [each for findings in found.values() for each in findings]


def _write(
    experiment: Experiment, folder: Path, name: str, title: str, remarks: list[str], found: Sequence[Finding]
) -> None:
    grids = []
    for dataset, model in dict.fromkeys(_part(finding) for finding in found):
        of_part = [finding for finding in found if _part(finding) == (dataset, model)]
        over = f"{dataset}, {model}" if model else dataset
        grids.append(
            _grid(experiment, f"papers_{name}-{experiment.name}-{dataset}", f"{title}: {over}", remarks, of_part)
        )
    lines = [_line(name, finding) for finding in found]
    write_table(folder / f"papers_{name}", grids, COLUMNS, lines)


def _part(finding: Finding) -> tuple[str, str]:
    """What stands in one grid together: a data set, or for an ablation a data set and model."""
    claim = finding.claim
    return (claim.dataset, claim.model) if claim.setting else (claim.dataset, "")


def _grid(experiment: Experiment, name: str, title: str, remarks: list[str], found: Sequence[Finding]) -> Grid:
    """A row for every claim: what is published, what was measured by every protocol, and the verdict."""
    protocols = list(dict.fromkeys(finding.protocol for finding in found))
    by_claim = {(id(finding.claim), finding.protocol): finding for finding in found}
    metrics = len({finding.claim.figure.metric for finding in found}) > 1
    rows, sources = [], []
    for claim in {id(finding.claim): finding.claim for finding in found}.values():
        labels = [claim.model, method_name(claim.figure.method)]
        if claim.setting:
            labels = [claim.setting, arm_name(experiment, claim.arm) if claim.arm else "–"]
        if metrics:
            labels.append(claim.figure.metric + (f" ({claim.reading})" if claim.reading else ""))
        of_claim = [by_claim[id(claim), protocol] for protocol in protocols]
        judged = by_claim[id(claim), verdicts.PROTOCOL]
        gain = claim.published_gain
        rows.append(
            [
                *stubs(labels),
                Entry(
                    points(claim.figure.value),
                    detail="" if gain is None else points(gain, True),
                ),
                *map(_measured, of_claim),
                _gain(judged),
                _verdict(judged),
            ]
        )
        sources.append(claim.figure.source)
    baselines = list(dict.fromkeys(finding.claim.baseline for finding in found if finding.claim.baseline))
    cells = [finding.cell for finding in found if finding.cell]
    first = ("setting", "arm") if found[0].claim.setting else ("model", "method")
    return Grid(
        name=name,
        title=title,
        columns=[
            *(("", heading) for heading in (*first, *(["metric"] if metrics else []))),
            ("", "published"),
            *(("measured", protocol) for protocol in protocols),
            ("", "gain"),
            ("", "verdict"),
        ],
        rows=rows,
        notes=[
            *READING,
            notes(experiment, cells, bold=False, baselines=baselines)[0],
        ],
        more=[
            *remarks,
            *_reasons([finding for finding in found if finding.protocol == verdicts.PROTOCOL]),
            *_quoted(found),
            f"Published: {', '.join(dict.fromkeys(sources))}.",
            *facts(experiment, cells),
        ],
        stubs=3 if metrics else 2,
    )


def _quoted(found: Sequence[Finding]) -> list[str]:
    """Which published figures seem to come from elsewhere than their source."""
    figures = dict.fromkeys(finding.claim.figure for finding in found if finding.claim.figure.quoted)
    if not figures:
        return []
    named = ", ".join(f"{method_name(each.method)} with {each.model} {each.value:.1f}" for each in figures)
    return [f"One decimal, as if quoted from other papers, whose training settings are others: {named}."]


def _reasons(found: Sequence[Finding]) -> list[str]:
    """Why gains have no verdict: every reason once."""
    who: dict[tuple[str, str], list[str]] = {}
    for finding in found:
        verdict, claim = finding.verdict, finding.claim
        if claim.published_gain is not None and verdict.kind == verdicts.NOT_COMPARED:
            row = claim.setting or f"{claim.model} with {method_name(claim.figure.method)}"
            who.setdefault((verdict.kind, verdict.reason), []).append(row)
    return [f"{kind.capitalize()} ({', '.join(rows)}): {reason}." for (kind, reason), rows in who.items()]


def _measured(finding: Finding) -> Entry:
    if finding.cell is None:
        return hole(finding.verdict.kind)
    return cell_entry(finding.cell)


def _gain(finding: Finding) -> Entry:
    level, gain = finding.level_difference, finding.gain_difference
    if level is None:
        return ABSENT_ENTRY
    entry = number(gain, sign=True)
    return Entry(entry.text, f"level {points(level, True)}")


def _verdict(finding: Finding) -> Entry:
    verdict = finding.verdict
    if verdict.kind == verdicts.NOT_COMPARED and finding.claim.published_gain is None:
        return Entry("baseline")
    detail = "" if verdict.visible is None else f"gains of {points(verdict.visible)} would be seen"
    return Entry(
        verdict.kind,
        detail,
        strong=verdict.kind == verdicts.CONFIRMED,
    )


def _line(table: str, finding: Finding) -> list[object]:
    """A finding as a row of `COLUMNS`."""
    claim, cell, verdict = finding.claim, finding.cell, finding.verdict
    figure, spread, gain = claim.figure, cell.spread if cell else None, cell.gain if cell else None
    return [
        *(table, figure.dataset, figure.split, figure.model, figure.method, figure.metric, claim.setting),
        *(claim.reading, finding.protocol, figure.value, claim.published_gain, claim.dataset, claim.model),
        *(claim.arm, claim.baseline, claim.metric, len(cell.values) if cell else 0),
        *((spread.mean, spread.sd) if spread else (None, None)),
        finding.level_difference,
        *((gain.difference, gain.low, gain.high, gain.one_pair) if gain else [None] * 4),
        *(finding.gain_difference, verdict.kind, verdict.visible, verdict.reason, figure.source),
    ]


def _write_summary(experiment: Experiment, folder: Path, found: dict[str, list[Finding]]) -> None:
    """How many gains of every table have which verdict, by the published protocol; baselines have none and are out."""
    counted = {
        name: Counter(
            each.verdict.kind
            for each in findings
            if each.protocol == verdicts.PROTOCOL and each.claim.published_gain is not None
        )
        for name, findings in found.items()
    }
    titles = {name: title for name, _, title, _ in TABLES} | {"ablations": "Ablations"}
    grid = Grid(
        name=f"papers_verdicts-{experiment.name}",
        title="Verdicts on the published gains",
        columns=[("", "table"), *(("", kind) for kind in verdicts.KINDS)],
        rows=[
            [Entry(titles[name]), *(Entry(str(kinds[kind])) for kind in verdicts.KINDS)]
            for name, kinds in counted.items()
        ],
        notes=[
            READING[1],
            "Boundary mIoU counts twice, once for each reading. Cost has a table of its own, results/reports/cost.",
        ],
    )
    lines = [[name, kind, kinds[kind]] for name, kinds in counted.items() for kind in verdicts.KINDS]
    write_table(folder / "papers_verdicts", [grid], ("table", "verdict", "gains"), lines)
