"""Curves over the iterations: losses, and what methods log of themselves."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from harness.experiment.schema import Experiment
from harness.reporting.figures.curves import Curve, Curves, draw_curve
from harness.reporting.figures.style import (
    PAGE,
    arms_legend,
    legend_height,
    letters,
    note,
    note_height,
    only_text,
    sheet,
)
from harness.reporting.names import arm_name, arm_styles

NOT_PLOTTED = ("iteration", "learning_rate", "seconds")  # the same for all arms, or of the machine
LAST_LOSS = "gradient_norm"  # in curve.csv losses and their terms come before it, diagnostics after it
PANELS_ACROSS = 3
NO_DIAGNOSTICS = "no run logged diagnostics yet, or none that another arm logs too"


def training_figure(experiment: Experiment, curves: Curves) -> Figure:
    """Loss, terms of it and the gradient's norm over the iterations, of the arms that share them."""
    return _panels(experiment, curves, losses=True)


def diagnostics_figure(experiment: Experiment, curves: Curves) -> Figure:
    """What several methods log of themselves over the iterations: mean over seeds and their range."""
    return _panels(experiment, curves, losses=False)


def _panels(experiment: Experiment, found: Curves, losses: bool) -> Figure:
    styles = arm_styles(experiment)
    quantities = {title: names for title, curves in found.items() if (names := _quantities(curves, losses))}
    blocks = {title: found[title] for title in quantities}
    if not blocks:
        return only_text("no run has a training curve yet" if losses else NO_DIAGNOSTICS, PAGE)
    shown = {
        curve.arm for title, curves in blocks.items() for curve in curves if set(curve.table) & {*quantities[title]}
    }
    text = "Every point is the mean since the one before it. What a single arm logs is in its curve.csv."
    if len(experiment.seeds_of(experiment.baseline)) > 1:
        text += " Line: mean over seeds, band: their range."
    if any(curve.diverged for curves in blocks.values() for curve in curves):
        text += " A cross: the run diverged there."
    rows = [-(-len(names) // PANELS_ACROSS) for names in quantities.values()]
    height = note_height(text, PAGE) + legend_height([arm_name(experiment, arm) for arm in shown], PAGE)
    figure = sheet(PAGE, 0.1 + height + 0.4 * len(rows) + 1.45 * sum(rows))
    parts = figure.subfigures(len(rows), 1, height_ratios=[count + 0.3 for count in rows], squeeze=False)[:, 0]
    for part, (title, curves) in zip(parts, blocks.items(), strict=True):
        part.suptitle(title, x=0.01, ha="left", fontsize=8, fontweight="bold")
        part.supxlabel("iteration", fontsize=7)
        names = quantities[title]
        axes = part.subplots(-(-len(names) // PANELS_ACROSS), PANELS_ACROSS, squeeze=False, sharex=True).ravel()
        for axis, name in zip(axes, names, strict=False):
            draw_curve(axis, name, curves, styles)
            title_text = name.replace("_", " ").replace("/", ", ")
            axis.set_title(title_text, pad=3, fontsize=min(7.0, 7.0 * letters(2.0, 7) / len(title_text)))
        for axis in axes[len(names) :]:
            axis.remove()
        for axis in axes[max(0, len(names) - PANELS_ACROSS) : len(names)]:  # the lowest of its column
            axis.tick_params(labelbottom=True)
    arms_legend(figure, experiment, sorted(shown), markers=False)
    note(figure, text)
    return figure


def _quantities(curves: Sequence[Curve], losses: bool) -> list[str]:
    """What two arms or more hold of losses or of diagnostics, in the order in which it first appears.

    With a single arm and the baseline, or none, also what it alone holds.
    """
    arms: dict[str, set[str]] = {}
    for curve in curves:
        columns = [str(name) for name in curve.table]
        end = columns.index(LAST_LOSS) + 1 if LAST_LOSS in columns else len(columns)
        for name in columns[:end] if losses else columns[end:]:
            arms.setdefault(name, set()).add(curve.arm)
    enough = 2 if len({curve.arm for curve in curves}) > 2 else 1
    return [name for name, of_arms in arms.items() if name not in NOT_PLOTTED and len(of_arms) >= enough]
