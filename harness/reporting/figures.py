"""Figures of an experiment: mIoU with its differences, and the training curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from harness import atomic
from harness.evaluation.counts import REGION
from harness.experiment import Experiment
from harness.reporting.records import Cell, Missing, arm_order, cells, display_name, groups, read_record

COLUMN, PAGE = 3.5, 7.2  # inches: one and two columns of a paper
DOTS_PER_INCH = 300
BASELINE_COLOR = "#4d4d4d"
PALE = ("#949494", "#ece133")  # of the palette: too near the baseline's grey, too faint on white
MARKERS = "osD^v<>ph"
NOT_PLOTTED = ("iteration", "learning_rate", "seconds")  # the same for all arms, or of the machine
PANELS_ACROSS = 4
LETTERS_ACROSS = 130  # of the legend's size on a page

STYLE = {
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "grid.linewidth": 0.4,
    "text.parse_math": False,  # a "$" in a name is a "$"
    "pdf.fonttype": 42,  # text stays text
    "svg.fonttype": "none",
}


def write_figures(experiment: Experiment, results: Path) -> None:
    """Write figures/{miou,training}.{png,pdf} of `results`/reports/<experiment> from the records that exist."""
    folder = Path(results) / "reports" / experiment.name / "figures"
    with sns.axes_style("ticks"), mpl.rc_context(STYLE):  # type: ignore[arg-type]
        save(miou_figure(experiment, results), folder / "miou")
        save(training_figure(experiment, results), folder / "training")


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG and PDF; the same figure gives the same bytes."""
    for suffix, metadata in ((".png", {}), (".pdf", {"CreationDate": None})):
        with atomic.replacing(path.with_suffix(suffix)) as temporary:
            figure.savefig(temporary, dpi=DOTS_PER_INCH, metadata=metadata)


def arm_styles(experiment: Experiment) -> dict[str, tuple[str, str]]:
    """Colour and marker of every arm: the baseline grey, the others from a palette that colour-blind people tell apart.

    Colours repeat after eight arms; the marker still differs.
    """
    palette = [color for color in sns.color_palette("colorblind").as_hex() if color.lower() not in PALE]
    styles = {}
    for index, arm in enumerate(arm_order(experiment)):
        color = BASELINE_COLOR if index == 0 else palette[(index - 1) % len(palette)]
        styles[arm] = (color, MARKERS[index % len(MARKERS)])
    return styles


