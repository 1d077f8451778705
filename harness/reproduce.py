"""Makes a committed run again, from its record alone, and holds its scores against the record's."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.evaluation.external_arms import EXTERNAL
from harness.experiment import ARM_KEYS, Experiment
from harness.machine import Machine
from harness.run import Run, differences, read_json

NAME = "reproduced"  # the experiment that such runs belong to
# On another machine, other package versions or another number of threads the last digits differ from the first step on,
# and training makes of that what another seed makes: see the A/A control in results/reference.
TOLERANCE = 2.5  # points of mIoU


@dataclass(frozen=True)
class Comparison:
    """A run made again, beside its record.

    scores: {protocol: (mIoU of the record, mIoU now)} in percent. differs: in what machine, versions, code or settings
    are not the record's, one phrase each; empty: the very same weights and scores are due. same_bits: whether weights
    and scores are the record's.
    """

    record: Path
    scores: dict[str, tuple[float, float]]
    differs: list[str]
    same_bits: bool

    @property
    def passed(self) -> bool:
        """Equal to the bit where it is due, else every mIoU within `TOLERANCE` points."""
        return self.same_bits or (
            bool(self.differs) and all(abs(now - then) <= TOLERANCE for then, now in self.scores.values())
        )


def shortest(folder: Path) -> Path:
    """The folder of the run in or below `folder` that took the least time to train, of those that are done.

    Raises UserError if there is none.
    """
    found = {path.parent: read_json(path) for path in sorted(Path(folder).rglob("record.json"))}
    done = {run: record["seconds"] for run, record in found.items() if record["status"] == "done" and record["seconds"]}
    if not done:
        raise UserError(f"there is no record of a trained run in or below {folder}: give a run's folder")
    return min(done, key=lambda run: done[run])


def reproduce(folder: Path, results: Path, root: Path, machine: Machine, protocols: list[str]) -> Comparison:
    """Train and evaluate the run in `folder` again, below `results`, by some of its protocols (none named: all).

    An interrupted one continues. Raises UserError if the record is no trained run's or lacks a protocol.
    """
    from harness.evaluation.evaluate import evaluate
    from harness.training.train import train

    record = read_json(folder / "record.json")
    if record["method"] == EXTERNAL or record["status"] != "done":
        raise UserError(f"{folder} holds no run that was trained to its end here: there is nothing to make again")
    chosen = protocols or list(record["scores"])
    if lacking := [name for name in chosen if name not in record["scores"]]:
        raise UserError(
            f"{folder} was not evaluated by {', '.join(lacking)}: give --protocol {' or '.join(record['scores'])}"
        )
    experiment, run = experiment_of(record, chosen)
    training = train(experiment, run, results, machine, root=root)
    again = evaluate(run.folder(results), machine, root=root, protocols=chosen)
    if again["status"] != "done":
        raise UserError(f"{run.folder(results)} ended as {again['status']}: {again['reason']}")
    return Comparison(
        record=folder,
        scores={name: (record["scores"][name]["miou"], again["scores"][name]["miou"]) for name in chosen},
        differs=[*_differing_settings(record, training), *_differing_machine(record, training)],
        same_bits=again["weights_hash"] == record["weights_hash"]
        and all(again["scores"][name]["miou"] == record["scores"][name]["miou"] for name in chosen),
    )


def experiment_of(record: dict[str, Any], protocols: list[str]) -> tuple[Experiment, Run]:
    """An experiment with a record's run alone, and that run. Raises UserError if this version does not know them."""
    key, settings = record["key"], record["settings"]
    arm = {name: settings[name] for name in ARM_KEYS if name in settings} | record["options"]
    content = {
        "name": NAME,
        "arms": {key["arm"]: arm},
        "baseline": key["arm"],
        "datasets": [key["dataset"]],
        "models": [key["model"]],
        "seeds": [key["seed"]],
        "schedule": settings["schedule"],
        "protocols": protocols,
        "absent": record["absent"],
    }
    experiment = Experiment.of(content, f"the record of {key['arm']}, seed {key['seed']}")
    return experiment, experiment.runs()[0]


def describe(found: Comparison) -> str:
    """The comparison in a few lines."""
    lines = [f"{found.record}"]
    for protocol, (then, now) in found.scores.items():
        lines.append(f"  {protocol}: mIoU {now:.4f}, in the record {then:.4f} ({now - then:+.4f})")
    if found.same_bits:
        lines.append("  the same to the bit: weights and scores")
    elif found.differs:
        lines.append(f"  {TOLERANCE} points are allowed, since it was not the same: {'; '.join(found.differs)}")
    else:
        lines.append("  settings, code, versions and machine are the record's, so that the same bits were due")
    return "\n".join([*lines, "  pass" if found.passed else "  fail"])


def _differing_settings(record: dict[str, Any], training: dict[str, Any]) -> list[str]:
    """Settings that both know and that are not the same; a later version may know more of them."""
    theirs, ours = record["settings"], training["settings"]
    both = theirs.keys() & ours.keys()
    return differences({key: ours[key] for key in both}, {key: theirs[key] for key in both})


def _differing_machine(record: dict[str, Any], training: dict[str, Any]) -> list[str]:
    theirs, ours = record["provenance"], training["provenance"]
    names = ("python", "packages", "device")
    return differences({name: ours[name] for name in names}, {name: theirs[name] for name in names})
