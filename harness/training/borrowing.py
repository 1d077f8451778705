"""Copies a trained run of another experiment: the same settings give the same network."""

import sys
from pathlib import Path
from typing import Any

from harness.compute import atomic
from harness.errors import UserError
from harness.experiment.run import Run
from harness.experiment.schema import Experiment
from harness.runs.record import TRAINING, Record, inference_weights, is_set_aside

LOGS, EMBEDDINGS = ("curve.csv", "diagnostics.npz"), "embeddings.npz"


def borrow(experiment: Experiment, run: Run, results: Path, settings: dict[str, Any]) -> Record | None:
    """Copy the trained run of another experiment with exactly these settings; None if there is none.

    Settings include data, initial weights, seed and the method's source. training.json is written last: the lender's,
    except for key, protocols and `borrowed_from`. Runs of one experiment never lend to each other, since an arm that is
    in it twice shows how much two trainings differ.
    """
    folder = run.folder(results)
    for path in sorted(Path(results).glob(f"runs/*/{run.dataset}/{run.model}/*/seed*/{TRAINING}")):
        lender = path.parent
        if (
            path.parts[-6] == experiment.name
            or is_set_aside(path)
            or (found := _done(path)) is None
            or found.settings != settings
        ):
            continue
        files = {lender / name: folder / name for name in LOGS}
        files[inference_weights(lender)] = inference_weights(folder)
        if not all(theirs.is_file() for theirs in files):
            continue
        if (lender / EMBEDDINGS).is_file():  # old runs have none
            files[lender / EMBEDDINGS] = folder / EMBEDDINGS
        for theirs, ours in files.items():
            atomic.copy(theirs, ours)
        name = found.key.full_name
        record = found.but(key=run, protocols=list(experiment.protocols), absent=experiment.absent, borrowed_from=name)
        record.save(folder / TRAINING)
        print(f"{run}: the same settings were trained as {name}", file=sys.stderr, flush=True)
        return record
    return None


def _done(path: Path) -> Record | None:
    """The record of a finished training; None if it is not finished or cannot be read."""
    try:
        found = Record.load(path)
    except UserError:
        return None
    return found if found.status == "done" else None
