"""Gains by class: rare and frequent ones, and each by itself."""

from collections.abc import Sequence

import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from harness.evaluation.groups import arm_order
from harness.experiment.schema import Experiment
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
from harness.reporting.names import arm_name, arm_styles, baseline_name, dataset_name, model_name, protocol_name

PARTS = ("head", "mid", "tail")
CLASSES_SHOWN = 20  # more are not readable on a page
DIVERGING = "PuOr_r"  # purple below 0, orange above: told apart by colour-blind people


def frequency_figure(experiment: Experiment, measured: Sequence[Measured]) -> Figure:
    """Per model the gains over the baseline in head, mid and tail mIoU with their intervals."""
    measured = [each for each in measured if any(cell.values for cell in each.frequency)]
    if not measured:
        return only_text("No run is done, or the training split's class frequencies are not known.")
    styles = arm_styles(experiment)
    arms = [arm for arm in styles if arm != experiment.baseline]
    if not arms:
        return only_text(f"{baseline_name(experiment)} is the only arm: there is nothing to compare it with.")
    text = (
        f"Classes in three groups by pixel frequency in the training split; {protocol_name(measured[0].protocol)}. "
        f"Gain over {baseline_name(experiment)} in points with its 95 % interval for all arms at once. One of "
        "many comparisons: no verdicts here."
    )
    figure = sheet(PAGE, 0.2 + note_height(text, PAGE) + len(measured) * (0.5 + max(0.6, 0.17 * len(arms))))
    axes = figure.subplots(len(measured), 3, squeeze=False)
    for each, line in zip(measured, axes, strict=True):
        for part, axis in zip(PARTS, line, strict=True):
            here = [cell for cell in each.frequency if cell.protocol == each.protocol]
            of_arm = {cell.arm: cell for cell in here if cell.metric == f"miou_{part}"}
            axis.axvline(0, color=BASELINE_COLOR, lw=0.8)
            for row, arm in enumerate(arms):
                color, marker = styles[arm]
                gain = of_arm[arm].gain
                if gain is None:
                    status = of_arm[arm].status.replace("_", " ")
                    axis.text(
                        0.03, row, status, transform=axis.get_yaxis_transform(), va="center", color="0.45", size=6
                    )
                    continue
                if gain.low is not None and gain.high is not None:
                    axis.plot([gain.low, gain.high], [row, row], color=color, lw=1.3)
                axis.plot(gain.difference, row, marker, color=color, ms=4)
            axis.set_yticks(range(len(arms)), [""] * len(arms))
            axis.set_ylim(len(arms) - 0.5, -0.5)
            axis.tick_params(axis="y", length=0)
            axis.grid(axis="y", color="0.92")
            axis.locator_params(axis="x", nbins=5)
            baseline = of_arm[experiment.baseline].spread
            level = f" (baseline {baseline.mean:.1f} %)" if baseline else ""
            axis.set_title(f"{part}{level}", loc="left")
            axis.set_xlabel("gain (points)")
            sns.despine(ax=axis, left=True)
        line[0].set_yticklabels([arm_name(experiment, arm) for arm in arms])
        line[0].set_ylabel(f"{dataset_name(each.dataset)}\n{model_name(each.model)}", fontweight="bold")
    note(figure, text)
    return figure


def classes_figure(experiment: Experiment, each: Measured) -> Figure:
    """A map of the mean differences to the baseline, in points of IoU: classes down, arms across.

    With more than 20 classes those with the largest absolute difference of any arm are shown.
    """
    gains = {arm: each.over_baseline(each.class_iou, arm, experiment.baseline) for arm in arm_order(experiment)}
    drawn = {arm: gain for arm, gain in gains.items() if gain is not None and arm != experiment.baseline}
    if not drawn:
        return only_text(f"{each.title}: no arm and baseline have a run each yet.")
    values = np.stack(list(drawn.values()), axis=1)
    rows = _largest(values)
    text = (
        f"IoU less that of {baseline_name(experiment)} (its own IoU next to the class's name), in points, the "
        f"mean over seeds; {protocol_name(each.protocol)}. Single classes are noisier than their mean: no intervals "
        "here. Grey: the class is absent."
        + (f" The {CLASSES_SHOWN} classes that differ most." if len(rows) < len(values) else "")
    )
    reach = float(np.nanmax(np.abs(values[rows]), initial=0.1))
    level = np.mean(list(each.class_iou[experiment.baseline].values()), axis=0)
    width = COLUMN if len(drawn) <= 3 else PAGE
    figure = sheet(width, 1.2 + note_height(text, width) + 0.15 * len(rows))
    axis = figure.subplots()
    sns.heatmap(
        values[rows],
        ax=axis,
        cmap=DIVERGING,
        vmin=-reach,
        vmax=reach,
        annot=True,
        fmt="+.1f",
        annot_kws={"size": 5.5},
        linewidths=0.4,
        cbar_kws={"label": "points", "shrink": 0.8, "aspect": 30},
        xticklabels=False,
        yticklabels=[each.classes[row] + ("" if np.isnan(level[row]) else f" ({level[row]:.0f})") for row in rows],
    )
    axis.set_facecolor("0.85")
    axis.set_title(each.title, loc="left", fontweight="bold")
    axis.tick_params(length=0)
    axis.tick_params(axis="y", rotation=0)
    names = [arm_name(experiment, arm) for arm in drawn]
    axis.set_xticks(np.arange(len(names)) + 0.5, names, rotation=30, ha="right", rotation_mode="anchor")
    note(figure, text)
    return figure


def _largest(values: np.ndarray) -> list[int]:
    """The rows to show, in their order: all, or those with the largest absolute value."""
    size = np.nanmax(np.nan_to_num(np.abs(values)), axis=1)
    return sorted(np.argsort(-size, kind="stable")[:CLASSES_SHOWN].tolist())