def miou_figure(experiment: Experiment, results: Path) -> Figure:
    """For every data set and model: mIoU by arm (mean and every seed) beside the difference to the baseline.

    The scores are those of the experiment's first protocol.
    """
    styles = arm_styles(experiment)
    protocol = experiment.protocols[0]
    panels = [cells(experiment, group) for group in groups(experiment, results, [REGION], [protocol])]
    across = 1 if len(panels) <= 3 else 2
    down = -(-len(panels) // across)
    figure = Figure(
        figsize=(COLUMN if across == 1 else PAGE, 0.5 + down * (0.6 + 0.17 * len(styles))),
        layout=ConstrainedLayoutEngine(w_pad=0.03, h_pad=0.03, wspace=0.02, hspace=0.02),
    )
    axes = figure.subplots(down, 2 * across, squeeze=False)
    for index in range(down * across):
        row, column = divmod(index, across)
        left, right = axes[row, 2 * column], axes[row, 2 * column + 1]
        if index >= len(panels):
            left.remove()
            right.remove()
            continue
        panel = panels[index]
        title = left.set_title(f"{panel[0].dataset}, {panel[0].model}", loc="left", fontweight="bold")
        title.set_in_layout(False)  # it may reach over the right half
        _scores(left, panel, styles)
        _differences(right, panel, styles)
        if column == 0:  # the rows are the same everywhere
            left.set_yticklabels([display_name(cell.arm) for cell in panel])
        if row == down - 1 or index + across >= len(panels):
            left.set_xlabel("mIoU (%)")
            right.set_xlabel("difference (points)")
    one_seed = any(cell.interval and cell.interval.seeds == 1 for panel in panels for cell in panel)
    figure.supxlabel(
        f"Protocol {protocol}. Left: every seed and the mean. Right: difference to\n"
        f"{display_name(experiment.baseline)} with its 95 % interval (Holm); hollow where that holds 0\n"
        "or comes from fewer than three seeds; an arrow where it leaves the plot."
        + ("\nOne seed: the noise of the test images alone, without that of training." if one_seed else ""),
        fontsize=6,
        x=0.02,
        ha="left",
    )
    return figure


def training_figure(experiment: Experiment, results: Path) -> Figure:
    """Loss, its terms and the diagnostics of every arm over the iterations: the mean over seeds and their range."""
    styles = arm_styles(experiment)
    blocks = {}
    for dataset, model in experiment.pairs():
        curves = _curves(experiment, results, dataset, model)
        if curves:
            blocks[f"{dataset}, {model}"] = curves
    quantities = {title: _quantities(curves) for title, curves in blocks.items()}
    rows = [max(1, -(-len(names) // PANELS_ACROSS)) for names in quantities.values()] or [1]
    figure = Figure(figsize=(PAGE, 0.45 + 0.35 * len(rows) + 1.15 * sum(rows)), layout="constrained")
    if not blocks:
        figure.text(0.5, 0.5, "no run has a training curve yet", ha="center", va="center", color="0.4")
        return figure
    parts = figure.subfigures(len(rows), 1, height_ratios=[count + 0.3 for count in rows], squeeze=False)[:, 0]
    for part, (title, curves) in zip(parts, blocks.items(), strict=True):
        part.suptitle(title, x=0.01, ha="left", fontsize=8, fontweight="bold")
        part.supxlabel("iteration", fontsize=7)
        names = quantities[title]
        axes = part.subplots(max(1, -(-len(names) // PANELS_ACROSS)), PANELS_ACROSS, squeeze=False).ravel()
        for axis, name in zip(axes, names, strict=False):
            _curve(axis, name, curves, styles)
        for axis in axes[len(names) :]:
            axis.remove()
    shown = {curve.arm for curves in blocks.values() for curve in curves}
    handles = [Line2D([], [], color=styles[arm][0], lw=1.5, label=display_name(arm)) for arm in styles if arm in shown]
    if any(curve.diverged for curves in blocks.values() for curve in curves):
        handles.append(Line2D([], [], color="0.2", marker="x", ms=4, ls="none", label="diverged"))
    longest = max(len(str(handle.get_label())) for handle in handles)
    across = min(len(handles), max(1, LETTERS_ACROSS // (longest + 8)))  # 8: the line and the space
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=across, frameon=False)
    if len(experiment.seeds) > 1:
        legend.set_title("line: mean over seeds, band: their range", FontProperties(size=6.5))
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


def _differences(axis: Axes, panel: Sequence[Cell], styles: Mapping[str, tuple[str, str]]) -> None:
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
        face = color if cell.verdict else "white"
        axis.plot(interval.difference, row, marker, mfc=face, mec=color, ms=4, mew=0.9)
    _rows(axis, len(panel))
    if not drawn:
        axis.set_xticks([0])


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


@dataclass(frozen=True)
class _Curve:
    arm: str
    table: pd.DataFrame  # curve.csv, by iteration
    diverged: bool


def _curves(experiment: Experiment, results: Path, dataset: str, model: str) -> list[_Curve]:
    """The curve.csv of every run that has one, whatever became of the run."""
    curves = []
    for run in experiment.runs():
        path = run.folder(results) / "curve.csv"
        if (run.dataset, run.model) == (dataset, model) and path.is_file() and path.stat().st_size:
            record = read_record(experiment, run, results)
            diverged = isinstance(record, Missing) and record.status == "diverged"
            curves.append(_Curve(run.arm, pd.read_csv(path).set_index("iteration"), diverged))
    return curves


def _quantities(curves: Sequence[_Curve]) -> list[str]:
    """What the curves hold, in the order in which it first appears."""
    names = dict.fromkeys(str(name) for curve in curves for name in curve.table)
    return [name for name in names if name not in NOT_PLOTTED]


def _curve(axis: Axes, name: str, curves: Sequence[_Curve], styles: Mapping[str, tuple[str, str]]) -> None:
    seen = [np.empty(0)]
    for arm, (color, _) in styles.items():
        of_arm = [curve for curve in curves if curve.arm == arm and name in curve.table]
        if not of_arm:
            continue
        seeds = pd.concat([curve.table[name] for curve in of_arm], axis=1).sort_index().dropna(how="all")
        seen.append(seeds.to_numpy().ravel())
        if len(of_arm) > 1:
            axis.fill_between(seeds.index, seeds.min(axis=1), seeds.max(axis=1), color=color, alpha=0.15, lw=0)
        axis.plot(seeds.index, seeds.mean(axis=1), color=color, lw=1.1, marker="." if len(seeds) == 1 else None)
        for curve in of_arm:
            end = curve.table[name].dropna().tail(1)
            if curve.diverged and len(end):
                axis.plot(end.index, end, "x", color=color, ms=4, mew=1.2, zorder=3)
    values = np.concatenate(seen)
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() > 30 * np.median(values):
        axis.set_yscale("log")  # a curve that runs away would flatten all others
    axis.set_title(name.replace("_", " ").replace("/", ", "), pad=3)
    axis.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axis.margins(x=0.02)
    sns.despine(ax=axis)
