"""Stand-ins for what training and evaluation leave in a run's folder."""

from harness.runs.record import Record, inference_weights
from harness.runs.state import EVALUATION_FILES, TRAINING_FILES


def make_record(experiment, run, status="done", settings=None, **keys):
    """The record of a run of an experiment, with these keys in place of a finished run's; `settings` are added."""
    made = experiment.settings(run) | (settings or {})
    known = {"key": run, "method": made["method"], "options": made["options"], "settings": made}
    known["scores"] = {protocol: {} for protocol in experiment.protocols if status == "done"}
    return Record(**known | {"status": status, "iterations": made["schedule"]["iterations"]} | keys)


def edit(path, **changes):
    """Write a record again with these keys changed; returns it."""
    record = Record.load(path).but(**changes)
    record.save(path)
    return record


def leave_files(folder):
    """Put an empty file wherever a finished run has one and this folder has none; records are the caller's."""
    label_map = folder / "predictions" / "whole" / "image.png"
    files = [folder / name for name in (*TRAINING_FILES, *EVALUATION_FILES)]
    for path in (*files, inference_weights(folder), label_map):
        if path.suffix != ".json":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
