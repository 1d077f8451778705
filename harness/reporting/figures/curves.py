"""What runs logged over their iterations: read once for all figures of it, and drawn arm by arm."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from harness.errors import UserError
from harness.experiment.schema import Experiment
from harness.reporting.names import setting_name
from harness.runs.record import RECORD, Record


@dataclass(frozen=True)
class Curve:
    """The training curve of one run."""

    arm: str
    table: pd.DataFrame  # curve.csv, by iteration
    diverged: bool
    vectors: dict[str, NDArray[np.float64]] = field(default_factory=dict)  # of diagnostics.npz, [T, n] over T rows


Curves = dict[str, list[Curve]]  # "data set, model" -> its runs


def read_curves(experiment: Experiment, results: Path) -> Curves:
    """The curve of every run that has one, whatever became of the run."""
    curves: Curves = {setting_name(dataset, model): [] for dataset, model in experiment.pairs()}
    for run in experiment.runs():
        path = run.folder(results) / "curve.csv"
        if path.is_file() and path.stat().st_size:
            table = pd.read_csv(path).set_index("iteration")
            found = Curve(run.arm, table, _diverged(path.parent), _vectors(path.parent, len(table)))
            curves[setting_name(run.dataset, run.model)].append(found)
    return curves


def _vectors(folder: Path, rows: int) -> dict[str, NDArray[np.float64]]:
    """The vectors of diagnostics.npz; none if it is missing, damaged, or not of as many rows as curve.csv."""
    try:
        with np.load(folder / "diagnostics.npz", allow_pickle=False) as file:
            found = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return {}
    return {name: value for name, value in found.items() if value.ndim == 2 and len(value) == rows}


def _diverged(folder: Path) -> bool:
    try:
        return Record.load(folder / RECORD).status == "diverged"
    except UserError:  # no record yet, or a damaged one
        return False


def draw_curve(
    axis: Axes, name: str, curves: Sequence[Curve], styles: Mapping[str, tuple[str, str]], dashes: str = "-"
) -> None:
    """Draw one quantity of all arms: a line for the mean over seeds, a band for their range."""
    seen = [np.empty(0)]
    for arm, (color, _) in styles.items():
        of_arm = [curve for curve in curves if curve.arm == arm and name in curve.table]
        if not of_arm:
            continue
        gid = f"arm={arm}"
        seeds = pd.concat([curve.table[name] for curve in of_arm], axis=1).sort_index().dropna(how="all")
        seen.append(seeds.to_numpy().ravel())
        if len(of_arm) > 1:
            axis.fill_between(seeds.index, seeds.min(axis=1), seeds.max(axis=1), color=color, alpha=0.15, lw=0, gid=gid)
        axis.plot(
            seeds.index,
            seeds.mean(axis=1),
            dashes,
            color=color,
            lw=1.1,
            marker="." if len(seeds) == 1 else None,
            gid=gid,
        )
        for curve in of_arm:
            end = curve.table[name].dropna().tail(1)
            if curve.diverged and len(end):
                axis.plot(end.index, end, "x", color=color, ms=4, mew=1.2, zorder=3, gid=gid)
    values = np.concatenate(seen)
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() > 30 * np.median(values):
        axis.set_yscale("log")  # a curve that runs away would flatten all others
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # the usual one needs mathtext
        axis.yaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axis.margins(x=0.02)
    sns.despine(ax=axis)
