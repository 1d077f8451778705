"""Computes the rows of every table from the runs' counts: scores, gains over the baseline and their intervals.

A metric is a function of counts (`scores.Metric`), so all metrics are treated alike: each run's score, its scores on
resampled test sets, and the interval of `interval.gains`. Tables, figures and the page show these rows.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.groups import Group, Missing, Origin, arm_order
from harness.experiment.schema import Experiment
from harness.runs.health import Mark, marks_of
from harness.statistics.bootstrap import RESAMPLES, bootstrap, resampling_units
from harness.statistics.interval import Gain, gains
from harness.statistics.scores import Metric

COLUMNS = (
    *("dataset", "model", "protocol", "metric", "arm", "runs", "baseline_runs", "mean", "sd"),
    *("gain", "low", "high", "p", "standard_error", "dof", "unit", "note", "status"),
)


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of a score over runs, in percent; `sd` is None for a single run."""

    mean: float
    sd: float | None
    runs: int


def spread(scores: Sequence[float]) -> Spread:
    """Mean and standard deviation of a score over runs. Raises ValueError if there are none."""
    if not scores:
        raise ValueError("there are no runs to average")
    return Spread(float(np.mean(scores)), float(np.std(scores, ddof=1)) if len(scores) > 1 else None, len(scores))


@dataclass(frozen=True)
class Column:
    """One metric for all arms on the same test images: {arm: {seed: score in percent}} and {arm: gain}."""

    scores: dict[str, dict[int, float]]
    gains: dict[str, Gain]
    unit: str = ""  # the unit of resampling, such as "image"


@dataclass(frozen=True)
class Cell:
    """One metric of one arm on a data set with a model and protocol, over its runs.

    values    scores in percent by seed
    missing   for the other seeds, why they are missing
    gain      over the baseline; None for the baseline itself, and if either has no run
    images    number of test images
    origins   how each run was trained, by seed
    health    the marks of each run (`runs.health`), by seed
    """

    dataset: str
    model: str
    protocol: str
    metric: str
    arm: str
    values: dict[int, float]
    missing: dict[int, Missing]
    gain: Gain | None
    is_baseline: bool
    baseline_runs: int = 0
    unit: str = ""
    images: int = 0
    origins: dict[int, Origin] = field(default_factory=dict)
    health: dict[int, list[Mark]] = field(default_factory=dict)

    @property
    def column(self) -> tuple[str, str, str, str]:
        """Data set, model, protocol and metric: what the arms of a table's column share."""
        return self.dataset, self.model, self.protocol, self.metric

    @property
    def spread(self) -> Spread | None:
        """Mean and standard deviation over the runs; None if there are none."""
        return spread(list(self.values.values())) if self.values else None

    @property
    def asked(self) -> int:
        """The number of runs that the experiment asks for."""
        return len(self.values) + len(self.missing)

    @property
    def status(self) -> str:
        """One of "done" and "partial" (some runs are missing), or without any run the statuses of the missing ones."""
        if self.values:
            return "partial" if self.missing else "done"
        return ", ".join(dict.fromkeys(each.status for each in self.missing.values()))

    @property
    def note(self) -> str:
        """Remarks about this cell, in one line."""
        notes = self.marks
        if self.values and not self.is_baseline:
            if self.gain is None:
                notes.append("the baseline has no run")
            elif self.gain.low is None:
                notes.append(self.no_interval)
        kept = ", ".join(str(seed) for seed, origin in sorted(self.origins.items()) if origin.kept)
        notes += [f"seed {kept} by an earlier version of the method's code, kept"] if kept else []
        alike: dict[str, list[str]] = {}
        for seed, missing in self.missing.items():
            alike.setdefault(str(missing), []).append(str(seed))
        return "; ".join(notes + [f"seed {', '.join(seeds)} {missing}" for missing, seeds in alike.items()])

    @property
    def marks(self) -> list[str]:
        """Marks of unhealthy runs, such as "collapsed (2 of 3 runs)". They do not change any number."""
        return marks_of([self.health.get(seed, []) for seed in self.values])

    @property
    def no_interval(self) -> str:
        """Why a gain has no interval."""
        if min(len(self.values), self.baseline_runs) < 2:
            return "no interval from a single run, which says nothing about a method"
        return f"no interval: the scores do not vary, or the test set is a single {self.unit}"

    @property
    def excludes_zero(self) -> bool:
        """Whether the gain has an interval, and it excludes 0."""
        return self.gain is not None and self.gain.excludes_zero


