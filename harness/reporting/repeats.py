"""A table of the runs that two results folders share: what the same seed gives on another machine."""

import json
from collections.abc import Iterable
from pathlib import Path

from harness.compute import atomic
from harness.errors import UserError
from harness.experiment.schema import discovery
from harness.reporting.entries import interval_text
from harness.reporting.markup import markdown_table, points
from harness.reporting.names import name_by_method
from harness.runs.external_arms import EXTERNAL
from harness.runs.record import Record, records_below
from harness.statistics.repeats import Repeats
from harness.statistics.repeats import repeats as measure

Place = tuple[str, str, str, int]  # data set, network, arm, iterations: runs that differ in their seed alone


def write_repeats(first: Path, second: Path, protocol: str, out: Path) -> Path:
    """Write the mIoU of every run that both folders hold, by `protocol`, as Markdown; returns `out`.

    A run is the same if all that was set is, whatever experiment and arm are called: data, network and its initial
    weights, method, options, seed and schedule; notes say if the method's source differed. The arms' names are
    the first's; runs of several lengths have a row for each. Raises UserError if they share no run.
    """
    ours, theirs = _records(first, protocol), _records(second, protocol)
    shared = [run for run in ours if run in theirs]
    if not shared:
        raise UserError(f"{first} and {second} share no run that was evaluated by {protocol}: give two results folders")
    scores = {run: (_miou(ours[run], protocol), _miou(theirs[run], protocol)) for run in shared}
    places = {run: _place(ours[run]) for run in shared}
    arms = {place: [scores[run] for run in shared if places[run] == place] for place in places.values()}
    found = measure({str(place): pairs for place, pairs in arms.items()})
    rows = [
        [
            _shown(place, arms),
            str(len(pairs)),
            *(points(sum(column) / len(pairs)) for column in zip(*pairs, strict=True)),
            ", ".join(points(after - before, sign=True) for before, after in pairs),
        ]
        for place, pairs in arms.items()
    ]
    names = [_machines(records[run] for run in shared) for records in (ours, theirs)]
    sources = sum(
        ours[run].settings.get("method_source") != theirs[run].settings.get("method_source") for run in shared
    )
    text = markdown_table(
        f"The same runs on two machines: mIoU, {protocol}",
        ["", "seeds", first.name, second.name, f"{second.name} minus {first.name}, seed by seed"],
        rows,
        [f"{first.name}: {names[0]}. {second.name}: {names[1]}.", *_notes(found, first.name, second.name, sources)],
    )
    atomic.write_text(out, text)
    return out


def _notes(found: Repeats, first: str, second: str, sources: int) -> list[str]:
    notes = [
        "Equal seeds: the same initial weights, images and crops. What differs is rounding, and what methods draw at "
        "random on the device."
    ]
    if found.shift_interval is not None and found.same_seed is not None:
        notes += [
            f"{second} minus {first}: {points(found.shift, sign=True)} points on average over {found.n} runs, 95 % "
            f"interval {interval_text(*found.shift_interval)} by Student's t.",
            f"Standard deviation of a run with its seed fixed: {points(found.same_seed)} points (of the differences, "
            "over the square root of 2).",
        ]
    if found.across_seeds is not None:
        related = "" if found.correlation is None else f"; correlation of a seed's two runs: {found.correlation:.2f}"
        notes.append(f"Over seeds, within an arm and a machine: {points(found.across_seeds)} points{related}.")
    if sources:
        notes.append(f"Of {found.n} runs {sources} had another version of their method's source on the two machines.")
    return notes


def _records(results: Path, protocol: str) -> dict[str, Record]:
    """The records with a score by `protocol`, in the order of their paths, by all that was set of their runs."""
    found: dict[str, Record] = {}
    for record in map(Record.load, records_below(results / "runs")):
        if record.method != EXTERNAL and record.score(protocol) is not None:
            found.setdefault(_identity(record), record)
    return found


def _miou(record: Record, protocol: str) -> float:
    score = record.score(protocol)
    assert score is not None  # as `_records` saw
    return score


def _identity(record: Record) -> str:
    """All that was set, as JSON, with today's default for what the record is too old to have."""
    settings = record.settings
    known = {name: settings.get(name) for name in ("dataset", "model", "method", "seed", "starts_at", "ends_at")}
    known |= {name: settings.get(name) for name in ("data", "initial_weights")}
    known["options"] = discovery.options(settings["method"], settings["options"])
    known["schedule"] = record.schedule.model_dump(mode="json")
    return json.dumps(known, sort_keys=True)


def _place(record: Record) -> Place:
    key = record.key
    return key.dataset, key.model, name_by_method(key.arm, record.method), record.schedule.iterations


def _machines(records: Iterable[Record]) -> str:
    """The devices that runs were trained on, with torch's version, each once."""
    made = (record.provenance.describe_device() if record.provenance else "" for record in records)
    return ", ".join(dict.fromkeys(machine or "unknown" for machine in made))


def _shown(place: Place, places: Iterable[Place]) -> str:
    """The name of a row: its arm, and its data set, network and number of iterations where there are several."""
    several = [len(set(each)) > 1 for each in zip(*places, strict=True)]
    dataset, model, arm, iterations = place
    outer = [each for each, shown in zip((dataset, model), several, strict=False) if shown]
    return " ".join([*outer, arm]) + (f", {iterations:,} iterations" if several[-1] else "")
