"""The counts of an experiment's runs, grouped by data set and model: the input of every table and figure."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness import datasets
from harness.datasets.dataset import Dataset
from harness.errors import UserError
from harness.evaluation.counts import Counts
from harness.experiment.run import Run
from harness.experiment.schema import Experiment
from harness.runs.health import Mark, health_of
from harness.runs.record import InitialWeights, Record
from harness.runs.state import Missing, describe_left_out, read_record
from harness.statistics.scores import groups as frequency_groups

Table = NDArray[np.int64]


@dataclass(frozen=True)
class Origin:
    """How a run was trained.

    machine: CPU or GPU with torch's version. source: sha256 of the method's code. commit: of this project. weights:
    which initial weights did not fit. data: a remark if the data are not the published set. kept: the run is of an
    earlier version of the method's code, and the user kept it.
    """

    machine: str
    source: str
    commit: str
    weights: str = ""
    data: str = ""
    kept: bool = False


@dataclass
class Group:
    """The counts of all runs on one data set with one model, for the same N images in the same order.

    entries   {(protocol, table): {arm: {seed: int64 [N, K, 3], or why it is missing}}}
    clusters  the cluster of each image; None if images are independent
    thirds    indices of head, mid and tail in `classes`; {} if class frequencies are unknown
    data      fingerprint of the evaluated data
    origins   {arm: {seed: how the run was trained}}
    health    {arm: {seed: the run's marks}}
    """

    dataset: str
    model: str
    image_ids: list[str] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    clusters: list[str] | None = None
    thirds: dict[str, list[int]] = field(default_factory=dict)
    data: str | None = None
    origins: dict[str, dict[int, Origin]] = field(default_factory=dict)
    health: dict[str, dict[int, list[Mark]]] = field(default_factory=dict)
    entries: dict[tuple[str, str], dict[str, dict[int, Table | Missing]]] = field(default_factory=dict)

    def tables(self, protocol: str, table: str, arm: str) -> dict[int, Table]:
        """The counts of an arm's available runs: {seed: int64 [N, K, 3]}."""
        found = self.entries[protocol, table][arm]
        return {seed: entry for seed, entry in found.items() if not isinstance(entry, Missing)}

    def missing(self, protocol: str, table: str, arm: str) -> dict[int, Missing]:
        """The missing runs of an arm: {seed: why}."""
        found = self.entries[protocol, table][arm]
        return {seed: entry for seed, entry in found.items() if isinstance(entry, Missing)}


def arm_order(experiment: Experiment) -> list[str]:
    """The baseline, then the other arms in the experiment's order."""
    return sorted(experiment.arms, key=lambda arm: arm != experiment.baseline)


def display_name(arm: str) -> str:
    """An arm's name for people."""
    return arm.replace("_", " ")


def groups(
    experiment: Experiment,
    results: Path,
    tables: Sequence[str],
    protocols: Sequence[str] | None = None,
    pairs: Sequence[tuple[str, str]] | None = None,
) -> Iterator[Group]:
    """Yield the counts of every (data set, model), for these tables and protocols (default: the experiment's)."""
    wanted = [(protocol, table) for protocol in protocols or experiment.protocols for table in tables]
    for dataset, model in experiment.pairs() if pairs is None else pairs:
        group = Group(dataset, model)
        for run in experiment.runs():
            if (run.dataset, run.model) == (dataset, model):
                _add(group, run, _counts(experiment, run, results, group, wanted), wanted, results)
        yield group


def _counts(
    experiment: Experiment, run: Run, results: Path, group: Group, wanted: Sequence[tuple[str, str]]
) -> Counts | Missing:
    """The `wanted` counts of one run, or why they are missing; also fills in the group's data, origins and health.

    The first run with a data fingerprint determines the group's.
    """
    record = read_record(experiment, run, results)
    if isinstance(record, Missing):
        return record
    data = record.provenance.data_fingerprint if record.provenance else None
    group.data = group.data or data
    if data not in (None, group.data):
        return Missing("other data", "its data fingerprint is not that of the group's first run")
    try:
        record.refuse_changed_files(run.folder(results))
        counts = Counts.load(run.folder(results) / "counts.npz", wanted)
    except UserError as error:
        return Missing("unreadable", str(error))
    if (origin := _origin(record)) is not None:
        group.origins.setdefault(run.arm, {})[run.seed] = origin
    group.health.setdefault(run.arm, {})[run.seed] = health_of(run.folder(results), record)
    return counts


def _origin(record: Record) -> Origin | None:
    """How the run was trained; None for another program's predictions, or if the record does not say."""
    made, source = record.provenance, record.settings.get("method_source")
    if not (made and source and (machine := made.describe_device())):
        return None
    return Origin(
        machine=machine,
        source=source,
        commit=(made.commit or "unknown")[:7],
        weights=left_open(record.initial_weights),
        data=record.data_remark or "",
        kept=record.kept_for_source is not None,
    )


def left_open(weights: InitialWeights | None) -> str:
    """Which tensors the initial weights did not fill and which were not used; "" if all fitted or there were none."""
    parts = []
    for names, words in (
        (weights.unfilled if weights else [], "at random in spite of it"),
        (weights.unused if weights else [], "not used of it"),
    ):
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        parts += [f"{words}: {', '.join(names[:3])}{more}"] if names else []
    return f"{weights.file} ({'; '.join(parts)})" if weights and parts else ""


def _thirds(dataset: Dataset, classes: Sequence[str], results: Path) -> dict[str, list[int]]:
    """Head, mid and tail by pixels of the training split, from verify.json in `results` or the data set's YAML."""
    try:
        report = json.loads(datasets.report_path(dataset.name, results).read_text(encoding="utf-8"))
        counted = report["splits"][dataset.train_split]["class_pixels"]
        pixels: Sequence[int] = [counted[name] for name in classes]
    except (OSError, ValueError, KeyError, TypeError):
        pixels = dataset.class_pixels.get(dataset.train_split, [])[:-1]
    return frequency_groups(pixels) if len(pixels) == len(classes) >= 3 else {}


def _add(group: Group, run: Run, counts: Counts | Missing, wanted: Sequence[tuple[str, str]], results: Path) -> None:
    """Add one run's `wanted` tables, or why they are missing, to its group."""
    if isinstance(counts, Counts) and not group.image_ids:
        dataset = datasets.load(group.dataset)
        group.image_ids, group.classes = counts.image_ids, tuple(counts.classes)
        if dataset.clusters is not None:
            group.clusters = [dataset.cluster(image_id) for image_id in counts.image_ids]
        group.thirds = _thirds(dataset, group.classes, results)
    if isinstance(counts, Counts):
        if tuple(counts.classes) != group.classes or sorted(counts.image_ids) != sorted(group.image_ids):
            counts = Missing("other images", "its images or classes are not those of the group's first run")
        elif counts.image_ids != group.image_ids:
            counts = counts.select(group.image_ids)
    for protocol, table in wanted:
        entry: Table | Missing
        if isinstance(counts, Missing):
            entry = counts
        elif table in counts.tables.get(protocol, {}):
            entry = counts.tables[protocol][table]
        elif protocol in counts.tables:
            entry = Missing("not evaluated", f"no {table} was counted by {protocol}")
        else:
            entry = Missing("not evaluated", describe_left_out([protocol]))
        group.entries.setdefault((protocol, table), {}).setdefault(run.arm, {})[run.seed] = entry
