"""The cost table: every model with every method at the papers' sizes, with the published figures."""

from pathlib import Path
from typing import TYPE_CHECKING

from harness import datasets, models
from harness.compute import atomic
from harness.config import read_size
from harness.cost.complexity import cost_rows
from harness.experiment.schema import Experiment
from harness.reporting import published
from harness.reporting.markup import markdown_table
from harness.reporting.names import method_name
from harness.reporting.writing import csv_text

if TYPE_CHECKING:
    import pandas as pd

CASE = ("model", "method", "dataset", "size")
MEASURED = (
    *(*CASE, "inference_parameters", "auxiliary_parameters", "method_parameters", "training_parameters"),
    *("gmacs", "gflops"),
)


def write_cost_table(experiment: Experiment, results: Path) -> Path:
    """Count all pairs of `experiment` at their crops, and every model at the published size; write the table.

    Writes cost.csv (every digit) and cost.md into `results`/reports/cost and returns that folder.
    """
    import pandas as pd

    rows = [row for (dataset, size), names in cases(experiment).items() for row in cost_rows(names, size, dataset)]
    counted, figures = pd.DataFrame(rows).sort_values("model", kind="stable"), costs()
    wide = figures.pivot(index=list(CASE), columns="metric", values="value")[list(figures["metric"].unique())]
    beside = counted[list(MEASURED)].merge(wide.add_prefix("published_"), how="left", left_on=CASE, right_index=True)
    lines = beside.astype(object).where(beside.notna(), None).to_numpy().tolist()
    folder = Path(results) / "reports" / "cost"
    atomic.write_text(folder / "cost.csv", csv_text(list(beside), lines))
    tables = _beside_published(counted), _inference(counted), _training(counted)
    atomic.write_text(folder / "cost.md", "\n".join(tables))
    return folder


def cases(experiment: Experiment) -> dict[tuple[str, tuple[int, int]], list[str]]:
    """{(data set, (height, width)): models}: every model at the published size, and an experiment's crops."""
    sizes = costs()[["dataset", "size"]].drop_duplicates().itertuples(index=False)
    found = {(dataset, read_size(size)): models.names() for dataset, size in sizes}
    for dataset, model in experiment.pairs():
        chosen = found.setdefault((dataset, experiment.schedule_of(dataset, model).crop), [])
        if model not in chosen:
            chosen.append(model)
    return found


def costs() -> "pd.DataFrame":
    """The published costs, in the units that the metrics name, each with its baseline's."""
    return published.figures("cost_cityscapes.csv")


def _beside_published(counted: "pd.DataFrame") -> str:
    lines, off = [], []
    found = counted.merge(costs().merge(published.metrics(), on="metric"), on=CASE)
    for row in found.itertuples():
        ours, names = getattr(row, row.counterpart) * row.unit, (row.model, method_name(row.method))
        equal = f"{ours:.2f}" == f"{row.value:.2f}"
        off += [] if equal else [f"{', '.join(names)}: {row.title}"]
        difference = "equal" if equal else f"{ours - row.value:+.2f}"
        lines.append([*names, row.title, f"{ours:.2f}", f"{row.value:.2f}", difference])
    network = found.iloc[0]
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


def _inference(counted: "pd.DataFrame") -> str:
    case = ["model", "dataset", "size"]
    classes = {name: len(datasets.load(name).classes) for name in counted["dataset"].unique()}
    return markdown_table(
        "Inference: one image, every method alike",
        ["", "data set", "size", "parameters, M", "multiply-adds, G", "FLOPs, G"],
        [
            [*row[:3], _millions(row.inference_parameters), f"{row.gmacs:.2f}", f"{row.gflops:.2f}"]
            for row in counted.drop_duplicates(case)[[*case, "inference_parameters", "gmacs", "gflops"]].itertuples(
                index=False
            )
        ],
        [
            "Nothing of a method is left at inference: the network is the baseline's, so each model is counted once.",
            "Size: height x width. The data set decides the number of classes "
            f"({', '.join(f'{name} {number}' for name, number in classes.items())}).",
            "Multiply-adds: mmengine's complexity counter, logits on the network's own grid. It counts one for each "
            "multiply-add of convolutions and matrix products, 2 per value of a batch norm, 5 of a layer norm, 4 of a "
            "bilinear resize, and nothing for additions, activations and softmax.",
            "FLOPs: torch's dispatcher-level counter, two for each multiply-add of convolutions and matrix products, "
            "and nothing else: somewhat less than twice the multiply-adds.",
        ],
    )


def _training(counted: "pd.DataFrame") -> str:
    methods = list(counted["method"].unique())
    once = counted.drop_duplicates(["model", "dataset", "method"]).groupby(["model", "dataset"], sort=False)
    heads = ["inference_parameters", "auxiliary_parameters"]
    return markdown_table(
        "Training: parameters in M that each method adds to the network and its auxiliary heads",
        ["", "data set", "network", "auxiliary heads", *map(method_name, methods)],
        [[*key, *map(_millions, [*rows[heads].iloc[0], *rows["method_parameters"]])] for key, rows in once],
        [
            "Methods with their default options. Memories are no parameters.",
            "Auxiliary heads are the model's own and the same for every method; training parameters are the sum of the "
            "three.",
        ],
    )


def _millions(number: int) -> str:
    return f"{number / 1e6:.2f}"
