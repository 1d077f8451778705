"""A run that another experiment holds already need not be trained again: the same settings give the same network."""

import sys
from pathlib import Path
from typing import Any

from harness.compute import atomic
from harness.errors import UserError
from harness.experiment.run import Run
from harness.experiment.schema import Experiment
from harness.runs.record import inference_weights, is_set_aside, read_json, write_json

LOGS, EMBEDDINGS = ("curve.csv", "diagnostics.npz"), "embeddings.npz"


def borrow(experiment: Experiment, run: Run, results: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Copy what training left of a run of another experiment with these very settings; None if there is none.

    Data, initial weights, seed and the method's source are among the settings. training.json comes last, and is the
    lender's but for its key, its protocols and `borrowed_from`; returns what it holds. Runs of one experiment never
    lend to each other: an arm that stands in it twice is there to show how much two trainings differ.
    """
    folder = run.folder(results)
    for path in sorted(Path(results).glob(f"runs/*/{run.dataset}/{run.model}/*/seed*/training.json")):
        lender = path.parent
        if (
            path.parts[-6] == experiment.name
            or is_set_aside(path)
            or (found := _done(path)) is None
            or found["settings"] != settings
        ):
            continue
        files = {lender / name: folder / name for name in LOGS}
        files[inference_weights(lender)] = inference_weights(folder)
        if not all(theirs.is_file() for theirs in files):
            continue
        if (lender / EMBEDDINGS).is_file():  # not there before it was kept
            files[lender / EMBEDDINGS] = folder / EMBEDDINGS
        for theirs, ours in files.items():
            atomic.copy(theirs, ours)
        record = found | {
            "key": run.key(),
            "protocols": list(experiment.protocols),
            "absent": experiment.absent,
            "borrowed_from": f"{found['key']['experiment']}/{Run(**found['key'])}",
        }
        write_json(folder / "training.json", record)
        print(f"{run}: the same settings were trained as {record['borrowed_from']}", file=sys.stderr, flush=True)
        return record
    return None


def _done(path: Path) -> dict[str, Any] | None:
    """What training.json holds, None if it cannot be read or the training is not done."""
    try:
        found = read_json(path)
    except UserError:
        return None
    return found if found["status"] == "done" else None
