"""Copies runs that another experiment holds already: the same settings give the same network.

Runs of one experiment never lend to each other: an arm that it names twice shows how much two trainings differ.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.compute import atomic
from harness.errors import UserError
from harness.experiment.run import Run
from harness.experiment.schema import Experiment
from harness.runs.record import RECORD, TRAINING, Record, inference_weights, is_set_aside
from harness.runs.state import describe_left_out, in_words, left_out

LOGS, EMBEDDINGS = ("curve.csv", "diagnostics.npz"), "embeddings.npz"  # a committed record may lack the embeddings
OF_RECORD = ("counts.npz", "confusion.npz", *LOGS, EMBEDDINGS)
OF_TRAINING = ("data", "initial_weights")  # settings that only training knows


def borrow_training(experiment: Experiment, run: Run, results: Path, settings: dict[str, Any]) -> Record | None:
    """Copy the trained run of another experiment with exactly these settings; None if there is none.

    Settings include data, initial weights, seed and the method's source. training.json is written last: the lender's,
    except for key, protocols and `borrowed_from`.
    """
    folder = run.folder(results)
    for lender, record in _lenders(experiment, run, results, TRAINING):
        files = {lender / name: folder / name for name in LOGS}
        files[inference_weights(lender)] = inference_weights(folder)
        if record.settings != settings or not all(theirs.is_file() for theirs in files):
            continue
        if (lender / EMBEDDINGS).is_file():
            files[lender / EMBEDDINGS] = folder / EMBEDDINGS
        for theirs, ours in files.items():
            atomic.copy(theirs, ours)
        name = record.key.full_name
        mine = record.but(key=run, protocols=list(experiment.protocols), absent=experiment.absent, borrowed_from=name)
        mine.save(folder / TRAINING)
        return mine
    return None


def borrow_records(experiment: Experiment, results: Path) -> dict[Run, str]:
    """Copy the records that the experiment lacks from other experiments in `results`: {run: where it came from}.

    Tables need no weights. A lender has the same settings, seed and source included, and was evaluated by all protocols
    and by the rule for absent classes of `experiment`. Raises UserError for files that are not the lender's record's.
    """
    found = {}
    for run in experiment.runs():
        folder = run.folder(results)
        if (folder / RECORD).exists():
            continue
        for lender, record in _lenders(experiment, run, results, RECORD):
            if not _is_same(experiment, run, record):
                continue
            record.refuse_changed_files(lender)
            for name in OF_RECORD:
                if (lender / name).is_file():
                    atomic.copy(lender / name, folder / name)
            found[run] = record.key.full_name
            record.but(key=run, borrowed_from=found[run]).save(folder / RECORD)
            break
    return found


def _lenders(experiment: Experiment, run: Run, results: Path, name: str) -> Iterator[tuple[Path, Record]]:
    """Folder and record `name` of every finished run of other experiments with this data set and network.

    Damaged records are skipped: they are their own experiments' problem.
    """
    for path in sorted(Path(results).glob(f"runs/*/{run.dataset}/{run.model}/*/seed*/{name}")):
        if path.parts[-6] == experiment.name or is_set_aside(path):
            continue
        try:
            record = Record.load(path)
        except UserError:
            continue
        if record.status == "done":
            yield path.parent, record


def refusals(experiment: Experiment, results: Path) -> dict[str, list[str]]:
    """Why records of other experiments do not count though trained with a run's settings: {why: their names}.

    For example another version of the method's source, or a protocol that they lack. Training settings here are method,
    options, schedule and seed.
    """
    found: dict[str, list[str]] = {}
    for run in experiment.runs():
        if (run.folder(results) / RECORD).exists():
            continue
        asked = experiment.settings(run)
        for _, record in _lenders(experiment, run, results, RECORD):
            settings = _without_training(record)
            if any(settings.get(key) != asked[key] for key in ("method", "options", "schedule", "seed")):
                continue
            reasons = in_words(asked, settings, asked["method"])
            if record.absent != experiment.absent:
                reasons.append(f"absent is {record.absent} there")
            if lacking := left_out(experiment, record):
                reasons.append(describe_left_out(lacking))
            for reason in reasons:
                found.setdefault(reason, []).append(record.key.full_name)
    return found


def _is_same(experiment: Experiment, run: Run, record: Record) -> bool:
    """Whether the record is of this run, though under another experiment's name."""
    same = _without_training(record) == experiment.settings(run)
    return same and record.absent == experiment.absent and not left_out(experiment, record)


def _without_training(record: Record) -> dict[str, Any]:
    return {key: value for key, value in record.settings.items() if key not in OF_TRAINING}
