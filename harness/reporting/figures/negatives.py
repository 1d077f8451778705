"""Boundary-aware sampling of negatives: how much it keeps, how similar that is, and how far from the edge."""

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from harness.experiment.schema import Experiment
from harness.reporting.figures.curves import Curve, draw_curve
from harness.reporting.figures.style import (
    PAGE,
    arms_legend,
    legend_height,
    note,
    note_height,
    only_text,
    sheet,
)
from harness.reporting.names import arm_name, arm_styles

# Over the iterations: panel -> its quantities, the second one dashed (contextrast.md).
OVER_TIME = {
    "misclassified share": ("misclassified_share",),
    "kept share of these": ("kept_share",),
    "negatives of a class": ("negatives",),
    "similarity to the anchor": ("positive_similarity", "negative_similarity"),
}
# The bins of the distance, as methods/negative_diagnostics.py has them: up to so many pixels, and beyond.
BINS = ("1", "2", "4", "8", "16", "more")
PREFIX = "distance_bins/"
MOMENTS = {"at the start": 0.0, "in the middle": 0.5, "at the end": 1.0}  # of the logged rows
# Of the misclassified pixels of each layer, at the end.
BY_LAYER = {
    "kept share of each layer, at the end": "by_layer/kept",
    "share next to the edge, at the end": "by_layer/next_to_edge",
}
MEASURED = ("misclassified", "kept", "kept_similarity", "left_similarity")

Styles = Mapping[str, tuple[str, str]]


def negatives_figure(experiment: Experiment, title: str, curves: Sequence[Curve]) -> Figure:
    """Of every arm that samples negatives by error regions, for one data set and model (`title`).

    Over the iterations: how much is misclassified, how much of that is kept, how many negatives a class has, how
    similar they are. By the distance from the edge of the error region, at three moments: how similar the kept and the
    other misclassified pixels are to an anchor, how the misclassified ones are spread, and what share of them is kept.
    For every layer at the end: what share is kept, and what share is next to the edge, where distances tie.
    """
    curves = [with_negatives(each) for each in curves if "kept_share" in each.table]
    if not curves:
        return only_text(
            f"{title}: no run logged what it kept of its misclassified pixels: no arm samples negatives that way."
        )
    styles, shown = arm_styles(experiment), sorted({curve.arm for curve in curves})
    binned = [curve for curve in curves if all(_has_bins(curve, name) for name in MEASURED)]
    layered = [curve for curve in curves if all(name in curve.vectors for name in BY_LAYER.values())]
    text = (
        f"{title}, at the finest layer; mean over seeds, band: their range. Similarity over the iterations: positives "
        "solid, negatives dashed, to their class's anchor or to those that they are contrasted with. The kept share is "
        "above the option keep where small regions round up and, by the rule percentile, where distances tie: near 1 "
        "the sampling keeps all that is misclassified."
    )
    if binned:
        text += (
            " By distance: from the edge of the error region, up to so many pixels of the layer's grid. Middle row: "
            "kept (filled, solid) and left out (hollow, dashed), to the most similar anchor that a pixel is contrasted "
            "with. Below: the share of the misclassified pixels in a bin (solid) and the kept share of these (dashed)."
        )
    else:
        text += " These runs were made before the distance from the edge was logged."
    if layered:
        text += (
            " Of each layer, fine to coarse: where nearly all misclassified pixels are next to the edge, their "
            "distances tie, and chance decides which are kept."
        )
    height = note_height(text, PAGE) + legend_height([arm_name(experiment, arm) for arm in shown], PAGE)
    rows = 1 + 2 * bool(binned) + bool(layered)
    figure = sheet(PAGE, 0.2 + height + 1.3 * rows)
    grid = figure.add_gridspec(rows, 12)
    for place, (name, quantities) in enumerate(OVER_TIME.items()):
        axis = figure.add_subplot(grid[0, 3 * place : 3 * place + 3])
        for quantity, dashes in zip(quantities, ("-", "--"), strict=False):
            draw_curve(axis, quantity, curves, styles, dashes)
        axis.set_title(name, pad=3)
        axis.set_xlabel("iteration")
        if "share" in name:
            axis.set_ylim(0, 1)
    first: list[Axes] = []
    for place, (name, when) in enumerate(MOMENTS.items() if binned else ()):
        above, below = (
            figure.add_subplot(grid[row, 4 * place : 4 * place + 4], sharey=first[row - 1] if first else None)
            for row in (1, 2)
        )
        first = first or [above, below]
        _moment(above, below, binned, styles, when)
        iterations = sorted({int(curve.table.index[_row(curve, when)]) for curve in binned})
        above.set_title(f"{name} (iteration {', '.join(map(str, iterations))})", pad=3)
        below.set_xlabel("distance from the edge, up to (pixels)")
        if place == 0:
            above.set_ylabel("similarity to an anchor")
            below.set_ylabel("share")
    for place, (name, quantity) in enumerate(BY_LAYER.items() if layered else ()):
        axis = figure.add_subplot(grid[rows - 1, 6 * place : 6 * place + 6])
        _of_layers(axis, quantity, layered, styles)
        axis.set_title(name, pad=3)
    arms_legend(figure, experiment, shown, markers=bool(binned or layered))
    note(figure, text)
    return figure


