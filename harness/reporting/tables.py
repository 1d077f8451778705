"""Tables of an experiment: long CSV files with every digit, and the same numbers rounded for reading and for papers."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harness.comparison import COLUMNS, Cell, by_gain, csv_row, spread
from harness.evaluation.groups import arm_order
from harness.experiment.schema import Experiment
from harness.reporting.entries import ABSENT_ENTRY, arm_entry, cell_entry, row_entries
from harness.reporting.lengths_table import write_lengths
from harness.reporting.markup import Entry, Grid, points
from harness.reporting.measured import PARTS, Measured, edge_protocol, measure
from harness.reporting.names import arm_name
from harness.reporting.notes import ABSENT, MANY, MEANING, PROTOCOLS, facts, notes
from harness.reporting.over_settings import settings_grid, write_settings
from harness.reporting.papers import write_paper_tables
from harness.reporting.seeds_table import write_seeds
from harness.reporting.writing import write_table
from harness.statistics.scores import METRICS, metric_name

COLUMNS_TO_READ = 6  # a wider table is split, between models
CLASS_COLUMNS = ("dataset", "model", "protocol", "arm", "class", "metric", "runs", "mean", "sd")

THIRDS = ("head", "mid", "tail")
BOUNDARY_TITLES = {"boundary": "Boundary mIoU", "trimap": "Trimap mIoU"}


def write_tables(
    experiment: Experiment, results: Path, measured: Sequence[Measured] | None = None, folder: Path | None = None
) -> None:
    """Write tables/* of `results`/reports/<experiment> from the records that exist, each as csv, md and tex.

    miou has the verdicts; metrics (the others of `METRICS`), boundary, frequency (head, mid, tail), objects (by size)
    and per_class are details. seeds: what more seeds would see. lengths: gains by number of iterations, if the
    experiment has several. settings: means over several data sets and networks.
    papers_*: the papers' figures with verdicts, if the experiment trains what they report. Pass `measured` to avoid
    reading the records again, and `folder` to write elsewhere.
    """
    folder = folder or Path(results) / "reports" / experiment.name / "tables"
    measured = measure(experiment, results) if measured is None else measured
    region = [cell for each in measured for cell in each.region]
    grids = [*settings_grid(experiment, measured), *_rows_grids(experiment, region)]
    write_table(folder / "miou", grids, COLUMNS, map(csv_row, region))
    write_settings(experiment, folder, measured)
    write_seeds(experiment, folder, measured)
    write_lengths(experiment, folder, measured)
    _write_classes(
        experiment, folder / "per_class", [row for each in measured for row in _class_rows(experiment, each)]
    )
    frequency = [cell for each in measured for cell in each.frequency]
    if frequency:
        columns = [(str(p), f"miou_{third}", f"{p}, {third}") for p in experiment.protocols for third in THIRDS]
        remarks = list(dict.fromkeys(remark for each in measured for remark in _thirds(each)))
        grids = _grids(experiment, frequency, "mIoU by class frequency", "frequency", columns, remarks)
        write_table(folder / "frequency", grids, COLUMNS, map(csv_row, frequency))

    others = [cell for each in measured for cell in each.others]
    columns = [(experiment.protocols[0], name, each.title) for name, each in METRICS.items() if name != "miou"]
    grids = _grids(experiment, others, "Other metrics", "metrics", columns)
    write_table(folder / "metrics", grids, COLUMNS, map(csv_row, others))

    protocol: str = edge_protocol(experiment)
    found, grids = [], []
    for kind, title in BOUNDARY_TITLES.items():
        columns = [(protocol, metric_name(table), table.partition("@")[2]) for table in PARTS[kind][1]]
        metrics = {metric for _, metric, _ in columns}
        of_kind = [cell for each in measured for cell in each.edges if cell.metric in metrics]
        found += of_kind
        grids += _grids(experiment, of_kind, title, kind, columns)
    write_table(folder / "boundary", grids, COLUMNS, map(csv_row, found))

    found = [cell for each in measured for cell in each.objects]
    if any(cell.values for cell in found):  # counts from before there were objects have none
        columns = [(protocol, metric_name(table), table.partition("@")[2]) for table in PARTS["objects"][1]]
        grids = _grids(experiment, found, "mIoU by object size", "objects", columns)
        write_table(folder / "objects", grids, COLUMNS, map(csv_row, found))

    write_paper_tables(experiment, results, [*region, *frequency], folder)


def _rows_grids(experiment: Experiment, found: Sequence[Cell]) -> list[Grid]:
    """For every data set and model the mIoU by the first protocol, a row an arm; the other protocols folded."""
    grids = []
    for dataset, model, protocol in dict.fromkeys((cell.dataset, cell.model, cell.protocol) for cell in found):
        of_grid = [cell for cell in found if (cell.dataset, cell.model, cell.protocol) == (dataset, model, protocol)]
        first = protocol == experiment.protocols[0]
        grids.append(
            Grid(
                name="-".join(["region", experiment.name, dataset, model, protocol]),
                title=f"mIoU: {dataset}, {model}" + ("" if first else f", {protocol}"),
                columns=[("", ""), ("", "mIoU mean ± SD"), ("", "runs"), ("", "gain [95 %]")],
                rows=[row_entries(arm_name(experiment, cell.arm), cell, bold=first) for cell in by_gain(of_grid)],
                notes=notes(experiment, of_grid, bold=first),
                more=facts(experiment, of_grid),
                fold="" if first else MANY,
            )
        )
    return grids


def _grids(
    experiment: Experiment,
    found: Sequence[Cell],
    title: str,
    kind: str,
    columns: Sequence[tuple[str, str, str]],
    remarks: Sequence[str] = (),
) -> list[Grid]:
    """Folded tables with `columns` (protocol, metric, heading) for every data set and model, several side by side."""
    by_key = {(cell.dataset, cell.model, cell.arm, cell.protocol, cell.metric): cell for cell in found}
    pairs = list(dict.fromkeys((cell.dataset, cell.model) for cell in found))
    side_by_side = max(1, COLUMNS_TO_READ // len(columns))
    grids = []
    for start in range(0, len(pairs), side_by_side):
        chosen = pairs[start : start + side_by_side]
        rows = [
            [by_key[(*pair, arm, protocol, metric)] for pair in chosen for protocol, metric, _ in columns]
            for arm in arm_order(experiment)
        ]
        over = [(f"{dataset}, {model}", heading) for dataset, model in chosen for _, _, heading in columns]
        shown = [cell for row in rows for cell in row]
        grids.append(
            Grid(
                name="-".join([kind, experiment.name, *(f"{dataset}-{model}" for dataset, model in chosen[:1])]),
                title=title,
                columns=[("", ""), *over],
                rows=[[arm_entry(arm_name(experiment, row[0].arm), row[0]), *map(cell_entry, row)] for row in rows],
                notes=[MEANING[kind], *notes(experiment, shown, bold=False)[:1]],
                more=[*remarks, *facts(experiment, shown)],
                fold=MANY,
            )
        )
    return grids


def _thirds(each: Measured) -> list[str]:
    """Which classes of a data set are head, mid and tail, in one line; none if that is not known."""
    named = [f"{name}: {', '.join(each.classes[place] for place in places)}" for name, places in each.thirds.items()]
    return [f"{each.dataset}: {'; '.join(named)}."] if named else []


_ClassRow = tuple[str, str, str, str, str, list[float]]  # data set, model, protocol, arm, class, IoU a seed


def _class_rows(experiment: Experiment, each: Measured) -> list[_ClassRow]:
    """IoU in percent of every class of a data set's and model's runs, without the seeds for which it is undefined."""
    rows = []
    for protocol, arms in each.class_ious.items():
        for arm in arm_order(experiment):
            values = np.array(list(arms[arm].values()))
            for index, name in enumerate(each.classes):
                seeds = [float(value) for value in values[:, index] if not np.isnan(value)] if len(values) else []
                rows.append((each.dataset, each.model, protocol, arm, name, seeds))
    return rows


def _write_classes(experiment: Experiment, path: Path, rows: Sequence[_ClassRow]) -> None:
    lines = []
    for *key, values in rows:
        over = spread(values) if values else None
        lines.append([*key, "iou", len(values), *((over.mean, over.sd) if over else (None, None))])

    arms, grids = arm_order(experiment), []
    by_key = {tuple(key): values for *key, values in rows}
    for dataset, model, protocol in dict.fromkeys(row[:3] for row in rows):
        names = dict.fromkeys(row[4] for row in rows if row[:3] == (dataset, model, protocol))
        body = [
            [Entry(name), *(_class_entry(by_key[dataset, model, protocol, arm, name]) for arm in arms)]
            for name in names
        ]
        remarks = [
            "IoU in percent, the mean over n runs; – where no run is done or the class is absent.",
            f"Absent classes ({experiment.absent}): {ABSENT[experiment.absent]}.",
            f"Protocol {protocol}: {PROTOCOLS[protocol]}.",
        ]
        grids.append(
            Grid(
                name="-".join(["per_class", experiment.name, dataset, model, protocol]),
                title=f"IoU per class: {dataset}, {model}, {protocol}",
                columns=[("", ""), *(("", arm_name(experiment, arm)) for arm in arms)],
                rows=body,
                notes=remarks,
                fold=MANY,
            )
        )
    write_table(path, grids, CLASS_COLUMNS, lines, empty="No run was evaluated.\n")


def _class_entry(values: Sequence[float]) -> Entry:
    if not values:
        return ABSENT_ENTRY
    mean = spread(values).mean
    return Entry(points(mean), f"n {len(values)}")
