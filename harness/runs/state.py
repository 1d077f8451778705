"""Whether a run is what its experiment asks for, and what is left to do. Never imports torch.

`status`, `plan`, `report`, `run` and the workflow all ask here, so they agree on which runs are done.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness import datasets
from harness.errors import UserError
from harness.experiment.run import Run
from harness.experiment.schema import Experiment, discovery
from harness.runs.external_arms import EXTERNAL
from harness.runs.record import FINISHED, RECORD, TRAINING, Record, differences, inference_weights, read_json

SETTINGS = "settings.json"  # key and settings of a training, written when it begins and removed when it is done
TRAINING_FILES = (TRAINING, "curve.csv", "diagnostics.npz", "embeddings.npz")
EVALUATION_FILES = ("counts.npz", "confusion.npz")
FAILURES = ("diverged", "out_of_memory", "timeout", "failed")  # results of a training that has no weights

Work = Literal["", "evaluate", "train"]


@dataclass(frozen=True)
class Missing:
    """Why a run has no scores: the record's status, or one that `read_record` lists, and the reason."""

    status: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}" if self.reason else self.status


def read_record(experiment: Experiment, run: Run, results: Path) -> Record | Missing:
    """The record of a run that is done, else why there is none; never raises UserError.

    Statuses besides a record's: "not run"; "unfinished" (training began and did not end); "not evaluated"; "stale" (its
    settings are not the experiment's; the reason names them); "unreadable" (a damaged file).
    """
    folder = run.folder(results)
    name = next((each for each in (RECORD, TRAINING, SETTINGS) if (folder / each).exists()), None)
    if name is None:
        return Missing("unfinished" if (folder / "checkpoints").exists() else "not run")
    try:
        if name == SETTINGS:
            changed = changed_settings(experiment, run, _begun_with(folder), folder)
            return Missing("stale", ", ".join(changed)) if changed else Missing("unfinished")
        found = Record.load(folder / name)
    except UserError as error:
        return Missing("unreadable", str(error))
    if found.status != "skipped" and (changed := changed_settings(experiment, run, found, folder)):
        return Missing("stale", ", ".join(changed))
    if found.status != "done":
        return Missing(found.status, " ".join((found.reason or "").split()))
    return Missing("not evaluated") if name == TRAINING else found


def changed_settings(experiment: Experiment, run: Run, found: Record | dict[str, Any], folder: Path) -> list[str]:
    """The settings of a run in `folder` that differ from what the experiment asks for.

    Only keys that both have are compared, options by their current names, so records outlive a new key. The method's
    source and the model's description count only for runs trained here: a record without weights cannot be trained
    again with its own code. External arms have no settings in the experiment.
    """
    if experiment.arms[run.arm].method == EXTERNAL:
        return []
    asked = experiment.settings(run)
    made = found.settings_for(asked["method_source"]) if isinstance(found, Record) else found
    compared = ["method", "options", "schedule"]
    if is_local(folder):
        compared += ["method_source", "model_spec", "seed", "starts_at", "ends_at"]
    changed = []
    for name in compared:
        ours, theirs = asked.get(name), made.get(name)
        if name == "options" and isinstance(theirs, dict):
            theirs = discovery.current_names(asked["method"], theirs)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            ours = {key: value for key, value in ours.items() if key in theirs}
            theirs = {key: value for key, value in theirs.items() if key in ours}
        if theirs is not None or name in ("starts_at", "ends_at"):
            changed += in_words({name: ours}, {name: theirs}, asked["method"])
    return changed


def in_words(asked: dict[str, Any], made: dict[str, Any], method: str) -> list[str]:
    """The settings that differ between two runs; for changed source code, the file's name instead of two hashes."""
    changed = differences(asked, made)
    return [f"methods/{method}.py has changed" if each.startswith("method_source ") else each for each in changed]


def is_local(folder: Path) -> bool:
    """Whether a run was trained here, and did not come as a record alone."""
    return any((folder / name).exists() for name in (TRAINING, SETTINGS, "checkpoints"))


def left_out(experiment: Experiment, record: Record) -> list[str]:
    """The experiment's protocols that the record has no scores for."""
    return [each for each in experiment.protocols if each not in record.scores]


