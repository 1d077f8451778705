"""Curves over the iterations: losses, what methods log of themselves, and boundary-aware sampling."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from harness.errors import UserError
from harness.experiment import Experiment
from harness.reporting.figures.style import (
    PAGE,
    arm_styles,
    arms_legend,
    columns_that_fit,
    legend_height,
    letters,
    note,
    note_height,
    only_text,
    sheet,
)
from harness.reporting.records import display_name
from harness.run import read_json

NOT_PLOTTED = ("iteration", "learning_rate", "seconds")  # the same for all arms, or of the machine
LAST_LOSS = "gradient_norm"  # in curve.csv losses and their terms stand before it, diagnostics behind
PANELS_ACROSS = 4

# What methods that sample negatives near error boundaries log (contextrast.md): panel -> its quantities.
SAMPLING = {
    "misclassified share of the pixels": ("misclassified_share",),
    "kept share of the misclassified": ("kept_share",),
    "similarity to the anchor": ("positive_similarity", "negative_similarity"),
}


@dataclass(frozen=True)
class Curve:
    """The training curve of one run."""

    arm: str
    table: pd.DataFrame  # curve.csv, by iteration
    diverged: bool


Curves = dict[str, list[Curve]]  # "data set, model" -> its runs


def read_curves(experiment: Experiment, results: Path) -> Curves:
    """The curve.csv of every run that has one, whatever became of the run."""
    curves: Curves = {f"{dataset}, {model}": [] for dataset, model in experiment.pairs()}
    for run in experiment.runs():
        path = run.folder(results) / "curve.csv"
        if path.is_file() and path.stat().st_size:
            table = pd.read_csv(path).set_index("iteration")
            curves[f"{run.dataset}, {run.model}"].append(Curve(run.arm, table, _diverged(path.parent)))
    return curves


def _diverged(folder: Path) -> bool:
    try:
        return bool(read_json(folder / "record.json").get("status") == "diverged")
    except UserError:  # no record yet, or a damaged one
        return False


def training_figure(experiment: Experiment, curves: Curves) -> Figure:
    """Loss, its terms and the gradient's norm of every arm over the iterations: mean over seeds and their range."""
    return _panels(experiment, curves, losses=True)


def diagnostics_figure(experiment: Experiment, curves: Curves) -> Figure:
    """What the methods log of themselves over the iterations, all of it: mean over seeds and their range."""
    return _panels(experiment, curves, losses=False)


def negatives_figure(experiment: Experiment, curves: Curves) -> Figure:
    """Of every arm that samples negatives by error regions: how many are wrong, how many kept, how similar they are.

    On thin error regions nearly all distances are the same; a kept share far above the asked for share shows that.
    """
    styles = arm_styles(experiment)
    kept = {title: [each for each in of_pair if "kept_share" in each.table] for title, of_pair in curves.items()}
    blocks = {title: of_pair for title, of_pair in kept.items() if of_pair}
    if not blocks:
        return only_text("No run logged what it kept of its misclassified pixels: no arm samples negatives that way.")
    text = (
        "Mean over seeds, band: their range. Right: positives solid, negatives dashed (cosine similarity to the "
        "class's anchor at the finest layer). The kept share is above the option keep where small regions round "
        "up and, by the rule percentile, where distances tie: near 1 the sampling keeps all that is misclassified."
    )
    shown = {curve.arm for of_pair in blocks.values() for curve in of_pair}
    height = note_height(text, PAGE) + legend_height([display_name(arm) for arm in shown], PAGE) + 1.5 * len(blocks)
    figure = sheet(PAGE, 0.2 + height)
    axes = figure.subplots(len(blocks), len(SAMPLING), squeeze=False)
    for (title, of_pair), line in zip(blocks.items(), axes, strict=True):
        for (name, quantities), axis in zip(SAMPLING.items(), line, strict=True):
            for quantity, dashes in zip(quantities, ("-", "--"), strict=False):
                _curve(axis, quantity, of_pair, styles, dashes)
            axis.set_title(name, pad=3)
            axis.set_xlabel("iteration")
            if "share" in name:
                axis.set_ylim(0, 1)
        line[0].set_ylabel(title.replace(", ", "\n"), fontweight="bold")
    arms_legend(figure, styles, sorted(shown), markers=False)
    note(figure, text)
    return figure


