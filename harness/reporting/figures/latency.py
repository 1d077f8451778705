"""Accuracy against latency."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

from harness.experiment.schema import Experiment
from harness.reporting.figures.style import (
    COLUMN,
    PAGE,
    arms_legend,
    legend_height,
    note,
    note_height,
    only_text,
    sheet,
)
from harness.reporting.measured import Measured
from harness.reporting.names import arm_name, arm_styles, protocol_name

PANELS_ACROSS = 3


def read_latency(results: Path) -> pd.DataFrame:
    """The rows of `results`/reports/cost/latency.csv of one image at a time; empty without the file."""
    path = Path(results) / "reports" / "cost" / "latency.csv"
    if not path.is_file():
        return pd.DataFrame(columns=["device", "model", "dataset", "size", "batch", "arm", "p50_ms", "p90_ms"])
    table = pd.read_csv(path)
    return table[table["batch"] == 1]


def latency_figure(experiment: Experiment, measured: Sequence[Measured], latency: pd.DataFrame) -> Figure:
    """For every data set and device the mIoU of every model and arm over its median time for one image.

    `latency` is what `read_latency` gives. An arm that was not timed by its own name has the time
    of its method. The line at a point reaches from p50 to p90.
    """
    styles = arm_styles(experiment)
    points: dict[str, list[tuple[str, str, float, float, float]]] = {}
    for each in measured:
        for cell in each.region:
            if cell.protocol != each.protocol or cell.spread is None:
                continue
            here = latency[latency["dataset"].eq(each.dataset) & latency["model"].eq(each.model)]
            timed = cell.arm if here["arm"].eq(cell.arm).any() else experiment.arms[cell.arm].method
            for row in here[here["arm"].eq(timed)].to_dict("records"):
                setting = (each.dataset, row["size"], row.get("precision"), row["device"])
                title = ", ".join(str(part) for part in setting if part)
                times = float(row["p50_ms"]), float(row["p90_ms"])
                points.setdefault(title, []).append((each.model, cell.arm, *times, cell.spread.mean))
    if not points:
        return only_text("No latency was measured for these models, or no run is done: python -m harness latency.")
    shown = {arm for of_panel in points.values() for _, arm, *_ in of_panel}
    text = (
        f"mIoU ({protocol_name(experiment.protocols[0])}, mean over seeds) against the time for one image: the point "
        "is the median, the line ends at the 90th percentile. All arms of a network run the same inference network: "
        "differences in time are noise."
    )
    across, width = (1, COLUMN) if len(points) == 1 else (PANELS_ACROSS, PAGE)
    down = -(-len(points) // across)
    legend = legend_height([arm_name(experiment, arm) for arm in shown], width)
    figure = sheet(width, 0.2 + note_height(text, width) + legend + 2.1 * down)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for axis, (title, of_panel) in zip(axes, points.items(), strict=False):
        for _, arm, median, late, score in of_panel:
            color, marker = styles[arm]
            axis.plot([median, late], [score, score], color=color, lw=0.7)
            axis.plot(median, score, marker, color=color, ms=4, mec="white", mew=0.4)
        for model in dict.fromkeys(model for model, *_ in of_panel):
            best = max((score, median) for other, _, median, _, score in of_panel if other == model)
            axis.annotate(model, best[::-1], (0, 5), textcoords="offset points", ha="center", fontsize=6)
        axis.set_title(title, loc="left", fontsize=6)
        axis.set_xlabel("time for one image (ms)")
        axis.set_ylabel("mIoU (%)")
        axis.margins(0.2)
        axis.locator_params(nbins=4)
        sns.despine(ax=axis)
    for axis in axes[len(points) :]:
        axis.remove()
    arms_legend(figure, experiment, sorted(shown))
    note(figure, text)
    return figure