def describe_left_out(protocols: list[str]) -> str:
    """Those protocols in a few words, "" if there are none."""
    return f"{' and '.join(protocols)} {'was' if len(protocols) == 1 else 'were'} left out" if protocols else ""


@dataclass(frozen=True)
class State:
    """A run's state as `plan`, `status` and `run` show it.

    status: "done", or why there is no complete record: see `read_record`. reason: why; of a run that is done or not
    evaluated, the protocols that are missing. work: what is left to do. record: None if there is none.
    """

    status: str
    reason: str
    work: Work
    record: Record | None

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}" if self.reason else self.status


def state_of(experiment: Experiment, run: Run, results: Path) -> State:
    """The state of a run that no process is working on. Work is left for a skipped run if its data are there now."""
    found = read_record(experiment, run, results)
    work = _work_left(experiment, run, results, found)
    if isinstance(found, Missing):
        return State(found.status, found.reason, work, None)
    lacking = describe_left_out(left_out(experiment, found))
    if not work:
        return State("done", lacking, work, found)
    return State("not evaluated" if work == "evaluate" else "unfinished", lacking or "files are missing", work, found)


def work_left(experiment: Experiment, run: Run, results: Path) -> Work:
    """What is left to do for a run; "" if nothing.

    A failure is a result: nothing is left. A skipped run is trained when its data are there. A run trained here needs
    every file except checkpoints and weights; one that was submitted needs only the record.
    """
    return _work_left(experiment, run, results, read_record(experiment, run, results))


def _work_left(experiment: Experiment, run: Run, results: Path, found: Record | Missing) -> Work:
    folder = run.folder(results)
    if isinstance(found, Missing):
        if found.status == "skipped" and not datasets.missing(run.dataset, experiment.roots.get(run.dataset), results):
            return "train"
        if found.status in (*FAILURES, "skipped"):
            return "" if (folder / RECORD).exists() else "evaluate"  # which writes the record of a failure
        return "evaluate" if found.status == "not evaluated" and _finished_files(folder) else "train"
    if not is_local(folder):
        return ""
    if any(not (folder / name).exists() for name in TRAINING_FILES):
        return "train"
    if left_out(experiment, found) or not _is_evaluated(folder, experiment.protocols[0]):
        return "evaluate" if _finished_files(folder) else "train"
    return ""


def finished(folder: Path) -> Record | None:
    """The record of a training that need not be repeated; None if it or one of its files is missing.

    Raises UserError for a damaged training.json.
    """
    if not (folder / TRAINING).exists():
        return None
    found = Record.load(folder / TRAINING)
    whole = found.status != "done" or _finished_files(folder)
    return found if found.status in FINISHED and whole else None


def _finished_files(folder: Path) -> bool:
    """Whether all files of a finished training are there, checkpoints aside."""
    paths = [*(folder / name for name in TRAINING_FILES), inference_weights(folder)]
    return all(path.exists() for path in paths)


def _is_evaluated(folder: Path, protocol: str) -> bool:
    """Whether the files of an evaluation are there, label maps included."""
    maps = folder / "predictions" / protocol
    return all((folder / name).exists() for name in EVALUATION_FILES) and maps.is_dir() and any(maps.iterdir())


def settings_in(folder: Path, source: str | None = None) -> dict[str, Any] | None:
    """The settings that the run in `folder` was trained with; {} if the file is damaged, None if nothing was trained.

    source: the current fingerprint of the method's code; a run that was kept for it (`stale --keep`) counts as trained
    with that code.
    """
    for name in (TRAINING, SETTINGS, RECORD):
        if not (folder / name).exists():
            continue
        try:
            if name == SETTINGS:
                return _begun_with(folder)
            found = Record.load(folder / name)
        except UserError:
            return {}
        if found.provenance is not None:  # a skipped run's is None
            return found.settings_for(source)
    return None


def _begun_with(folder: Path) -> dict[str, Any]:
    """The settings in settings.json. Raises UserError if it is damaged."""
    settings = read_json(folder / SETTINGS).get("settings")
    if not isinstance(settings, dict):
        raise UserError(f"{folder / SETTINGS} holds no settings: remove it")
    return settings
