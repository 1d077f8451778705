"""Curves over the iterations: losses, and what methods log of themselves."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from harness.evaluation.groups import display_name
from harness.experiment.schema import Experiment
from harness.reporting.figures.curves import Curve, Curves, draw_curve
from harness.reporting.figures.style import (
    PAGE,
    arm_styles,
    arms_legend,
    legend_height,
    letters,
    note,
    note_height,
    only_text,
    sheet,
)

NOT_PLOTTED = ("iteration", "learning_rate", "seconds")  # the same for all arms, or of the machine
LAST_LOSS = "gradient_norm"  # in curve.csv losses and their terms stand before it, diagnostics behind
PANELS_ACROSS = 4


def training_figure(experiment: Experiment, curves: Curves) -> Figure:
    """Loss, its terms and the gradient's norm of every arm over the iterations: mean over seeds and their range."""
    return _panels(experiment, curves, losses=True)


def diagnostics_figure(experiment: Experiment, curves: Curves) -> Figure:
    """What the methods log of themselves over the iterations, all of it: mean over seeds and their range."""
    return _panels(experiment, curves, losses=False)


def _panels(experiment: Experiment, found: Curves, losses: bool) -> Figure:
    styles = arm_styles(experiment)
    quantities = {title: names for title, curves in found.items() if (names := _quantities(curves, losses))}
    blocks = {title: found[title] for title in quantities}
    if not blocks:
        return only_text("no run has a training curve yet" if losses else "no run logged diagnostics yet", PAGE)
    shown = {
        curve.arm for title, curves in blocks.items() for curve in curves if set(curve.table) & {*quantities[title]}
    }
    text = "Every point is the mean since the one before it."
    if len(experiment.seeds_of(experiment.baseline)) > 1:
        text += " Line: mean over seeds, band: their range."
    if any(curve.diverged for curves in blocks.values() for curve in curves):
        text += " A cross: the run diverged there."
    rows = [-(-len(names) // PANELS_ACROSS) for names in quantities.values()]
    height = note_height(text, PAGE) + legend_height([display_name(arm) for arm in shown], PAGE)
    figure = sheet(PAGE, 0.1 + height + 0.4 * len(rows) + 1.15 * sum(rows))
    parts = figure.subfigures(len(rows), 1, height_ratios=[count + 0.3 for count in rows], squeeze=False)[:, 0]
    for part, (title, curves) in zip(parts, blocks.items(), strict=True):
        part.suptitle(title, x=0.01, ha="left", fontsize=8, fontweight="bold")
        part.supxlabel("iteration", fontsize=7)
        names = quantities[title]
        axes = part.subplots(-(-len(names) // PANELS_ACROSS), PANELS_ACROSS, squeeze=False).ravel()
        for axis, name in zip(axes, names, strict=False):
            draw_curve(axis, name, curves, styles)
            title_text = name.replace("_", " ").replace("/", ", ")
            axis.set_title(title_text, pad=3, fontsize=min(7.0, 7.0 * letters(1.5, 7) / len(title_text)))
        for axis in axes[len(names) :]:
            axis.remove()
    arms_legend(figure, styles, sorted(shown), markers=False)
    note(figure, text)
    return figure


def _quantities(curves: Sequence[Curve], losses: bool) -> list[str]:
    """What the curves hold of losses or of diagnostics, in the order in which it first appears."""
    names: dict[str, None] = {}
    for curve in curves:
        columns = [str(name) for name in curve.table]
        end = columns.index(LAST_LOSS) + 1 if LAST_LOSS in columns else len(columns)
        names |= dict.fromkeys(columns[:end] if losses else columns[end:])
    return [name for name in names if name not in NOT_PLOTTED]
