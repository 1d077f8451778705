"""The cost table: every model with every method at the papers' sizes, beside the published figures."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import datasets, models
from harness.compute import atomic
from harness.cost.complexity import cost_rows
from harness.experiment.schema import Experiment
from harness.reporting import published
from harness.reporting.markup import escape_markdown, markdown_table
from harness.reporting.names import method_name
from harness.reporting.writing import csv_text

if TYPE_CHECKING:
    import pandas as pd

CASE = ("model", "method", "dataset", "size")
MEASURED = (
    *(*CASE, "inference_parameters", "auxiliary_parameters", "method_parameters", "training_parameters"),
    *("gmacs", "gflops"),
)

Row = dict[str, Any]


def write_cost_table(experiment: Experiment, results: Path) -> Path:
    """Count all pairs of `experiment` at their crops, and every model at the published size; write the table.

    Writes cost.csv (every digit) and cost.md into `results`/reports/cost and returns that folder.
    """
    rows = [row for (dataset, size), names in cases(experiment).items() for row in cost_rows(names, size, dataset)]
    rows = with_published(sorted(rows, key=lambda row: row["model"]))
    columns = [*MEASURED, *(name for name in rows[0] if name not in MEASURED)]
    folder = Path(results) / "reports" / "cost"
    atomic.write_text(folder / "cost.csv", csv_text(columns, ([row[name] for name in columns] for row in rows)))
    atomic.write_text(folder / "cost.md", "\n".join(_tables(rows)))
    return folder


def cases(experiment: Experiment) -> dict[tuple[str, tuple[int, int]], list[str]]:
    """{(data set, (height, width)): models}: every model at the published size, and an experiment's crops."""
    sizes = costs()[["dataset", "size"]].drop_duplicates().itertuples(index=False)
    found = {(dataset, _pixels(size)): models.names() for dataset, size in sizes}
    for dataset, model in experiment.pairs():
        chosen = found.setdefault((dataset, experiment.schedule_of(dataset, model).crop), [])
        if model not in chosen:
            chosen.append(model)
    return found


def costs() -> "pd.DataFrame":
    """The published costs, in the units that the metrics name, each with its baseline's."""
    return published.figures("cost_cityscapes.csv")


def with_published(rows: Sequence[Row]) -> list[Row]:
    """Rows of counts with published_METRIC for every published metric, None where nothing is published."""
    import pandas as pd

    figures = costs()
    wide = figures.pivot(index=list(CASE), columns="metric", values="value")[list(figures["metric"].unique())]
    found = pd.DataFrame(rows).merge(wide.add_prefix("published_"), how="left", left_on=CASE, right_index=True)
    return found.astype(object).where(found.notna(), None).to_dict("records")


def _pixels(size: str) -> tuple[int, int]:
    height, width = map(int, size.split("x"))
    return height, width


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
    counterparts = published.metrics().merge(costs()[["metric"]].drop_duplicates(), on="metric")
    known = [row for row in rows if any(row[f"published_{metric}"] is not None for metric in counterparts["metric"])]
    for row in known:
        for each in counterparts.itertuples():
            value, ours = row[f"published_{each.metric}"], row[each.counterpart] * each.unit
            same = f"{ours:.2f}" == f"{value:.2f}"
            off += [] if same else [f"{row['model']}, {method_name(row['method'])}: {each.title}"]
            verdict = "equal" if same else f"{ours - value:+.2f}"
            lines.append([*_names(row), each.title, f"{ours:.2f}", f"{value:.2f}", verdict])
    network = known[0]
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
