"""mIoU and gains over the baseline, with intervals."""

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.comparison import Cell, by_gain
from harness.experiment.schema import Experiment
from harness.reporting.entries import gain_text
from harness.reporting.figures.style import (
    BASELINE_COLOR,
    COLUMN,
    PAGE,
    note,
    note_height,
    only_text,
    sheet,
)
from harness.reporting.measured import Measured
from harness.reporting.names import arm_name, arm_styles, baseline_name, protocol_name
from harness.reporting.over_settings import over_settings

ROW = 0.17  # inches
HOLLOW = "hollow: it holds 0, or there is none (a single run)"


def miou_figure(experiment: Experiment, measured: Sequence[Measured]) -> Figure:
    """For every data set and model: mIoU by arm (mean and every run), and next to it the gain over the baseline.

    The scores are those of the experiment's first protocol; the baseline comes first, then the arms by gain.
    """
    styles = arm_styles(experiment)
    protocol = experiment.protocols[0]
    panels = [by_gain([cell for cell in each.region if cell.protocol == protocol]) for each in measured]
    across = 1 if len(panels) <= 3 else 2
    down = -(-len(panels) // across)
    text = (
        f"{protocol_name(protocol).capitalize()}. Left: every run and the mean. Right: gain over "
        f"{baseline_name(experiment)} with its 95 % interval, for all arms at once; {HOLLOW}."
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
        _gains(right, panel, styles)
        left.set_yticklabels([arm_name(experiment, cell.arm) for cell in panel])
        if row == down - 1 or index + across >= len(panels):
            left.set_xlabel("mIoU (%)")
            right.set_xlabel("gain (points)")
    note(figure, text)
    return figure


def gains_figure(experiment: Experiment, measured: Sequence[Measured]) -> Figure:
    """A forest plot: for every model and protocol the gains over the baseline (the line at 0) with intervals.

    Next to each interval are its figures and the number of runs. The arms are ordered by gain in the first protocol.
    """
    styles = arm_styles(experiment)
    protocols = experiment.protocols
    number = len(experiment.arms) - 1
    if not number:
        return only_text(f"{baseline_name(experiment)} is the only arm: there is nothing to compare it with.")
    text = (
        f"Gain over {baseline_name(experiment)} (the line at 0) in points of mIoU, its 95 % interval for all "
        f"arms at once, and n, the number of runs; {HOLLOW}."
    )
    if len(protocols) > 1:
        text += f" Verdicts are by {protocol_name(protocols[0])}; other protocols are details."
    width = COLUMN if len(protocols) == 1 else PAGE
    figure = sheet(width, 0.15 + note_height(text, width) + len(measured) * (0.45 + ROW * number))
    axes = figure.subplots(len(measured), len(protocols), squeeze=False)
    for down, (each, line) in enumerate(zip(measured, axes, strict=True)):
        order: list[str] = []
        for protocol, axis in zip(protocols, line, strict=True):
            of_arm = {cell.arm: cell for cell in by_gain([cell for cell in each.region if cell.protocol == protocol])}
            order = order or [arm for arm in of_arm if arm != experiment.baseline]
            title = axis.set_title(f"{each.title}\n{protocol_name(protocol)}", loc="left", fontweight="bold")
            title.set_in_layout(False)
            _gains(axis, [of_arm[arm] for arm in order], styles, numbers=True)
            if down == len(measured) - 1:
                axis.set_xlabel("gain (points)")
        line[0].set_yticklabels([arm_name(experiment, arm) for arm in order])
    note(figure, text)
    return figure


def settings_figure(experiment: Experiment, measured: Sequence[Measured]) -> Figure:
    """A forest plot over all data sets and networks: every arm's gain in each, and its mean with both intervals."""
    means = over_settings(experiment, measured)
    if not means:
        return only_text("No arm has a gain with an interval in one of several data sets or networks yet.")
    styles, protocol = arm_styles(experiment), experiment.protocols[0]
    text = (
        f"Gain over {baseline_name(experiment)} in points of mIoU, {protocol_name(protocol)}. Points: one data set "
        "and network each. Diamond: their mean; thick line: 95 % interval for these settings, of all arms at once; "
        "thin line: for settings like these."
    )
    figure = sheet(COLUMN, 0.25 + note_height(text, COLUMN) + 0.3 * len(means))
    axis = figure.subplots()
    axis.axvline(0, color=BASELINE_COLOR, lw=0.8)
    cells = [cell for each in measured for cell in each.region if cell.protocol == protocol and cell.gain]
    for row, (arm, mean) in enumerate(means.items()):
        color, _ = styles[arm]
        single = [cell.gain.difference for cell in cells if cell.arm == arm and cell.gain]
        axis.plot(single, np.full(len(single), row + 0.28), "o", color=color, ms=2.2, alpha=0.7)
        if mean.low_like is not None and mean.high_like is not None:
            axis.plot([mean.low_like, mean.high_like], [row, row], color=color, lw=0.7)
        axis.plot([mean.low, mean.high], [row, row], color=color, lw=2.2)
        face = color if mean.excludes_zero else "white"
        axis.plot(mean.difference, row, "D", mfc=face, mec=color, ms=4, mew=0.9)
    _rows(axis, len(means))
    axis.set_yticklabels([arm_name(experiment, arm) for arm in means])
    axis.set_xlabel("gain (points)")
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


def _gains(axis: Axes, panel: Sequence[Cell], styles: Mapping[str, tuple[str, str]], numbers: bool = False) -> None:
    axis.axvline(0, color=BASELINE_COLOR, lw=0.8)
    for row, cell in enumerate(panel):
        if cell.gain is None:
            continue
        color, marker = styles[cell.arm]
        if cell.gain.low is not None and cell.gain.high is not None:
            axis.plot([cell.gain.low, cell.gain.high], [row, row], color=color, lw=1.3)
        face = color if cell.excludes_zero else "white"
        axis.plot(cell.gain.difference, row, marker, mfc=face, mec=color, ms=4, mew=0.9)
    _rows(axis, len(panel))
    if not any(cell.gain for cell in panel):
        axis.set_xticks([0])
    if numbers:
        for row, cell in enumerate(panel):
            color = "0.2" if cell.gain else "0.45"
            axis.text(1.02, row, _in_figures(cell), transform=axis.get_yaxis_transform(), va="center", size=6, c=color)


def _in_figures(cell: Cell) -> str:
    """A gain, its interval and runs, or why there is none, as a forest plot prints them."""
    if cell.gain is None:
        return "no baseline" if cell.values else cell.status.replace("_", " ")
    return f"{gain_text(cell)}, n {len(cell.values)}"


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
