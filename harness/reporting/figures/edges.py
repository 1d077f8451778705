"""Boundary mIoU and trimap mIoU against the width of the band."""

from collections.abc import Mapping, Sequence

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.comparison import Cell
from harness.evaluation.groups import display_name
from harness.experiment.schema import Experiment
from harness.reporting.figures.style import (
    BASELINE_COLOR,
    PAGE,
    arm_styles,
    arms_legend,
    legend_height,
    note,
    note_height,
    only_text,
    sheet,
)
from harness.reporting.measured import EDGES, Measured

TITLES = {"boundary": "Boundary mIoU", "trimap": "Trimap mIoU"}


def boundary_figure(experiment: Experiment, measured: Sequence[Measured]) -> Figure:
    """Per model the scores by width in pixels (left) and their gains over the baseline (right), of both kinds.

    The width that is a share of the image's diagonal has no place on an axis of pixels: it stands in the tables.
    """
    measured = [each for each in measured if any(cell.values for cell in each.edges)]
    if not measured:
        return only_text("No run has boundary counts yet.")
    styles = arm_styles(experiment)
    arms = [arm for arm in styles if any(cell.values for each in measured for cell in each.edges if cell.arm == arm)]
    names = [display_name(arm) for arm in arms]
    protocol = measured[0].edges[0].protocol
    text = (
        f"Protocol {protocol}; means over runs. Gains over {display_name(experiment.baseline)} in points; their "
        "intervals stand in the tables. Trimap: pixels near an edge of the ground truth. Boundary: the bands along "
        "both edges (Cheng et al., 2021)."
    )
    height = 0.2 + note_height(text, PAGE) + legend_height(names, PAGE) + 1.75 * len(measured)
    figure = sheet(PAGE, height)
    axes = figure.subplots(len(measured), 4, squeeze=False)
    for each, line in zip(measured, axes, strict=True):
        for kind, left, right in zip(EDGES, line[::2], line[1::2], strict=True):
            found = [cell for cell in each.edges if cell.metric.startswith(kind) and cell.metric.endswith("px")]
            _by_width(left, right, found, styles)
            left.set_title(f"{TITLES[kind]} (%)", loc="left")
            right.set_title("gain (points)", loc="left")
        line[0].set_ylabel(f"{each.dataset}\n{each.model}", fontweight="bold")
    for axis in axes[-1]:
        axis.set_xlabel("width (pixels)")
    arms_legend(figure, styles, arms)
    note(figure, text)
    return figure


def _by_width(left: Axes, right: Axes, found: Sequence[Cell], styles: Mapping[str, tuple[str, str]]) -> None:
    widths = sorted({_pixels(cell) for cell in found})
    right.axhline(0, color=BASELINE_COLOR, lw=0.8)
    for arm, (color, marker) in styles.items():
        of_arm = sorted((cell for cell in found if cell.arm == arm), key=_pixels)
        scores = [(_pixels(cell), cell.spread.mean) for cell in of_arm if cell.spread]
        if scores:
            left.plot(*zip(*scores, strict=True), color=color, marker=marker, ms=2.5, lw=0.9)
        gains = [(_pixels(cell), cell.gain.difference) for cell in of_arm if cell.gain]
        if gains:
            right.plot(*zip(*gains, strict=True), color=color, marker=marker, ms=2.5, lw=0.9)
    if not any(cell.gain for cell in found):
        right.set_yticks([0])
        right.text(0.5, 0.6, "no gains yet", transform=right.transAxes, ha="center", color="0.45", size=6)
    for axis in (left, right):
        axis.set_xticks(widths, [str(width) for width in widths])
        if len(axis.get_yticks()) > 1:
            axis.locator_params(axis="y", nbins=5)
        sns.despine(ax=axis)


def _pixels(cell: Cell) -> int:
    return int(cell.metric.partition("@")[2].removesuffix("px"))
