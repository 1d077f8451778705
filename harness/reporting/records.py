"""What the runs of an experiment left behind: their records, and the counts that all figures are made from."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import datasets, discovery
from harness.datasets.dataset import Dataset
from harness.errors import UserError
from harness.evaluation.counts import Counts
from harness.evaluation.external_arms import EXTERNAL
from harness.experiment import Experiment
from harness.run import Run, differences, read_json, refuse_changed_files
from harness.statistics.scores import groups as frequency_groups

Table = NDArray[np.int64]


@dataclass(frozen=True)
class Missing:
    """Why a run has no number: a status, of its record or of the lack of one, and the reason if there is any."""

    status: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}" if self.reason else self.status


@dataclass(frozen=True)
class Origin:
    """What a run was trained with: processor or GPU with torch's version, and its method's source (sha256, commit)."""

    machine: str
    source: str
    commit: str


@dataclass
class Group:
    """The counts of all runs on one data set with one model, for the same N images in the same order.

    `entries` holds {(protocol, table): {arm: {seed: int64 [N, K, 3], or why it is missing}}}; `clusters` names each
    image's cluster, None where images are independent; `thirds` are the places of head, mid and tail in `classes`, {}
    where class frequencies are not known; `data` is the fingerprint of the data that was evaluated on; `origins` are
    {arm: {seed: what is known of its training}}.
    """

    dataset: str
    model: str
    image_ids: list[str] = field(default_factory=list)
    classes: tuple[str, ...] = ()
    clusters: list[str] | None = None
    thirds: dict[str, list[int]] = field(default_factory=dict)
    data: str | None = None
    origins: dict[str, dict[int, Origin]] = field(default_factory=dict)
    entries: dict[tuple[str, str], dict[str, dict[int, Table | Missing]]] = field(default_factory=dict)

    def tables(self, protocol: str, table: str, arm: str) -> dict[int, Table]:
        """What is there of an arm: {seed: int64 [N, K, 3]}."""
        found = self.entries[protocol, table][arm]
        return {seed: entry for seed, entry in found.items() if not isinstance(entry, Missing)}

    def missing(self, protocol: str, table: str, arm: str) -> dict[int, Missing]:
        """What is not there of an arm: {seed: why}."""
        found = self.entries[protocol, table][arm]
        return {seed: entry for seed, entry in found.items() if isinstance(entry, Missing)}


def arm_order(experiment: Experiment) -> list[str]:
    """The baseline, then the other arms in the experiment's order."""
    return sorted(experiment.arms, key=lambda arm: arm != experiment.baseline)


def display_name(arm: str) -> str:
    """An arm's name as people read it."""
    return arm.replace("_", " ")


def read_record(experiment: Experiment, run: Run, results: Path) -> dict[str, Any] | Missing:
    """The record of a run that is done, else why there is none.

    A damaged record, or one that was made with other settings than the experiment's, is a hole and not an error: the
    rest of the table does not depend on it.
    """
    folder = run.folder(results)
    if not (folder / "record.json").exists():
        if (folder / "training.json").exists():
            return Missing("not evaluated")
        return Missing("unfinished" if (folder / "checkpoints").exists() else "not run")
    try:
        record = read_json(folder / "record.json")
    except UserError as error:
        return Missing("unreadable", str(error))
    status, reason = record.get("status"), str(record.get("reason") or "")
    mappings = (record.get(key, {}) for key in ("settings", "provenance"))
    if not isinstance(status, str) or not all(isinstance(each, dict) for each in mappings):
        return Missing("unreadable", "record.json names no status, or its settings or provenance are no mapping")
    if changed := _changed_settings(experiment, run, record):
        return Missing("other settings", ", ".join(changed))
    return record if status == "done" else Missing(status, " ".join(reason.split()))


def left_out(experiment: Experiment, record: dict[str, Any]) -> str:
    """What the experiment asks for and the record of a run that is done lacks, in a few words; "" if it has all."""
    scores = record.get("scores")
    missing = [each for each in experiment.protocols if isinstance(scores, dict) and each not in scores]
    return _left_out(*missing) if missing else ""


