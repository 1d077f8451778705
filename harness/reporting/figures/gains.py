"""mIoU and gains over the baseline, with intervals."""

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.experiment import Experiment
from harness.reporting.figures.style import (
    BASELINE_COLOR,
    COLUMN,
    PAGE,
    arm_styles,
    note,
    note_height,
    only_text,
    sheet,
)
from harness.reporting.measured import Measured
from harness.reporting.records import Cell, arm_order, display_name, is_control
from harness.statistics.pooled import is_shared

ROW = 0.17  # inches


def miou_figure(experiment: Experiment, measured: Sequence[Measured]) -> Figure:
    """For every data set and model: mIoU by arm (mean and every seed) beside the difference to the baseline.

    The scores are those of the experiment's first protocol.
    """
    styles = arm_styles(experiment)
    protocol = experiment.protocols[0]
    panels = [[cell for cell in each.region if cell.protocol == protocol] for each in measured]
    across = 1 if len(panels) <= 3 else 2
    down = -(-len(panels) // across)
    one_seed = any(cell.interval and cell.interval.seeds == 1 for panel in panels for cell in panel)
    text = (
        f"Protocol {protocol}. Left: every seed and the mean. Right: difference to "
        f"{display_name(experiment.baseline)} with its 95 % interval (Holm); hollow where that holds 0 or comes from "
        "fewer than three seeds; an arrow where it leaves the plot."
        + (" One seed: the noise of the test images alone, without that of training." if one_seed else "")
    )
    width = COLUMN if across == 1 else PAGE
    figure = sheet(width, 0.2 + note_height(text, width) + down * (0.5 + ROW * len(styles)))
    axes = figure.subplots(down, 2 * across, squeeze=False)
    for index in range(down * across):
        row, column = divmod(index, across)
        left, right = axes[row, 2 * column], axes[row, 2 * column + 1]
        if index >= len(panels):
            left.remove()
            right.remove()
            continue
        panel = panels[index]
        title = left.set_title(measured[index].title, loc="left", fontweight="bold")
        title.set_in_layout(False)  # it may reach over the right half
        _scores(left, panel, styles)
        _differences(right, panel, styles)
        if column == 0:  # the rows are the same everywhere
            left.set_yticklabels([display_name(cell.arm) for cell in panel])
        if row == down - 1 or index + across >= len(panels):
            left.set_xlabel("mIoU (%)")
            right.set_xlabel("difference (points)")
    note(figure, text)
    return figure


def gains_figure(experiment: Experiment, measured: Sequence[Measured]) -> Figure:
    """A forest plot: for every model and protocol the differences to the baseline (the zero line) with intervals.

    Beside each interval stand its figures and the number of seeds. A/A controls come first.
    """
    styles = arm_styles(experiment)
    arms = [arm for arm in arm_order(experiment) if arm != experiment.baseline]
    protocols = experiment.protocols
    if not arms:
        return only_text(f"{display_name(experiment.baseline)} is the only arm: there is nothing to compare it with.")
    text = (
        f"Difference to {display_name(experiment.baseline)} (the line at 0) in points of mIoU, its 95 % interval "
        "(Holm, over arms with three seeds or more) and n, the number of seeds; hollow where the interval holds 0 or "
        "comes from fewer than three seeds. With one seed the interval knows the noise of the test images alone."
    )
    if any(is_control(experiment, arm) for arm in arms):
        text += " A/A: the baseline once more under another name; what it gains is noise."
    if any(is_shared(cell.pool) for each in measured for cell in each.region):
        text += " Pale bar: the interval if all arms scatter alike over the seeds."
    width = COLUMN if len(protocols) == 1 else PAGE
    figure = sheet(width, 0.15 + note_height(text, width) + len(measured) * (0.45 + ROW * len(arms)))
    axes = figure.subplots(len(measured), len(protocols), squeeze=False)
    for down, (each, line) in enumerate(zip(measured, axes, strict=True)):
        for protocol, axis in zip(protocols, line, strict=True):
            of_arm = {cell.arm: cell for cell in each.region if cell.protocol == protocol}
            panel = [of_arm[arm] for arm in arms]
            title = axis.set_title(f"{each.title}, {protocol}", loc="left", fontweight="bold")
            title.set_in_layout(False)
            _differences(axis, panel, styles, numbers=True)
            if down == len(measured) - 1:
                axis.set_xlabel("difference (points)")
        line[0].set_yticklabels([display_name(arm) + (" (A/A)" if is_control(experiment, arm) else "") for arm in arms])
    note(figure, text)
    return figure


def _scores(axis: Axes, panel: Sequence[Cell], styles: Mapping[str, tuple[str, str]]) -> None:
    for row, cell in enumerate(panel):
        color, marker = styles[cell.arm]
        over = cell.spread
        if over is None:
            axis.text(0.03, row, cell.status, transform=axis.get_yaxis_transform(), va="center", color="0.45", size=6)
            continue
        values = list(cell.values.values())
        if len(values) > 1:
            axis.plot([over.mean, over.mean], [row - 0.36, row + 0.36], color=color, lw=1.2, alpha=0.6)
        axis.plot(values, [row] * len(values), marker, color=color, ms=3.5, mec="white", mew=0.4, ls="none")
    _rows(axis, len(panel))
    if not any(cell.values for cell in panel):
        axis.set_xticks([])


def _differences(
    axis: Axes, panel: Sequence[Cell], styles: Mapping[str, tuple[str, str]], numbers: bool = False
) -> None:
    axis.axvline(0, color=BASELINE_COLOR, lw=0.8)
    drawn = [(row, cell, cell.interval) for row, cell in enumerate(panel) if cell.interval]
    halves = [interval.high - interval.difference for *_, interval in drawn if interval.high is not None]
    # Two seeds give intervals as wide as the axis of all others together: those are cut and end in an arrow.
    reach = 3 * float(np.median(halves)) if halves else 0.0
    low = min([0.0, *(interval.difference for *_, interval in drawn)]) - reach
    high = max([0.0, *(interval.difference for *_, interval in drawn)]) + reach
    for row, cell, interval in drawn:
        color, marker = styles[cell.arm]
        if interval.low is not None and interval.high is not None:
            axis.plot([max(interval.low, low), min(interval.high, high)], [row, row], color=color, lw=1.3)
            if interval.low < low:
                axis.plot(low, row, marker="<", color=color, ms=3)
            if interval.high > high:
                axis.plot(high, row, marker=">", color=color, ms=3)
        if numbers and cell.pooled and is_shared(cell.pool):
            ends = [cell.pooled.low, cell.pooled.high]
            axis.plot(ends, [row, row], color=color, lw=5, alpha=0.35, zorder=1, solid_capstyle="butt")
        face = color if cell.verdict else "white"
        axis.plot(interval.difference, row, marker, mfc=face, mec=color, ms=4, mew=0.9)
    _rows(axis, len(panel))
    if not drawn:
        axis.set_xticks([0])
    if numbers:
        for row, cell in enumerate(panel):
            color = "0.2" if cell.interval else "0.45"
            axis.text(1.02, row, _in_figures(cell), transform=axis.get_yaxis_transform(), va="center", size=6, c=color)


def _in_figures(cell: Cell) -> str:
    """A difference, its interval and seeds, or why there is none, as a forest plot prints them."""
    interval = cell.interval
    if interval is None:
        return "no pair" if cell.values else cell.status.replace("_", " ")
    between = "" if interval.low is None else f" [{interval.low:+.2f}, {interval.high:+.2f}]"
    return f"{interval.difference:+.2f}{between}, n {interval.seeds}"


def _rows(axis: Axes, number: int) -> None:
    """`number` rows, the first on top, with light lines to follow."""
    axis.set_yticks(range(number), [""] * number)
    axis.set_ylim(number - 0.5, -0.5)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="y", color="0.92")
    axis.set_axisbelow(True)
    axis.margins(x=0.12)
    axis.locator_params(axis="x", nbins=4)
    sns.despine(ax=axis, left=True)
