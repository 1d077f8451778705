"""Copies the records of runs that another experiment holds already: tables need no weights."""

from pathlib import Path

from harness.compute import atomic
from harness.experiment.run import Run
from harness.experiment.schema import Experiment
from harness.runs.record import RECORD, Record, is_set_aside

FILES = ("counts.npz", "confusion.npz", "curve.csv", "diagnostics.npz", "embeddings.npz")
OF_TRAINING = ("data", "initial_weights")  # settings that only training knows


def borrow_records(experiment: Experiment, results: Path) -> dict[Run, str]:
    """Copy the records that the experiment lacks from other experiments in `results`: {run: where it came from}.

    A lender has the same settings, seed and source included, and was evaluated by all protocols and by the rule for
    absent classes of `experiment`. Runs of one experiment never lend to each other: an arm that stands in it twice is
    there to show how much two trainings differ. Raises UserError for a lender's record that cannot be read.
    """
    found = {}
    for run in experiment.runs():
        folder = run.folder(results)
        if (folder / RECORD).exists():
            continue
        for path in sorted(results.glob(f"runs/*/{run.dataset}/{run.model}/*/seed*/{RECORD}")):
            if (
                path.parts[-6] == experiment.name
                or is_set_aside(path)
                or not _is_same(experiment, run, record := Record.load(path))
            ):
                continue
            record.refuse_changed_files(path.parent)
            for name in FILES:
                if (path.parent / name).is_file():
                    atomic.copy(path.parent / name, folder / name)
            found[run] = record.key.full_name
            record.but(key=run, borrowed_from=found[run]).save(folder / RECORD)
            break
    return found


def _is_same(experiment: Experiment, run: Run, record: Record) -> bool:
    """Whether the record is of this run, though under another experiment's name."""
    settings = {key: value for key, value in record.settings.items() if key not in OF_TRAINING}
    return (
        record.status == "done"
        and settings == experiment.settings(run)
        and record.absent == experiment.absent
        and set(experiment.protocols) <= set(record.scores)
    )