def _panels(experiment: Experiment, found: Curves, losses: bool) -> Figure:
    styles = arm_styles(experiment)
    quantities = {title: names for title, curves in found.items() if (names := _quantities(curves, losses))}
    blocks = {title: found[title] for title in quantities}
    if not blocks:
        return only_text("no run has a training curve yet" if losses else "no run logged diagnostics yet", PAGE)
    rows = [-(-len(names) // PANELS_ACROSS) for names in quantities.values()]
    figure = Figure(figsize=(PAGE, 0.45 + 0.35 * len(rows) + 1.15 * sum(rows)), layout="constrained")
    parts = figure.subfigures(len(rows), 1, height_ratios=[count + 0.3 for count in rows], squeeze=False)[:, 0]
    for part, (title, curves) in zip(parts, blocks.items(), strict=True):
        part.suptitle(title, x=0.01, ha="left", fontsize=8, fontweight="bold")
        part.supxlabel("iteration", fontsize=7)
        names = quantities[title]
        axes = part.subplots(-(-len(names) // PANELS_ACROSS), PANELS_ACROSS, squeeze=False).ravel()
        for axis, name in zip(axes, names, strict=False):
            _curve(axis, name, curves, styles)
            title_text = name.replace("_", " ").replace("/", ", ")
            axis.set_title(title_text, pad=3, fontsize=min(7.0, 7.0 * letters(1.5, 7) / len(title_text)))
        for axis in axes[len(names) :]:
            axis.remove()
    shown = {
        curve.arm for title, curves in blocks.items() for curve in curves if set(curve.table) & {*quantities[title]}
    }
    marks = []
    if any(curve.diverged for curves in blocks.values() for curve in curves):
        marks.append(Line2D([], [], color="0.2", marker="x", ms=4, ls="none", label="diverged"))
    _legend(figure, experiment, styles, shown, marks)
    return figure


def _legend(
    figure: Figure,
    experiment: Experiment,
    styles: Mapping[str, tuple[str, str]],
    shown: set[str],
    marks: Sequence[Line2D],
) -> None:
    handles = [Line2D([], [], color=styles[arm][0], lw=1.5, label=display_name(arm)) for arm in styles if arm in shown]
    handles += marks
    across = columns_that_fit([str(handle.get_label()) for handle in handles], PAGE)
    legend = figure.legend(handles=handles, loc="outside lower center", ncols=across, frameon=False)
    if len(experiment.seeds) > 1:
        legend.set_title("line: mean over seeds, band: their range", FontProperties(size=6.5))


def _quantities(curves: Sequence[Curve], losses: bool) -> list[str]:
    """What the curves hold of losses or of diagnostics, in the order in which it first appears."""
    names: dict[str, None] = {}
    for curve in curves:
        columns = [str(name) for name in curve.table]
        end = columns.index(LAST_LOSS) + 1 if LAST_LOSS in columns else len(columns)
        names |= dict.fromkeys(columns[:end] if losses else columns[end:])
    return [name for name in names if name not in NOT_PLOTTED]


def _curve(
    axis: Axes, name: str, curves: Sequence[Curve], styles: Mapping[str, tuple[str, str]], dashes: str = "-"
) -> None:
    """Draw one quantity of all arms: a line for the mean over seeds, a band for their range."""
    seen = [np.empty(0)]
    for arm, (color, _) in styles.items():
        of_arm = [curve for curve in curves if curve.arm == arm and name in curve.table]
        if not of_arm:
            continue
        seeds = pd.concat([curve.table[name] for curve in of_arm], axis=1).sort_index().dropna(how="all")
        seen.append(seeds.to_numpy().ravel())
        if len(of_arm) > 1:
            axis.fill_between(seeds.index, seeds.min(axis=1), seeds.max(axis=1), color=color, alpha=0.15, lw=0)
        axis.plot(seeds.index, seeds.mean(axis=1), dashes, color=color, lw=1.1, marker="." if len(seeds) == 1 else None)
        for curve in of_arm:
            end = curve.table[name].dropna().tail(1)
            if curve.diverged and len(end):
                axis.plot(end.index, end, "x", color=color, ms=4, mew=1.2, zorder=3)
    values = np.concatenate(seen)
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() > 30 * np.median(values):
        axis.set_yscale("log")  # a curve that runs away would flatten all others
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # the usual one needs mathtext
        axis.yaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axis.margins(x=0.02)
    sns.despine(ax=axis)