def groups(
    experiment: Experiment,
    results: Path,
    tables: Sequence[str],
    protocols: Sequence[str] | None = None,
    pairs: Sequence[tuple[str, str]] | None = None,
) -> Iterator[Group]:
    """The counts of every (data set, model) in turn: the named tables and protocols (default: the experiment's)."""
    wanted = [(protocol, table) for protocol in protocols or experiment.protocols for table in tables]
    for dataset, model in experiment.pairs() if pairs is None else pairs:
        group = Group(dataset, model)
        for run in experiment.runs():
            if (run.dataset, run.model) == (dataset, model):
                _add(group, run, _counts(experiment, run, results, group, wanted), wanted, results)
        yield group


@cache
def method_options(method: str) -> dict[str, Any]:
    """The options of a method with their defaults; its source is read once."""
    return discovery.options(method)


def _changed_settings(experiment: Experiment, run: Run, record: dict[str, Any]) -> list[str]:
    """The settings in which a record differs from what the experiment asks for now.

    Only keys that both know are compared, so that records outlive a new key. The method's source is left out: its
    record names the commit. An external arm has no settings in the experiment.
    """
    if experiment.arms[run.arm].method == EXTERNAL:
        return []
    arm, found = experiment.arms[run.arm], record.get("settings", {})
    options = json.loads(json.dumps(method_options(arm.method) | arm.options))  # tuples become lists, as read back
    schedule = experiment.schedule_of(run.dataset, run.model, run.arm).model_dump(mode="json")
    asked: dict[str, Any] = {"method": arm.method, "options": options, "schedule": schedule}
    changed = []
    for name in ("method", "options", "schedule"):
        ours, theirs = asked[name], found.get(name)
        if isinstance(theirs, dict):
            ours = {key: value for key, value in ours.items() if key in theirs}
            theirs = {key: value for key, value in theirs.items() if key in ours}
        if theirs is not None:
            changed += differences({name: ours}, {name: theirs})
    return changed


def _counts(
    experiment: Experiment, run: Run, results: Path, group: Group, wanted: Sequence[tuple[str, str]]
) -> Counts | Missing:
    """The `wanted` counts of one run; the first that names its data says what the group's data are."""
    record = read_record(experiment, run, results)
    if isinstance(record, Missing):
        return record
    data = record.get("provenance", {}).get("data_fingerprint")
    group.data = group.data or data
    if data not in (None, group.data):
        return Missing("other data", "its data fingerprint is not that of the group's first run")
    try:
        refuse_changed_files(run.folder(results), record)
        counts = Counts.load(run.folder(results) / "counts.npz", wanted)
    except UserError as error:
        return Missing("unreadable", str(error))
    if (origin := _origin(record)) is not None:
        group.origins.setdefault(run.arm, {})[run.seed] = origin
    return counts


def _origin(record: dict[str, Any]) -> Origin | None:
    """None where the training was elsewhere, or the record does not say."""
    made, source = record.get("provenance", {}), record.get("settings", {}).get("method_source")
    device, torch_version = made.get("device") or {}, (made.get("packages") or {}).get("torch")
    name = device.get("name") or device.get("type")
    if not (name and torch_version and source):
        return None
    return Origin(f"{name} with torch {torch_version}", source, (made.get("commit") or "unknown")[:7])


def _left_out(*protocols: str) -> str:
    return f"{' and '.join(protocols)} {'was' if len(protocols) == 1 else 'were'} left out"


def _thirds(dataset: Dataset, classes: Sequence[str], results: Path) -> dict[str, list[int]]:
    """Head, mid and tail by pixels of the training split, verified in `results` or as the data set's file says."""
    try:
        report = json.loads(datasets.report_path(dataset.name, results).read_text(encoding="utf-8"))
        counted = report["splits"][dataset.train_split]["class_pixels"]
        pixels: Sequence[int] = [counted[name] for name in classes]
    except (OSError, ValueError, KeyError, TypeError):
        pixels = dataset.class_pixels.get(dataset.train_split, [])[:-1]
    return frequency_groups(pixels) if len(pixels) == len(classes) >= 3 else {}


def _add(group: Group, run: Run, counts: Counts | Missing, wanted: Sequence[tuple[str, str]], results: Path) -> None:
    """Add the `wanted` (protocol, table) of one run, or why they are missing, to its group."""
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
            entry = Missing("not evaluated", _left_out(protocol))
        group.entries.setdefault((protocol, table), {}).setdefault(run.arm, {})[run.seed] = entry
