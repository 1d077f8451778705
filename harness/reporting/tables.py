"""Tables of an experiment: long CSV files with every digit, and the same numbers rounded for reading and for papers."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from harness import atomic
from harness.evaluation.counts import DEFAULT_WIDTHS, REGION
from harness.evaluation.external import EXTERNAL
from harness.experiment import Experiment
from harness.reporting.markup import Grid, escape_markdown, latex, markdown, markdown_table, points
from harness.reporting.records import (
    Cell,
    Group,
    arm_order,
    cells,
    display_name,
    groups,
)
from harness.statistics.comparison import spread
from harness.statistics.noise import ENOUGH_SEEDS
from harness.statistics.scores import iou, metric_name

COLUMNS_TO_READ = 6  # a wider table is split, between models
CSV_COLUMNS = (
    *("dataset", "model", "protocol", "arm", "metric", "seeds", "mean", "min", "max"),
    *("difference", "low", "high", "unit", "note", "status"),
)
CLASS_COLUMNS = ("dataset", "model", "protocol", "arm", "class", "metric", "seeds", "mean", "min", "max")

PROTOCOLS = {
    "whole": "the image as it is, one scale",
    "slide": "a window slid over the image, softmax averaged where windows overlap",
    "ms_flip": "scales 0.75 to 2.0 in steps of 0.25, each with its mirror image, softmax averaged",
}
ABSENT = {
    "skip": "a class in neither ground truth nor prediction is left out of the mean",
    "zero": "every class counts in the mean, an absent one as 0",
    "require_ground_truth": "a class without ground truth is left out of the mean",
}
MEANING = {
    "region": "mIoU: TP, FP and FN summed over all images, then IoU = TP / (TP + FP + FN), then the mean over classes.",
    "boundary": "Boundary mIoU (Cheng et al., CVPR 2021): the IoU of the bands along each class's edge in prediction "
    "and ground truth. A column is the band's width: pixels, or a share of the image's diagonal.",
    "trimap": "Trimap mIoU: the mIoU of the pixels near an edge of the ground truth. A column is how near: pixels, or "
    "a share of the image's diagonal.",
}
BOUNDARY_TITLES = {"boundary": "Boundary mIoU", "trimap": "Trimap mIoU"}


def write_tables(experiment: Experiment, results: Path) -> None:
    """Write tables/{miou,boundary,per_class} of `results`/reports/<experiment> from the records that exist."""
    folder = Path(results) / "reports" / experiment.name / "tables"

    found: list[Cell] = []
    classes: list[_ClassRow] = []
    for group in groups(experiment, results, [REGION]):
        found += cells(experiment, group)
        classes += _class_rows(experiment, group)
    columns = [(str(protocol), "miou", str(protocol)) for protocol in experiment.protocols]
    _write(folder / "miou", found, _grids(experiment, found, "mIoU", "region", columns))
    _write_classes(experiment, folder / "per_class", classes)

    # The label maps themselves, not an average over scales, show what a network does at an edge.
    protocol = "whole" if "whole" in experiment.protocols else experiment.protocols[0]
    found, grids = [], []
    for kind, title in BOUNDARY_TITLES.items():
        tables = [f"{kind}@{width}" for width in DEFAULT_WIDTHS]
        of_kind = [
            cell for group in groups(experiment, results, tables, [protocol]) for cell in cells(experiment, group)
        ]
        columns = [(protocol, metric_name(table), table.partition("@")[2]) for table in tables]
        found += of_kind
        grids += _grids(experiment, of_kind, title, kind, columns)
    _write(folder / "boundary", found, grids)


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV; floats with every digit, None as an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def csv_row(cell: Cell) -> list[object]:
    """A cell as a row of `CSV_COLUMNS`."""
    mean, interval = cell.spread, cell.interval
    return [
        *(cell.dataset, cell.model, cell.protocol, cell.arm, cell.metric, len(cell.values)),
        *((mean.mean, mean.low, mean.high) if mean else (None, None, None)),
        *((interval.difference, interval.low, interval.high, interval.unit) if interval else (None, None, None, None)),
        *(cell.note, cell.status),
    ]


def _write(path: Path, found: Sequence[Cell], grids: Sequence[Grid]) -> None:
    atomic.write_text(path.with_suffix(".csv"), csv_text(CSV_COLUMNS, map(csv_row, found)))
    atomic.write_text(path.with_suffix(".md"), markdown(grids))
    atomic.write_text(path.with_suffix(".tex"), latex(grids))


def _grids(
    experiment: Experiment, found: Sequence[Cell], title: str, kind: str, columns: Sequence[tuple[str, str, str]]
) -> list[Grid]:
    """Tables with `columns` (protocol, metric, heading) for every data set and model, as many side by side as fit."""
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
        grids.append(
            Grid(
                name="-".join([kind, experiment.name, *(f"{dataset}-{model}" for dataset, model in chosen[:1])]),
                title=title,
                columns=[(f"{dataset}, {model}", heading) for dataset, model in chosen for _, _, heading in columns],
                rows=rows,
                notes=[MEANING[kind], *_notes(experiment, [cell for row in rows for cell in row])],
            )
        )
    return grids


def _notes(experiment: Experiment, found: Sequence[Cell]) -> list[str]:
    """What must be said under a table of these cells."""
    notes = [
        "In percent: the mean over seeds, with its range and n, the number of seeds (asked for: "
        f"{', '.join(map(str, experiment.seeds))}).",
        f"With a sign: the difference to {display_name(experiment.baseline)} in percentage points, paired by seed and "
        "by image, and its 95 % interval, with Holm's correction over the arms of a column.",
        *(
            f"Protocol {protocol}: {PROTOCOLS[protocol]}."
            for protocol in dict.fromkeys(cell.protocol for cell in found)
        ),
        f"Absent classes ({experiment.absent}): {ABSENT[experiment.absent]}.",
    ]
    for dataset in dict.fromkeys(cell.dataset for cell in found):
        of_set = [cell for cell in found if cell.dataset == dataset]
        images = max(cell.images for cell in of_set)
        units = dict.fromkeys(cell.interval.unit for cell in of_set if cell.interval)
        drawn = f"; the interval resamples them by {' or '.join(units)}" if units else ""
        notes.append(f"{dataset}: {images} images{drawn}." if images else f"{dataset}: no run was evaluated.")
    if elsewhere := [display_name(name) for name, arm in experiment.arms.items() if arm.method == EXTERNAL]:
        notes.append(f"Predictions made elsewhere and scored here, training unknown: {', '.join(elsewhere)}.")
    notes += _cautions({cell.interval.seeds for cell in found if cell.interval})
    return notes + _holes(found)


def _cautions(seeds: set[int]) -> list[str]:
    """How to read bold type, and intervals from `seeds` pairs of runs."""
    notes = [
        f"Bold: the interval leaves out 0, with {ENOUGH_SEEDS} seeds or more. Nothing is bold that is inside the noise."
    ]
    if 1 in seeds:
        notes.append(
            "An interval from one seed (images only, one seed) knows the noise of the test images and not that of "
            "training: it settles nothing about a method."
        )
    if 2 in seeds:
        notes.append(
            "An interval from two seeds is up to 12.7 standard errors wide to each side: too few for a verdict."
        )
    return notes


def _holes(found: Sequence[Cell]) -> list[str]:
    """The runs that are missing, each reason once, but for those that the table itself says all about."""
    seeds: dict[tuple[str, str, str, str], list[int]] = {}
    for cell in found:
        for seed, missing in cell.missing.items():
            if missing.reason or cell.values:
                listed = seeds.setdefault((cell.dataset, cell.model, cell.arm, str(missing)), [])
                listed += [seed] if seed not in listed else []
    return [
        f"Missing: {display_name(arm)} on {dataset} with {model}, seed {', '.join(map(str, listed))}: {reason}."
        for (dataset, model, arm, reason), listed in seeds.items()
    ]


_ClassRow = tuple[str, str, str, str, str, list[float]]  # data set, model, protocol, arm, class, IoU a seed


def _class_rows(experiment: Experiment, group: Group) -> list[_ClassRow]:
    """IoU in percent of every class of a group's runs, without the seeds for which it is undefined."""
    rows = []
    for protocol, table in group.entries:
        for arm in arm_order(experiment):
            tables = group.tables(protocol, table, arm).values()
            values = np.array([iou(counts.sum(0), experiment.absent) for counts in tables])
            for index, name in enumerate(group.classes):
                seeds = [float(value) for value in values[:, index] if not np.isnan(value)] if len(values) else []
                rows.append((group.dataset, group.model, protocol, arm, name, seeds))
    return rows


