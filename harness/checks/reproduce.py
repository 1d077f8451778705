"""Repeats a committed run, or its first iterations, from its record alone and compares the two."""

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.compute.machine import Machine
from harness.errors import UserError
from harness.experiment.run import Run
from harness.experiment.schema import ARM_KEYS, Experiment
from harness.runs.external_arms import EXTERNAL
from harness.runs.record import RECORD, Provenance, Record, differences, records_below

if TYPE_CHECKING:
    import pandas as pd

NAME = "reproduced"  # the experiment that such runs belong to
# Another machine, package version or number of threads changes the last digits from the first step on, which in the end
# differs as much as another seed: see the tables of repeated seeds in results/reference.
TOLERANCE = 2.5  # points of mIoU
# Of the loss, relative, in the first iterations: two threads instead of one made of the first 50 and 100 of CamVid
# records a difference of 0.4 to 3.1 %, another seed up to 15 %.
EARLY_TOLERANCE = 0.05


@dataclass(frozen=True)
class Comparison:
    """A repeated run beside its record.

    scores: {protocol: (mIoU of the record, mIoU now)} in percent, NaN where undefined. differs: in what machine,
    versions, code or settings are not the record's, one phrase each; empty: the very same weights and scores are due.
    same_bits: whether weights and scores are the record's.
    """

    record: Path
    scores: dict[str, tuple[float, float]]
    differs: list[str]
    same_bits: bool

    @property
    def passed(self) -> bool:
        """Equal to the bit where it is due, else every mIoU within `TOLERANCE` points."""
        return self.same_bits or (
            bool(self.differs)
            and all(
                abs(now - then) <= TOLERANCE or (math.isnan(then) and math.isnan(now))
                for then, now in self.scores.values()
            )
        )


@dataclass(frozen=True)
class Beginning:
    """The first `iterations` of a run made again, beside the rows of its curve.csv.

    names: the scalars that both log. other: the first that differs, with its iteration; None: all are the same to the
    bit. distance: the largest difference of the loss, relative to the record's. differs: as in `Comparison`.
    """

    record: Path
    iterations: int
    names: list[str]
    other: str | None
    distance: float
    differs: list[str]

    @property
    def passed(self) -> bool:
        """Equal to the bit where it is due, else the loss within `EARLY_TOLERANCE`."""
        return self.other is None or (bool(self.differs) and self.distance <= EARLY_TOLERANCE)


def shortest(folder: Path, device: Mapping[str, str]) -> Path:
    """The folder of the run that took the least time to train, of those that `trained` gives.

    Raises UserError if there is none.
    """
    done = trained(folder, device)
    return min(done, key=lambda run: done[run])


def trained(folder: Path, device: Mapping[str, str]) -> dict[Path, float]:
    """The folders of the runs in or below `folder` that were trained to their end, with the seconds that they took.

    Of those the ones trained on such a `device`, which may come out the same to the bit: {"type": "cpu" or "cuda",
    "name" and "model": of the processor}; a key that none of them agrees in does not count. Raises UserError if there
    is no run.
    """
    found = {path.parent: Record.load(path) for path in records_below(folder)}
    done = {run: one for run, one in found.items() if one.status == "done" and one.seconds and one.provenance}
    if not done:
        raise UserError(f"there is no record of a trained run in or below {folder}: give a run's folder")
    for name, wanted in device.items():
        alike = {run: one for run, one in done.items() if getattr(one.device, name, None) == wanted}
        done = alike or done
    return {run: record.seconds or 0.0 for run, record in done.items()}


def reproduce(folder: Path, results: Path, root: Path, machine: Machine, protocols: list[str]) -> Comparison:
    """Train and evaluate the run in `folder` again, below `results`, by some of its protocols (none named: all).

    An interrupted one continues. Raises UserError if the record is no trained run's or lacks a protocol.
    """
    from harness.evaluation.evaluate import evaluate
    from harness.training.train import train

    record = _record_of_training(folder)
    chosen = protocols or list(record.scores)
    if lacking := [name for name in chosen if name not in record.scores]:
        raise UserError(
            f"{folder} was not evaluated by {', '.join(lacking)}: give --protocol {' or '.join(record.scores)}"
        )
    experiment, run = experiment_of(record, chosen)
    training = train(experiment, run, results, machine, root=root)
    again = evaluate(run.folder(results), machine, root=root, protocols=chosen)
    if again.status != "done":
        raise UserError(f"{run.folder(results)} ended as {again.status}: {again.reason}")
    return Comparison(
        record=folder,
        scores={name: (_miou(record, name), _miou(again, name)) for name in chosen},
        differs=[
            *_differing_settings(record, training.settings),
            *_differing_machine(record, training.provenance),
        ],
        same_bits=again.weights_hash == record.weights_hash
        and all(again.score(name) == record.score(name) for name in chosen),
    )


