"""Confusion between classes, as a difference to the baseline."""

import textwrap

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from harness.evaluation.groups import arm_order
from harness.experiment.schema import Experiment
from harness.reporting.figures.classes import DIVERGING
from harness.reporting.figures.style import PAGE, letters, note, note_height, only_text, sheet
from harness.reporting.measured import Measured
from harness.reporting.names import arm_name, baseline_name, protocol_name

CLASSES_SHOWN = 20  # more are not readable
PANELS_ACROSS = 3


def confusion_figure(experiment: Experiment, each: Measured) -> Figure:
    """An arm a panel: the change, in points, of the share of a true class (row) that is predicted as another (column).

    With more than 20 classes those are shown that the baseline confuses most: the largest share of a class's pixels
    that is wrong or is taken for it.
    """
    arms = [arm for arm in arm_order(experiment) if arm != experiment.baseline]
    changes = {arm: each.over_baseline(each.confusion, arm, experiment.baseline) for arm in arms}
    drawn = {arm: change for arm, change in changes.items() if change is not None}
    if not drawn:
        return only_text(f"{each.title}: no arm has a confusion matrix to compare with the baseline's yet.")
    baseline = np.mean(list(each.confusion[experiment.baseline].values()), axis=0)
    rows = _most_confused(baseline)
    text = (
        f"Of the pixels of a class (row), the share predicted as each class (column), less that of "
        f"{baseline_name(experiment)}, in points; mean over seeds, {protocol_name(each.protocol)}. Orange is more "
        "(good on the diagonal, where it is recall, and bad elsewhere), purple less. One scale for all arms; grey: no "
        "pixels of that class."
        + (f" The {CLASSES_SHOWN} classes that the baseline confuses most." if len(rows) < len(baseline) else "")
    )
    down = -(-len(drawn) // PANELS_ACROSS)
    panel = PAGE / PANELS_ACROSS
    figure = sheet(PAGE, 0.9 + note_height(text, PAGE) + 0.85 * down * panel)
    axes = figure.subplots(down, PANELS_ACROSS, squeeze=False, sharex=True, sharey=True)
    names = [each.classes[row] for row in rows]
    picked = {arm: change[np.ix_(rows, rows)] for arm, change in drawn.items()}
    defined = [np.abs(change[~np.isnan(change)]) for change in picked.values()]
    reach = max([0.1, *(float(np.percentile(sizes, 99.5)) for sizes in defined if sizes.size)])
    size = min(6.5, 0.75 * 72 * panel / len(rows))
    for axis, (arm, change) in zip(axes.ravel(), picked.items(), strict=False):
        sns.heatmap(change, ax=axis, cmap=DIVERGING, vmin=-reach, vmax=reach, square=True, cbar=False, linewidths=0.2)
        axis.set_facecolor("0.85")
        title = textwrap.fill(arm_name(experiment, arm), letters(0.7 * panel, 7))  # a colour bar takes the rest
        axis.set_title(title, loc="left", fontweight="bold")
        axis.set_xticks(np.arange(len(rows)) + 0.5, names, rotation=90, fontsize=size)
        axis.set_yticks(np.arange(len(rows)) + 0.5, names, rotation=0, fontsize=size)
        axis.tick_params(length=0)
    for axis in axes.ravel()[len(picked) :]:
        axis.remove()
    # The panels above an empty place are the last of their columns: their names hang into it.
    for axis in axes.ravel()[max(0, len(picked) - PANELS_ACROSS) : (down - 1) * PANELS_ACROSS]:
        for place, name in enumerate(names):
            label = axis.text(place + 0.5, len(rows) + 0.3, name, rotation=90, ha="center", va="top", size=size)
            label.set_in_layout(False)
    bar = figure.colorbar(axes[0, 0].collections[0], ax=list(axes.ravel()[: len(picked)]), shrink=0.5, aspect=40)
    bar.set_label("points")
    figure.suptitle(each.title, x=0.02, ha="left", fontsize=8, fontweight="bold")
    note(figure, text)
    return figure


def _most_confused(shares: np.ndarray) -> list[int]:
    """The classes to show, in their order, by what is missed of them and what is taken for them in `shares` [K, K]."""
    wrong = np.nan_to_num(shares) * (1 - np.eye(len(shares)))
    return sorted(np.argsort(-(wrong.sum(0) + wrong.sum(1)), kind="stable")[:CLASSES_SHOWN].tolist())