def with_negatives(curve: Curve) -> Curve:
    """A curve whose table holds the mean number of negatives over the classes, if it was logged by class."""
    if "negatives" not in curve.vectors:
        return curve
    table = curve.table.assign(negatives=curve.vectors["negatives"].mean(1))
    return Curve(curve.arm, table, curve.diverged, curve.vectors)


def _moment(above: Axes, below: Axes, curves: Sequence[Curve], styles: Styles, when: float) -> None:
    for arm, (color, marker) in styles.items():
        rows = [
            {name: curve.vectors[PREFIX + name][_row(curve, when)] for name in MEASURED}
            for curve in curves
            if curve.arm == arm
        ]
        if not rows:
            continue
        for name, face, dashes in (("kept", color, "-"), ("left", "white", "--")):
            values = _mean([row[f"{name}_similarity"] for row in rows])
            above.plot(
                values, dashes, color=color, marker=marker, ms=3, mfc=face, mec=color, mew=0.8, lw=1, gid=f"arm={arm}"
            )
        missed, kept = (np.sum([row[name] for row in rows], axis=0) for name in ("misclassified", "kept"))
        shares = missed / missed.sum() if missed.sum() else np.full(len(BINS), np.nan)
        below.plot(shares, "-", color=color, marker=marker, ms=3, lw=1, gid=f"arm={arm}")
        kept_shares = np.divide(kept, missed, out=np.full(len(BINS), np.nan), where=missed > 0)
        below.plot(kept_shares, "--", color=color, marker=marker, ms=3, mfc="white", mew=0.8, lw=1, gid=f"arm={arm}")
    for axis in (above, below):
        axis.set_xticks(range(len(BINS)), BINS)
        axis.set_xlim(-0.3, len(BINS) - 0.7)
        axis.locator_params(axis="y", nbins=5)
        sns.despine(ax=axis)
    below.set_ylim(-0.04, 1.04)


def _of_layers(axis: Axes, quantity: str, curves: Sequence[Curve], styles: Styles) -> None:
    number = 0
    for arm, (color, marker) in styles.items():
        last = [curve.vectors[quantity][-1] for curve in curves if curve.arm == arm]
        if last:
            mean = _mean(last)
            axis.plot(range(1, len(mean) + 1), mean, "-", color=color, marker=marker, ms=3, lw=1, gid=f"arm={arm}")
            number = max(number, len(mean))
    axis.set_xticks(range(1, number + 1))
    axis.set_xlim(0.7, number + 0.3)
    axis.set_ylim(-0.04, 1.04)
    axis.set_xlabel("layer, fine to coarse")
    sns.despine(ax=axis)


def _has_bins(curve: Curve, name: str) -> bool:
    values = curve.vectors.get(PREFIX + name)
    return values is not None and values.shape[1] == len(BINS)


def _row(curve: Curve, when: float) -> int:
    return round(when * (len(curve.table) - 1))


def _mean(rows: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The mean of several vectors over those that are defined in a place; NaN if none is."""
    stacked = np.stack(rows)
    defined = np.isfinite(stacked)
    number = defined.sum(0)
    total = np.where(defined, stacked, 0).sum(0)
    return np.divide(total, number, out=np.full(len(total), np.nan), where=number > 0)