def begin(folder: Path, results: Path, root: Path, machine: Machine, iterations: int) -> Beginning:
    """Train the run in `folder` again for some iterations, a multiple of its `log_every`; keeps nothing of it.

    Raises UserError if the record is no trained run's, or for another number of iterations.
    """
    import pandas as pd

    from harness import datasets
    from harness.compute.provenance import provenance
    from harness.datasets.verify import verify
    from harness.training.loop import Job
    from harness.training.trainer import Trainer

    record = _record_of_training(folder)
    experiment, run = experiment_of(record, list(record.scores))
    settings = experiment.settings(run)
    schedule = experiment.schedule_of(run.dataset, run.model, run.arm)
    if iterations % schedule.log_every or iterations > schedule.iterations:
        raise UserError(
            f"--iterations {iterations}: {folder} logged every {schedule.log_every} of {schedule.iterations} "
            "iterations; give a multiple of that"
        )
    device = machine.use()
    dataset = datasets.load(run.dataset, root)
    datasets.prepare(dataset)
    settings["data"] = verify(dataset, datasets.report_path(dataset.name, results))["fingerprint"]
    trainer = Trainer(settings, len(dataset.classes), device)
    settings["initial_weights"] = trainer.network.initial_weights_sha256
    with tempfile.TemporaryDirectory() as scratch:
        job = Job(str(run), Path(scratch), settings, dataset, machine, device, "auto", results / "cache", None, trainer)
        job.until = iterations
        job.finish()
    now = pd.DataFrame(job.history.rows).set_index("iteration")
    then = pd.read_csv(folder / "curve.csv", index_col="iteration").loc[:iterations]
    names = [name for name in then if name in now and now[name].dtype == float and name != "seconds"]
    return Beginning(
        record=folder,
        iterations=iterations,
        names=names,
        other=_first_difference(then[names], now[names]),
        distance=float((now["loss"] / then["loss"] - 1).abs().max()),
        differs=[
            *_differing_settings(record, settings),
            *_differing_machine(record, Provenance(**provenance(str(device)))),
        ],
    )


def experiment_of(record: Record, protocols: list[str]) -> tuple[Experiment, Run]:
    """An experiment with a record's run alone, and that run. Raises UserError if this version does not know them."""
    key, settings = record.key, record.settings
    arm = {name: settings[name] for name in ARM_KEYS if name in settings} | record.options
    content = {
        "name": NAME,
        "arms": {key.arm: arm},
        "baseline": key.arm,
        "datasets": [key.dataset],
        "models": [key.model],
        "seeds": [key.seed],
        "schedule": settings["schedule"],
        "protocols": protocols,
        "absent": record.absent,
    }
    experiment = Experiment.of(content, f"the record of {key.arm}, seed {key.seed}")
    return experiment, experiment.runs()[0]


def describe(found: Comparison | Beginning) -> str:
    """The comparison in a few lines."""
    if isinstance(found, Beginning):
        what = f"the {len(found.names)} logged values of the first {found.iterations} iterations"
        same, allowed = found.other is None, f"{EARLY_TOLERANCE:.0%} of the loss is"
        shown = [] if same else [str(found.other), f"loss at most {found.distance:.2e} of it away"]
    else:
        what, same, allowed = "weights and scores", found.same_bits, f"{TOLERANCE} points are"
        shown = [
            f"{protocol}: mIoU {now:.4f}, in the record {then:.4f} ({now - then:+.4f})"
            for protocol, (then, now) in found.scores.items()
        ]
    if same:
        shown.append(f"the same to the bit: {what}" + (", though not made alike" if found.differs else ""))
    elif found.differs:
        shown.append(f"not made alike, so that {allowed} allowed")
    else:
        shown.append("settings, code, versions and machine are the record's, so that the same bits were due")
    shown += [f"not the record's: {each}" for each in found.differs]
    return "\n  ".join([str(found.record), *shown, "pass" if found.passed else "fail"])


def _miou(record: Record, protocol: str) -> float:
    score = record.score(protocol)
    return math.nan if score is None else score


def _first_difference(then: "pd.DataFrame", now: "pd.DataFrame") -> str | None:
    """The first value of `then` that is another in `now`, NaN being the same as NaN; None if there is none."""
    differ = ((then != now) & ~(then.isna() & now.isna())).stack()
    if not differ.any():
        return None
    iteration, name = differ.idxmax()
    return f"{name} at iteration {iteration}: {now.loc[iteration, name]}, in the record {then.loc[iteration, name]}"


def _record_of_training(folder: Path) -> Record:
    record = Record.load(folder / RECORD)
    if record.method == EXTERNAL or record.status != "done":
        raise UserError(f"{folder} holds no run that was trained to its end here: there is nothing to make again")
    return record


def _differing_settings(record: Record, settings: dict[str, Any]) -> list[str]:
    """Settings that both know and that are not the same; a later version may know more, or have renamed options."""
    theirs = record.settings | {"options": record.current_options}
    both = theirs.keys() & settings.keys()
    return differences({key: settings[key] for key in both}, {key: theirs[key] for key in both})


def _differing_machine(record: Record, now: Provenance | None) -> list[str]:
    then, now = record.provenance or Provenance(), now or Provenance()
    names = {"python", "packages", "device"}
    ours, theirs = (made.model_dump(include=names, exclude_none=True) for made in (now, then))
    found = differences(ours, theirs)
    if now.device and now.device.type == "cuda":
        found.append(
            "the order in which a GPU adds, another at every call unless both are trained with --deterministic"
        )
    return found
