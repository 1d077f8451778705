"""What tables, figures and the page show of an experiment, read from its records once for all of them."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harness.comparison import Cell, cells
from harness.evaluation.counts import DEFAULT_WIDTHS, REGION
from harness.evaluation.groups import Group, groups
from harness.evaluation.objects import SIZES
from harness.experiment.schema import Experiment
from harness.reporting.lengths import Length, lengths
from harness.reporting.names import setting_name
from harness.statistics.scores import METRICS, Values, frequency_metrics, iou, miou_of

EDGES = ("boundary", "trimap")
# Of `edge_protocol`: the tables of counts that are read together, and the field that takes their cells.
PARTS = {
    **{kind: ("edges", [f"{kind}@{width}" for width in DEFAULT_WIDTHS]) for kind in EDGES},
    "objects": ("objects", [f"objects@{size}" for size in SIZES]),
}


@dataclass
class Measured:
    """One data set with one model: the cells of its tables, and what is below them.

    region       mIoU by every protocol
    others       every other metric of `METRICS` by `protocol`, the experiment's first
    frequency    mIoU of the head, mid and tail classes, `thirds`, by every protocol
    edges        boundary and trimap mIoU by `edge_protocol`
    objects      mIoU by object size by `edge_protocol`
    class_ious   {protocol: {arm: {seed: float64 [K] in percent, NaN if undefined}}}
    class_iou    that of `protocol`
    confusion    {arm: {seed: float64 [K, K]}} by `protocol`: the share in percent of a true class (row) that is
                 predicted as each class (column), NaN for a class without pixels
    schedules    if arms are trained for several numbers of iterations, the cells of each by `protocol`, with gains
                 over the baseline's method of the same length
    """

    dataset: str
    model: str
    protocol: str
    classes: tuple[str, ...] = ()
    region: list[Cell] = field(default_factory=list)
    edges: list[Cell] = field(default_factory=list)
    frequency: list[Cell] = field(default_factory=list)
    objects: list[Cell] = field(default_factory=list)
    others: list[Cell] = field(default_factory=list)
    thirds: dict[str, list[int]] = field(default_factory=dict)
    class_ious: dict[str, dict[str, dict[int, Values]]] = field(default_factory=dict)
    class_iou: dict[str, dict[int, Values]] = field(default_factory=dict)
    confusion: dict[str, dict[int, Values]] = field(default_factory=dict)
    image_ids: tuple[str, ...] = ()
    schedules: "list[tuple[Length, list[Cell]]]" = field(default_factory=list)

    @property
    def title(self) -> str:
        """The name of a figure's panel: "CamVid, HRNet-W48"."""
        return setting_name(self.dataset, self.model)

    def over_baseline(self, values: dict[str, dict[int, Values]], arm: str, baseline: str) -> Values | None:
        """The mean of `class_iou` or `confusion` over an arm's runs less that over the baseline's; None without any."""
        ours, theirs = (list(values.get(name, {}).values()) for name in (arm, baseline))
        return np.mean(ours, axis=0) - np.mean(theirs, axis=0) if ours and theirs else None


def measure(experiment: Experiment, results: Path) -> list[Measured]:
    """All that is shown of every (data set, model), from whatever records exist."""
    found = []
    for group in groups(experiment, results, [REGION]):
        each = Measured(group.dataset, group.model, experiment.protocols[0], group.classes, thirds=group.thirds)
        each.image_ids = tuple(group.image_ids)
        each.region = cells(experiment, group, [miou_of(REGION)])
        others = [metric for name, metric in METRICS.items() if name != "miou"]
        each.others = cells(experiment, group, others, protocols=[each.protocol])
        each.schedules = _by_length(experiment, group)
        for protocol in experiment.protocols:
            tables = {arm: group.tables(protocol, REGION, arm) for arm in experiment.arms}
            each.class_ious[protocol] = {
                arm: {seed: iou(table.sum(0), experiment.absent) for seed, table in of_arm.items()}
                for arm, of_arm in tables.items()
            }
        each.class_iou = each.class_ious[each.protocol]
        each.frequency = cells(experiment, group, frequency_metrics(group.thirds))
        each.confusion = _confusions(experiment, results, group)
        found.append(each)
    for name, tables_of_counts in PARTS.values():  # one after the other, since all of them are much memory
        for each, group in zip(
            found, groups(experiment, results, tables_of_counts, [edge_protocol(experiment)]), strict=True
        ):
            getattr(each, name).extend(cells(experiment, group, map(miou_of, tables_of_counts)))
    return found


def _by_length(experiment: Experiment, group: Group) -> list[tuple[Length, list[Cell]]]:
    found = []
    for length in lengths(experiment, group.dataset, group.model):
        of_length = cells(experiment, group, [miou_of(REGION)], length.baseline, length.arms)
        found.append((length, [cell for cell in of_length if cell.protocol == experiment.protocols[0]]))
    return found


def edge_protocol(experiment: Experiment) -> str:
    """The protocol of boundaries and sizes: label maps themselves, not an average over scales, show edges."""
    return "whole" if "whole" in experiment.protocols else experiment.protocols[0]


def _confusions(experiment: Experiment, results: Path, group: Group) -> dict[str, dict[int, Values]]:
    found: dict[str, dict[int, Values]] = {}
    protocol = experiment.protocols[0]
    for arm in experiment.arms:
        for seed in group.tables(protocol, REGION, arm):
            path = experiment.run(group.dataset, group.model, arm, seed).folder(results) / "confusion.npz"
            if not path.is_file():
                continue
            with np.load(path, allow_pickle=False) as file:
                if protocol not in file.files:
                    continue
                counts = file[protocol].astype(np.float64)
            pixels = counts.sum(1, keepdims=True)
            shares = np.divide(100 * counts, pixels, out=np.full_like(counts, np.nan), where=pixels > 0)
            found.setdefault(arm, {})[seed] = shares
    return found
