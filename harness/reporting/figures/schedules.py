"""Whether a gain lasts: mIoU and gains over the number of iterations, each against the baseline trained as long."""

from collections.abc import Sequence

import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from harness.comparison import Cell
from harness.experiment.schema import Experiment
from harness.reporting.figures.style import BASELINE_COLOR, PAGE, arms_legend, note, note_height, sheet
from harness.reporting.lengths import Length
from harness.reporting.names import arm_styles, baseline_name, protocol_name

WIDER = 1.25  # times a marker's place on the axis of iterations, so that intervals of several arms are side by side


def schedules_figure(experiment: Experiment, title: str, schedules: Sequence[tuple[Length, Sequence[Cell]]]) -> Figure:
    """For one data set and model (`title`): mIoU of every run, and the gains with their intervals, by length.

    `schedules` holds the cells of each length by the experiment's first protocol, gains over its own baseline.
    """
    text = (
        f"{title}, {protocol_name(experiment.protocols[0])}. Left: every run and the mean of each arm. Right: gain "
        f"over {baseline_name(experiment)} trained for as many iterations, with its 95 % interval, for all arms of "
        "a length at once, though not for all lengths; hollow: it holds 0, or there is none (a single run)."
    )
    styles = arm_styles(experiment)
    names = {arm: key for length, _ in schedules for key, arm in [(experiment.baseline, length.baseline)]}
    names |= {arm: key for length, _ in schedules for key, arm in length.rivals.items()}
    shown = sorted(set(names.values()), key=list(styles).index)
    figure = sheet(PAGE, 2.3 + note_height(text, PAGE))
    scores, gains = figure.subplots(1, 2)
    gains.axhline(0, color=BASELINE_COLOR, lw=0.8)
    for place, key in enumerate(shown):
        color, marker = styles[key]
        shift = WIDER ** ((place - len(shown) / 2) / max(2, len(shown)))
        cells = [(length.iterations, cell) for length, found in schedules for cell in found if names[cell.arm] == key]
        means = [(iterations, cell.spread.mean) for iterations, cell in cells if cell.spread]
        scores.plot(*zip(*means, strict=True), color=color, lw=1.2) if means else None
        for iterations, cell in cells:
            values = list(cell.values.values())
            scores.plot(
                [iterations] * len(values), values, marker, color=color, ms=3.2, mec="white", mew=0.4, ls="none"
            )
            if (gain := cell.gain) is not None:
                if gain.low is not None and gain.high is not None:
                    gains.plot([iterations * shift] * 2, [gain.low, gain.high], color=color, lw=1.3)
                face = color if gain.excludes_zero else "white"
                gains.plot(iterations * shift, gain.difference, marker, mfc=face, mec=color, ms=4, mew=0.9)
        over = [(iterations * shift, cell.gain.difference) for iterations, cell in cells if cell.gain]
        gains.plot(*zip(*over, strict=True), color=color, lw=0.6, zorder=0) if over else None
    scores.set_ylabel("mIoU (%)")
    gains.set_ylabel("gain (points)")
    for axis in (scores, gains):
        _iterations(axis, [length.iterations for length, _ in schedules])
    arms_legend(figure, experiment, shown)
    note(figure, text)
    return figure


def _iterations(axis: Axes, ticks: Sequence[int]) -> None:
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axis.minorticks_off()
    axis.set_xlim(ticks[0] / 1.4, ticks[-1] * 1.4)
    axis.set_xlabel("iterations")
    sns.despine(ax=axis)
