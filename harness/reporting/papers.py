"""The papers' tables with what was measured: level, gain over the baseline, and a verdict on every gain."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.comparison import Cell
from harness.experiment.schema import Experiment
from harness.reporting import published, verdicts
from harness.reporting.claims import claims, compared
from harness.reporting.entries import ABSENT_ENTRY, cell_entry, hole, number
from harness.reporting.markup import Entry, Grid, points
from harness.reporting.names import arm_name, method_name
from harness.reporting.notes import MEANING, facts, notes
from harness.reporting.settings_table import write_settings_table
from harness.reporting.writing import write_table
from harness.reporting.zoo_table import write_zoo_table

if TYPE_CHECKING:
    import pandas as pd

Row = Any  # of a data frame, its columns as attributes
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
) -> None:
    """Write tables/papers_* of `results`/reports/<experiment>: those that share a data set and model with it.

    `known` are cells with differences to the experiment's baseline that need not be computed again. `folder` is where
    they go instead.
    """
    import pandas as pd

    folder = folder or Path(results) / "reports" / experiment.name / "tables"
    known, titles, found = list(known), {}, []
    for table in published.tables():
        claimed = claims(experiment, published.figures(table["file"]))
        if _concerns(experiment, claimed):
            titles[table["table"]] = table["title"]
            found.append(compared(experiment, results, claimed, known).assign(table=table["table"]))
            _write(experiment, folder, table, found[-1])
    if found:
        _write_summary(experiment, folder, titles, pd.concat(found))
        write_zoo_table(experiment, folder, pd.concat(found))
    write_settings_table(experiment, folder)


def _concerns(experiment: Experiment, claimed: "pd.DataFrame") -> bool:
    """Whether an experiment has a data set and model of a published table; of ablations, an arm besides the whole."""
    if claimed["setting"].any():
        return bool(claimed.loc[claimed["published_gain"].notna(), "arm"].notna().any())
    return bool(set(zip(claimed["dataset"], claimed["model"], strict=True)) & set(experiment.pairs()))


def _write(experiment: Experiment, folder: Path, table: dict[str, str], found: "pd.DataFrame") -> None:
    """A grid for every data set, of ablations for every data set and model."""
    file, first = f"papers_{table['table']}", found.iloc[0]
    whole = f"Published for {method_name(first['method'])} with {first['model']} on {first['dataset']}"
    remark = MEANING[table["shows"]] if table["shows"] else f"{whole}; a gain is over the full method."
    parts = ["measured_dataset", "measured_model"] if found["setting"].any() else ["measured_dataset"]
    several = found["measured_model"].nunique() > 1
    grids = []
    for part, of_part in found.groupby(parts, sort=False):
        label = "-".join([file, experiment.name, *(part if several else part[:1])])
        grids.append(_grid(experiment, label, f"{table['title']}: {', '.join(part)}", remark, of_part))
    write_table(folder / file, grids, COLUMNS, found[list(COLUMNS)].to_numpy().tolist())


def _grid(experiment: Experiment, name: str, title: str, remark: str, found: "pd.DataFrame") -> Grid:
    """A row for every claim: what is published, what was measured by every protocol, and the verdict."""
    metrics, ablation = found["metric"].nunique() > 1, bool(found["setting"].any())
    protocols, of_claims = list(found["protocol"].unique()), list(found.itertuples())
    judged = [row for row in of_claims if row.protocol == row.published_protocol]
    entries = {(row.claim, row.protocol): _measured(row) for row in of_claims}
    rows = []
    for row in judged:
        labels = [row.measured_model, method_name(row.method)]
        if ablation:
            labels = [row.setting, arm_name(experiment, row.arm) if row.arm else "–"]
        if metrics:
            labels.append(row.metric + (f" ({row.reading})" if row.reading else ""))
        gain = "" if row.published_gain is None else points(row.published_gain, True)
        rows.append(
            [
                *map(Entry, labels),
                Entry(points(row.published), detail=gain),
                *(entries[row.claim, protocol] for protocol in protocols),
                _gain(row),
                _verdict(row),
            ]
        )
    cells = list(found["cell"].dropna())
    sources = ", ".join(found["source"].unique())
    first = ("setting", "arm") if ablation else ("model", "method")
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
        notes=[*READING, notes(experiment, cells, bold=False, baselines=list(found["baseline"].dropna().unique()))[0]],
        more=[remark, *_reasons(judged), *_quoted(judged), f"Published: {sources}.", *facts(experiment, cells)],
        stubs=3 if metrics else 2,
    )


def _measured(row: Row) -> Entry:
    return hole(row.verdict) if row.cell is None else cell_entry(row.cell)


def _quoted(judged: Sequence[Row]) -> list[str]:
    """Which published figures seem to come from elsewhere than their source."""
    found = dict.fromkeys(
        f"{method_name(row.method)} with {row.model} {row.published:.1f}" for row in judged if row.quoted
    )
    said = "One decimal, as if quoted from other papers, whose training settings are others"
    return [f"{said}: {', '.join(found)}."] if found else []


def _reasons(judged: Sequence[Row]) -> list[str]:
    """Why gains have no verdict: every reason once."""
    who: dict[str, list[str]] = {}
    for row in judged:
        if row.verdict == verdicts.NOT_COMPARED and row.published_gain is not None:
            named = row.setting or f"{row.measured_model} with {method_name(row.method)}"
            who.setdefault(row.reason, []).append(named)
    return [f"{verdicts.NOT_COMPARED.capitalize()} ({', '.join(rows)}): {reason}." for reason, rows in who.items()]


def _gain(row: Row) -> Entry:
    if row.level_difference is None:
        return ABSENT_ENTRY
    return Entry(number(row.gain_difference, sign=True).text, f"level {points(row.level_difference, True)}")


def _verdict(row: Row) -> Entry:
    if row.verdict == verdicts.NOT_COMPARED and row.published_gain is None:
        return Entry("baseline")
    detail = "" if row.gain_visible is None else f"gains of {points(row.gain_visible)} would be seen"
    return Entry(row.verdict, detail, strong=row.verdict == verdicts.CONFIRMED)


def _write_summary(experiment: Experiment, folder: Path, titles: dict[str, str], found: "pd.DataFrame") -> None:
    """How many gains of every table have which verdict, by the published protocol; baselines have none and are out."""
    gains = found[(found["protocol"] == found["published_protocol"]) & found["published_gain"].notna()]
    counted = gains.value_counts(["table", "verdict"])
    lines = [(name, kind, int(counted.get((name, kind), 0))) for name in titles for kind in verdicts.KINDS]
    grid = Grid(
        name=f"papers_verdicts-{experiment.name}",
        title="Verdicts on the published gains",
        columns=[("", "table"), *(("", kind) for kind in verdicts.KINDS)],
        rows=[
            [Entry(title), *(Entry(str(count)) for table, _, count in lines if table == name)]
            for name, title in titles.items()
        ],
        notes=[
            READING[1],
            "Boundary mIoU counts twice, once for each reading. Cost has a table of its own, results/reports/cost.",
        ],
    )
    write_table(folder / "papers_verdicts", [grid], ("table", "verdict", "gains"), lines)