def compare(
    arms: Mapping[str, Mapping[int, NDArray[np.int64]]],
    baseline: str,
    metric: Metric,
    clusters: Sequence[str] | None = None,
    absent: str = "skip",
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Column:
    """Scores and gains of all `arms`, including the `baseline`, by one metric.

    arms: {arm: {seed: int64 [N, K, 3]}}, one table of counts, for the same images in the same order. clusters: as in
    `resampling_units`. seed: of the resampling, so that the same input gives the same intervals. Runs with an undefined
    score are left out. Raises ValueError if two tables differ in shape.
    """
    arms = {arm: {each: runs[each] for each in sorted(runs)} for arm, runs in arms.items()}
    shapes = {table.shape for runs in arms.values() for table in runs.values()}
    if len(shapes) > 1:
        raise ValueError(f"the tables differ in images or classes: {sorted(shapes)}")
    scores = {
        arm: {each: float(metric.score(table.sum(0), absent)) for each, table in runs.items()}
        for arm, runs in arms.items()
    }
    scores = {arm: {each: x for each, x in of_arm.items() if np.isfinite(x)} for arm, of_arm in scores.items()}
    if not shapes or not scores[baseline] or not shapes.copy().pop()[0]:
        return Column(scores, {})
    unit, name = resampling_units(shapes.pop()[0], clusters)
    order = sorted(arm for arm in arms if scores[arm])  # so that results do not depend on the arms' order
    keys = [(arm, each) for arm in order for each in scores[arm]]
    drawn = bootstrap([arms[arm][each] for arm, each in keys], metric, unit, resamples, seed, absent)
    resampled: dict[str | None, NDArray[np.float64]] = {
        (None if arm == baseline else arm): drawn[[place for place, key in enumerate(keys) if key[0] == arm]]
        for arm in order
    }
    rivals = {arm: list(scores[arm].values()) for arm in order if arm != baseline}
    found = gains(list(scores[baseline].values()), rivals, resampled, int(unit.max()) + 1)
    return Column(scores, found, name)


def cells(
    experiment: Experiment,
    group: Group,
    metrics: Iterable[Metric],
    baseline: str | None = None,
    family: Collection[str] | None = None,
    protocols: Collection[str] | None = None,
) -> list[Cell]:
    """The rows of a group: one for each protocol, metric and arm, the baseline first.

    Gains are over `baseline`, by default the experiment's. `family`: the other arms to compare, by default all.
    `protocols`: by default all of the group's. Metrics whose table the group lacks are left out.
    """
    baseline = baseline or experiment.baseline
    arms = [arm for arm in arm_order(experiment) if family is None or arm in family or arm == baseline]
    arms.sort(key=lambda arm: arm != baseline)
    found = []
    chosen = list(metrics)
    for protocol in dict.fromkeys(protocol for protocol, _ in group.entries):
        for metric in chosen:
            if (protocol, metric.table) not in group.entries or (protocols and protocol not in protocols):
                continue
            tables = {arm: group.tables(protocol, metric.table, arm) for arm in arms}
            column = compare(tables, baseline, metric, group.clusters, experiment.absent)
            for arm in arms:
                undefined = tables[arm].keys() - column.scores[arm].keys()
                gain = column.gains.get(arm)
                if gain and metric.name != "miou":
                    gain = replace(gain, resampled=None)  # only the mean over settings needs it
                cell = Cell(
                    dataset=group.dataset,
                    model=group.model,
                    protocol=protocol,
                    metric=metric.name,
                    arm=arm,
                    values=column.scores[arm],
                    missing=group.missing(protocol, metric.table, arm)
                    | {seed: Missing("undefined", "no class is there") for seed in sorted(undefined)},
                    gain=gain,
                    is_baseline=arm == baseline,
                    baseline_runs=len(column.scores[baseline]),
                    unit=column.unit,
                    images=len(group.image_ids),
                    origins=group.origins.get(arm, {}),
                    health=group.health.get(arm, {}),
                )
                found.append(cell)
    return found


def by_gain(found: Sequence[Cell]) -> list[Cell]:
    """A column's cells in the order of the tables: the baseline, then by decreasing gain, those without one last."""

    def rank(cell: Cell) -> tuple[bool, bool, float]:
        return (not cell.is_baseline, cell.gain is None, -cell.gain.difference if cell.gain else 0.0)

    return sorted(found, key=rank)


def csv_row(cell: Cell) -> list[object]:
    """A cell as a row of `COLUMNS`, unrounded."""
    mean, gain = cell.spread, cell.gain
    return [
        *(*cell.column, cell.arm, len(cell.values)),
        *(cell.baseline_runs, mean.mean if mean else None, mean.sd if mean else None),
        *((gain.difference, gain.low, gain.high, gain.p) if gain else [None] * 4),
        *((gain.standard_error, gain.dof or None) if gain else [None] * 2),
        *(cell.unit, cell.note, cell.status),
    ]


def halves(cell: Cell) -> tuple[list[int], list[int], float] | None:
    """Two halves of an arm's runs: the seeds of each, and the difference of their means (first minus second).

    With an odd number of runs, the first half is the smaller. None for a single run.
    """
    seeds = sorted(cell.values)
    first, second = seeds[: len(seeds) // 2], seeds[len(seeds) // 2 :]
    if not first:
        return None
    means = [float(np.mean([cell.values[seed] for seed in half])) for half in (first, second)]
    return first, second, means[0] - means[1]
