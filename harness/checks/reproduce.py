"""Repeats a committed run, or its first iterations, from its record and compares the two."""

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

NAME = "reproduced"  # the name of the experiment of repeated runs
# Another machine, package version or number of threads changes the last digits of the first step; by the end, the
# difference is that of another seed. See the tables of repeated seeds in results/reference.
TOLERANCE = 2.5  # points of mIoU
# Relative difference of the loss in the first iterations. In the first 50 and 100 iterations of CamVid records, two
# threads instead of one differ by 0.4 to 3.1 %, other seeds by up to 15 %.
EARLY_TOLERANCE = 0.05


@dataclass(frozen=True)
class Comparison:
    """A repeated run compared with its record.

    scores: {protocol: (mIoU of the record, mIoU now)} in percent, NaN if undefined. differs: how machine, versions,
    code or settings differ from the record's, one phrase each; if empty, weights and scores must be bit-identical.
    same_bits: whether they are.
    """

    record: Path
    scores: dict[str, tuple[float, float]]
    differs: list[str]
    same_bits: bool

    @property
    def passed(self) -> bool:
        """Whether the run is bit-identical or, if conditions differ, every mIoU is within `TOLERANCE` points."""
        return self.same_bits or (
            bool(self.differs)
            and all(
                abs(now - then) <= TOLERANCE or (math.isnan(then) and math.isnan(now))
                for then, now in self.scores.values()
            )
        )


@dataclass(frozen=True)
class Beginning:
    """The first `iterations` of a repeated run compared with the record's curve.csv.

    names: the scalars that both log. other: the first value that differs, or None if all are bit-identical. distance:
    the largest relative difference of the loss. differs: as in `Comparison`.
    """

    record: Path
    iterations: int
    names: list[str]
    other: str | None
    distance: float
    differs: list[str]

    @property
    def passed(self) -> bool:
        """Whether all values are bit-identical or, if conditions differ, the loss is within `EARLY_TOLERANCE`."""
        return self.other is None or (bool(self.differs) and self.distance <= EARLY_TOLERANCE)


def shortest(folder: Path, device: Mapping[str, str]) -> Path:
    """The folder of that run from `trained` which took the least time to train.

    Raises UserError if there is none.
    """
    done = trained(folder, device)
    return min(done, key=lambda run: done[run])


def trained(folder: Path, device: Mapping[str, str]) -> dict[Path, float]:
    """{run's folder: training time in seconds} for finished runs in or below `folder`.

    Prefers runs that were trained on a similar `device`, since they may be bit-identical: {"type": "cpu" or "cuda",
    "name" and "model": of the CPU}; a key that no run matches is ignored. Raises UserError if there is no run.
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
    """Train and evaluate the run in `folder` again, below `results`, by these `protocols` ([]: all in the record).

    Resumes an interrupted repetition. Raises UserError if the record is not a trained run's or lacks a protocol.
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
    """Train the first `iterations` of the run in `folder` again, without keeping any files.

    Raises UserError if the record is not a trained run's, or if `iterations` is not a multiple of its `log_every`.
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
    """An experiment that has only the record's run, and that run.

    Raises UserError if this version does not know its settings.
    """
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
    """The comparison in a few lines of text."""
    if isinstance(found, Beginning):
        what = f"the {len(found.names)} logged values of the first {found.iterations} iterations"
        same, tolerance = found.other is None, f"{EARLY_TOLERANCE:.0%} of the loss"
        shown = [] if same else [str(found.other), f"largest relative difference of the loss: {found.distance:.2e}"]
    else:
        what, same, tolerance = "weights and scores", found.same_bits, f"{TOLERANCE} points"
        shown = [
            f"{protocol}: mIoU {now:.4f}, in the record {then:.4f} ({now - then:+.4f})"
            for protocol, (then, now) in found.scores.items()
        ]
    if same:
        shown.append(f"bit-identical: {what}" + (", although conditions differ" if found.differs else ""))
    elif found.differs:
        shown.append(f"conditions differ, so the tolerance is {tolerance}")
    else:
        shown.append("settings, code, versions and machine are the record's, so the results should be bit-identical")
    shown += [f"differs from the record: {each}" for each in found.differs]
    return "\n  ".join([str(found.record), *shown, "pass" if found.passed else "fail"])


def _miou(record: Record, protocol: str) -> float:
    score = record.score(protocol)
    return math.nan if score is None else score


def _first_difference(then: "pd.DataFrame", now: "pd.DataFrame") -> str | None:
    """The first value that differs between `then` and `now` (NaN equals NaN), in words; None if there is none."""
    differ = ((then != now) & ~(then.isna() & now.isna())).stack()
    if not differ.any():
        return None
    iteration, name = differ.idxmax()
    return f"{name} at iteration {iteration}: {now.loc[iteration, name]}, in the record {then.loc[iteration, name]}"


def _record_of_training(folder: Path) -> Record:
    record = Record.load(folder / RECORD)
    if record.method == EXTERNAL or record.status != "done":
        raise UserError(f"{folder} holds no finished training of this program: there is nothing to repeat")
    return record


def _differing_settings(record: Record, settings: dict[str, Any]) -> list[str]:
    """Settings that both have and that differ; a later version may have more settings, or have renamed options."""
    theirs = record.settings | {"options": record.current_options}
    both = theirs.keys() & settings.keys()
    return differences({key: settings[key] for key in both}, {key: theirs[key] for key in both})


def _differing_machine(record: Record, now: Provenance | None) -> list[str]:
    then, now = record.provenance or Provenance(), now or Provenance()
    names = {"python", "packages", "device"}
    ours, theirs = (made.model_dump(include=names, exclude_none=True) for made in (now, then))
    found = differences(ours, theirs)
    if now.device and now.device.type == "cuda":
        found.append("a GPU's order of summation, which changes on every call unless both runs are --deterministic")
    return found
