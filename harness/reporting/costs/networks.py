"""The cost table: every model with every method at the papers' sizes, beside the published figures."""

import csv
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from harness import datasets, models
from harness.compute import atomic, shipped
from harness.config import size_name
from harness.cost.complexity import cost_rows
from harness.experiment.schema import Experiment
from harness.reporting.markup import escape_markdown, markdown_table
from harness.reporting.names import method_name
from harness.reporting.tables import csv_text

PUBLISHED = shipped.PUBLISHED / "cost_cityscapes.csv"
CITYSCAPES = ("cityscapes", (512, 1024))  # the data set and size of the published figures
# The published metrics, and which of our columns says the same in which unit.
COUNTERPARTS = {
    "inference_GFLOPs_as_published": ("gmacs", 1.0, "multiply-adds of inference, G"),
    "training_parameters_M": ("training_parameters", 1e-6, "parameters in training, M"),
}
MEASURED = (
    *("model", "method", "dataset", "size", "inference_parameters", "auxiliary_parameters", "method_parameters"),
    *("training_parameters", "gmacs", "gflops"),
)
# Published without a counterpart here: they need a GPU.
ONLY_PUBLISHED = ("training_memory_MiB", "training_time_h")
COLUMNS = (*MEASURED, *(f"published_{metric}" for metric in (*COUNTERPARTS, *ONLY_PUBLISHED)))

Row = dict[str, Any]


def write_cost_table(experiment: Experiment, results: Path) -> Path:
    """Count all pairs of `experiment` at their crops, and every model at Cityscapes' size; write the table.

    Writes cost.csv (every digit) and cost.md into `results`/reports/cost and returns that folder.
    """
    rows = [
        row | _published_columns(row)
        for (dataset, size), names in cases(experiment).items()
        for row in cost_rows(names, size, dataset)
    ]
    rows.sort(key=lambda row: row["model"])
    folder = Path(results) / "reports" / "cost"
    atomic.write_text(folder / "cost.csv", csv_text(COLUMNS, ([row[name] for name in COLUMNS] for row in rows)))
    atomic.write_text(folder / "cost.md", "\n".join(_tables(rows)))
    return folder


def cases(experiment: Experiment) -> dict[tuple[str, tuple[int, int]], list[str]]:
    """{(data set, (height, width)): models}: an experiment's crops, and every model at Cityscapes' size."""
    found: dict[tuple[str, tuple[int, int]], list[str]] = {CITYSCAPES: models.names()}
    for dataset, model in experiment.pairs():
        chosen = found.setdefault((dataset, experiment.schedule_of(dataset, model).crop), [])
        if model not in chosen:
            chosen.append(model)
    return found


def published(path: Path = PUBLISHED) -> dict[tuple[str, str, str], float]:
    """The published figures of Cityscapes, {(model, method, metric): value}, in the units that the metric names."""
    with path.open(encoding="utf-8", newline="") as file:
        return {(row["model"], row["method"], row["metric"]): float(row["value"]) for row in csv.DictReader(file)}


def _published_columns(row: Row) -> Row:
    known = published() if (row["dataset"], row["size"]) == (CITYSCAPES[0], size_name(CITYSCAPES[1])) else {}
    metrics = (*COUNTERPARTS, *ONLY_PUBLISHED)
    return {f"published_{metric}": known.get((row["model"], row["method"], metric)) for metric in metrics}


def _tables(rows: Sequence[Row]) -> Iterable[str]:
    """The three tables of cost.md: beside the published figures, inference, training."""
    yield _beside_published(rows)
    yield markdown_table(
        "Inference: one image, every method alike",
        ["", "data set", "size", "parameters, M", "multiply-adds, G", "FLOPs, G"],
        [
            [*_case(row), _millions(row["inference_parameters"]), f"{row['gmacs']:.2f}", f"{row['gflops']:.2f}"]
            for row in _one_a_case(rows)
        ],
        [
            "Nothing of a method is left at inference: the network is the baseline's, so each model is counted once.",
            "Size: height x width. The data set decides the number of classes "
            f"({', '.join(f'{name} {_classes(name)}' for name in dict.fromkeys(row['dataset'] for row in rows))}).",
            "Multiply-adds: mmengine's complexity counter, logits on the network's own grid. It counts one for each "
            "multiply-add of convolutions and matrix products, 2 per value of a batch norm, 5 of a layer norm, 4 of a "
            "bilinear resize, and nothing for additions, activations and softmax.",
            "FLOPs: torch's dispatcher-level counter, two for each multiply-add of convolutions and matrix products, "
            "and nothing else: somewhat less than twice the multiply-adds.",
        ],
    )
    methods = list(dict.fromkeys(row["method"] for row in rows))
    yield markdown_table(
        "Training: parameters in M that each method adds to the network and its auxiliary heads",
        ["", "data set", "network", "auxiliary heads", *map(method_name, methods)],
        [
            [
                *_case(of_case[0])[:2],
                _millions(of_case[0]["inference_parameters"]),
                _millions(of_case[0]["auxiliary_parameters"]),
                *(_millions(row["method_parameters"]) for row in of_case),
            ]
            for of_case in {
                (of_case[0]["model"], of_case[0]["dataset"]): of_case for of_case in _by_case(rows)
            }.values()
        ],
        [
            "Methods with their default options. Memories are no parameters.",
            "Auxiliary heads are the model's own and the same for every method; training parameters are the sum of the "
            "three.",
        ],
    )


def _beside_published(rows: Sequence[Row]) -> str:
    lines, off = [], []
    for row in rows:
        for metric, (column, unit, title) in COUNTERPARTS.items():
            value, ours = row[f"published_{metric}"], row[column] * unit
            if value is not None:
                same = f"{ours:.2f}" == f"{value:.2f}"
                off += [] if same else [f"{row['model']}, {method_name(row['method'])}: {title}"]
                verdict = "equal" if same else f"{ours - value:+.2f}"
                lines.append([*_names(row), title, f"{ours:.2f}", f"{value:.2f}", verdict])
    network = next(row for row in rows if row["published_inference_GFLOPs_as_published"] is not None)
    return markdown_table(
        f"Beside the published figures: {network['dataset']}, {network['size']}",
        ["", "method", "", "counted", "published", "difference"],
        lines,
        [
            "Published: arXiv 2608.22679, tables XV and XVI; it has these for one model alone.",
            f'What is published as "FLOPs" is multiply-adds: mmengine\'s counter gives {network["gmacs"]:.3f} G for '
            f"{network['model']}, torch's counter {network['gflops']:.2f} G FLOPs, about twice as many.",
            f"Not equal to two decimals: {'; '.join(off)}." if off else "All are equal to the two decimals printed.",
        ],
    )


def _by_case(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows of the same model, data set and size together; they stand side by side."""
    return [list(of_case) for _, of_case in groupby(rows, key=lambda row: (row["model"], row["dataset"], row["size"]))]


def _one_a_case(rows: Iterable[Row]) -> list[Row]:
    return [of_case[0] for of_case in _by_case(rows)]


def _case(row: Row) -> list[str]:
    return [escape_markdown(row[name]) for name in ("model", "dataset", "size")]


def _names(row: Row) -> list[str]:
    return [escape_markdown(row["model"]), escape_markdown(method_name(row["method"]))]


def _millions(number: int) -> str:
    return f"{number / 1e6:.2f}"


def _classes(dataset: str) -> int:
    return len(datasets.load(dataset).classes)
