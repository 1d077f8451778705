"""Boundary mIoU and trimap mIoU against the width of the band."""

from collections.abc import Mapping, Sequence

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.comparison import Cell
from harness.experiment.schema import Experiment
from harness.reporting.figures.style import (
    BASELINE_COLOR,
    PAGE,
    arms_legend,
    legend_height,
    note,
    note_height,
    only_text,
    sheet,
)
from harness.reporting.measured import EDGES, Measured
from harness.reporting.names import arm_name, arm_styles, baseline_name, dataset_name, model_name, protocol_name

TITLES = {"boundary": "Boundary mIoU", "trimap": "Trimap mIoU"}


def boundary_figure(experiment: Experiment, measured: Sequence[Measured]) -> Figure:
    """Per model the gains in boundary and in trimap mIoU by width in pixels.

    The width that is a share of the image's diagonal has no place on an axis of pixels: it is in the tables.
    """
    measured = [each for each in measured if any(cell.values for cell in each.edges)]
    if not measured:
        return only_text("No run has boundary counts yet.")
    styles = arm_styles(experiment)
    arms = [arm for arm in styles if any(cell.gain for each in measured for cell in each.edges if cell.arm == arm)]
    names = [arm_name(experiment, arm) for arm in arms]
    protocol = measured[0].edges[0].protocol
    text = (
        f"{protocol_name(protocol).capitalize()}; means over runs. Gains over {baseline_name(experiment)} (the line at "
        "0) in points; the tables have levels and intervals. Trimap: pixels near an edge of the ground truth. "
        "Boundary: the bands along both edges (Cheng et al., 2021)."
    )
    height = 0.2 + note_height(text, PAGE) + legend_height(names, PAGE) + 2.1 * len(measured)
    figure = sheet(PAGE, height)
    axes = figure.subplots(len(measured), len(EDGES), squeeze=False, sharey="row")
    for each, line in zip(measured, axes, strict=True):
        for kind, axis in zip(EDGES, line, strict=True):
            found = [cell for cell in each.edges if cell.metric.startswith(kind) and cell.metric.endswith("px")]
            _by_width(axis, found, styles)
            axis.set_title(f"{TITLES[kind]}, gain (points)", loc="left")
        line[0].set_ylabel(f"{dataset_name(each.dataset)}\n{model_name(each.model)}", fontweight="bold")
    for axis in axes[-1]:
        axis.set_xlabel("width (pixels)")
    arms_legend(figure, experiment, arms)
    note(figure, text)
    return figure


def _by_width(axis: Axes, found: Sequence[Cell], styles: Mapping[str, tuple[str, str]]) -> None:
    widths = sorted({_pixels(cell) for cell in found})
    axis.axhline(0, color=BASELINE_COLOR, lw=0.8)
    for arm, (color, marker) in styles.items():
        of_arm = sorted((cell for cell in found if cell.arm == arm), key=_pixels)
        gains = [(_pixels(cell), cell.gain.difference) for cell in of_arm if cell.gain]
        if gains:
            axis.plot(*zip(*gains, strict=True), color=color, marker=marker, ms=2.5, lw=0.9, gid=f"arm={arm}")
    if not any(cell.gain for cell in found):
        axis.set_yticks([0])
        axis.text(0.5, 0.6, "no gains yet", transform=axis.transAxes, ha="center", color="0.45", size=6)
    axis.set_xticks(widths, [str(width) for width in widths])
    if len(axis.get_yticks()) > 1:
        axis.locator_params(axis="y", nbins=5)
    sns.despine(ax=axis)


def _pixels(cell: Cell) -> int:
    return int(cell.metric.partition("@")[2].removesuffix("px"))