def _write_classes(experiment: Experiment, path: Path, rows: Sequence[_ClassRow]) -> None:
    lines = []
    for *key, values in rows:
        over = spread(values) if values else None
        lines.append([*key, "iou", len(values), *((over.mean, over.low, over.high) if over else (None, None, None))])
    atomic.write_text(path.with_suffix(".csv"), csv_text(CLASS_COLUMNS, lines))

    arms, texts = arm_order(experiment), []
    by_key = {tuple(key): values for *key, values in rows}
    for dataset, model, protocol in dict.fromkeys(row[:3] for row in rows):
        names = dict.fromkeys(row[4] for row in rows if row[:3] == (dataset, model, protocol))
        body = []
        for name in names:
            seeds = [by_key[dataset, model, protocol, arm, name] for arm in arms]
            body.append(
                [escape_markdown(name), *(f"{points(spread(v).mean)} (n {len(v)})" if v else "–" for v in seeds)]
            )
        notes = [
            "IoU in percent, the mean over n seeds; – where no run is done or the class is absent. Differences between "
            "single classes are noisier than those of the mean and carry no interval here: nothing is bold.",
            f"Absent classes ({experiment.absent}): {ABSENT[experiment.absent]}.",
            f"Protocol {protocol}: {PROTOCOLS[protocol]}.",
        ]
        title = f"IoU per class: {dataset}, {model}, {protocol}"
        texts.append(markdown_table(title, ["", *map(display_name, arms)], body, notes))
    atomic.write_text(path.with_suffix(".md"), "\n".join(texts) or "No run was evaluated.\n")
