"""Records of runs that another experiment holds already: without the weights, all that a table needs is there."""

from pathlib import Path
from typing import Any

from harness.compute import atomic
from harness.experiment.run import Run
from harness.experiment.schema import Experiment
from harness.runs.record import is_set_aside, read_json, refuse_changed_files, write_json

FILES = ("counts.npz", "confusion.npz", "curve.csv", "diagnostics.npz", "embeddings.npz")
OF_TRAINING = ("data", "initial_weights")  # settings that only training knows


def borrow_records(experiment: Experiment, results: Path) -> dict[Run, str]:
    """Copy the records that the experiment lacks from other experiments in `results`; returns what came from where.

    Of runs with these very settings, the seed and the method's source among them, that were evaluated by all protocols
    and by the rule for absent classes of `experiment`. A record is the lender's but for its key and `borrowed_from`.
    Runs of one experiment never lend to each other: an arm that stands in it twice is there to show how much two
    trainings differ. Raises UserError for a lender's record that cannot be read.
    """
    found = {}
    for run in experiment.runs():
        folder = run.folder(results)
        if (folder / "record.json").exists():
            continue
        for path in sorted(results.glob(f"runs/*/{run.dataset}/{run.model}/*/seed*/record.json")):
            if (
                path.parts[-6] == experiment.name
                or is_set_aside(path)
                or not _is_one(experiment, run, record := read_json(path))
            ):
                continue
            refuse_changed_files(path.parent, record)
            for name in FILES:
                if (path.parent / name).is_file():
                    atomic.copy(path.parent / name, folder / name)
            lender = f"{record['key']['experiment']}/{Run(**record['key'])}"
            content = {key: value for key, value in record.items() if key not in ("schema", "record_hash")}
            write_json(folder / "record.json", content | {"key": run.key(), "borrowed_from": lender})
            found[run] = lender
            break
    return found


def _is_one(experiment: Experiment, run: Run, record: dict[str, Any]) -> bool:
    """Whether the record is of this run, though under another experiment's name."""
    settings = {key: value for key, value in record.get("settings", {}).items() if key not in OF_TRAINING}
    return (
        record["status"] == "done"
        and settings == experiment.settings(run)
        and record["absent"] == experiment.absent
        and set(experiment.protocols) <= set(record["scores"])
    )
