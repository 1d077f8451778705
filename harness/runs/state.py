"""The state of a run: what its folder holds, held against what its experiment asks for now. Never imports torch.

`status`, `plan`, `report` and the workflow all ask here, so that none of them calls a run done when another does not.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.errors import UserError
from harness.experiment.run import Run
from harness.experiment.schema import Experiment, discovery
from harness.runs.external_arms import EXTERNAL
from harness.runs.record import differences, inference_weights, read_json

SETTINGS = "settings.json"  # written when a training begins: the settings that it trains with
TRAINING_FILES = ("training.json", "curve.csv", "diagnostics.npz", "embeddings.npz")
EVALUATION_FILES = ("counts.npz", "confusion.npz")
# What `train` writes down as a result; the others are tried again.
FAILURES = ("diverged", "out_of_memory", "timeout", "failed")

Work = Literal["", "evaluate", "train"]


@dataclass(frozen=True)
class Missing:
    """Why a run has no number: a status, of its record or of the lack of one, and the reason if there is any."""

    status: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.status}: {self.reason}" if self.reason else self.status


def read_record(experiment: Experiment, run: Run, results: Path) -> dict[str, Any] | Missing:
    """The record of a run that is done, else why there is none.

    Statuses besides a record's own: "not run"; "unfinished" (training began and did not end); "not evaluated"; "stale"
    (made with other settings than the experiment's, which the reason names); "unreadable" (a damaged file). None of
    them is an error: the rest of a table does not depend on it.
    """
    folder = run.folder(results)
    name = next((each for each in ("record.json", "training.json", SETTINGS) if (folder / each).exists()), None)
    if name is None:
        return Missing("unfinished" if (folder / "checkpoints").exists() else "not run")
    try:
        found = read_json(folder / name)
    except UserError as error:
        return Missing("unreadable", str(error))
    if not all(isinstance(found.get(key, {}), dict) for key in ("settings", "provenance")):
        return Missing("unreadable", f"{name} is not a record of this project: its settings or provenance hold no keys")
    status, reason = found.get("status"), str(found.get("reason") or "")
    if name != SETTINGS and not isinstance(status, str):
        return Missing("unreadable", f"{name} names no status")
    if status != "skipped" and (changed := changed_settings(experiment, run, found, folder)):
        return Missing("stale", ", ".join(changed))
    if name == SETTINGS:
        return Missing("unfinished")
    if name == "training.json" and status == "done":
        return Missing("not evaluated")
    return found if status == "done" else Missing(str(status), " ".join(reason.split()))


def changed_settings(experiment: Experiment, run: Run, found: dict[str, Any], folder: Path) -> list[str]:
    """The settings in which what a folder holds differs from what the experiment asks for, in words.

    Only keys that both know are compared, options by their current names, so that records outlive a new key. The
    method's source and the model's description count for runs that can be trained again here; a record that came
    without weights or checkpoints names the commit that made it. An external arm has no settings in the experiment.
    """
    if experiment.arms[run.arm].method == EXTERNAL:
        return []
    asked, made = experiment.settings(run), found.get("settings") or {}
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
    """The settings in which two runs differ, as people read them: another source is no pair of hashes."""
    changed = differences(asked, made)
    return [f"methods/{method}.py has changed" if each.startswith("method_source ") else each for each in changed]


def is_local(folder: Path) -> bool:
    """Whether a run was trained here, and not handed in as a record alone."""
    return any((folder / name).exists() for name in ("training.json", SETTINGS, "checkpoints"))


def left_out(experiment: Experiment, record: dict[str, Any]) -> list[str]:
    """The protocols that the experiment asks for and the record of a run that is done has no scores of."""
    scores = record.get("scores")
    return [each for each in experiment.protocols if isinstance(scores, dict) and each not in scores]


def describe_left_out(protocols: list[str]) -> str:
    """Those protocols in a few words, "" if there are none."""
    return f"{' and '.join(protocols)} {'was' if len(protocols) == 1 else 'were'} left out" if protocols else ""


def work_left(
    experiment: Experiment, run: Run, results: Path, data_is_there: Callable[[str], bool] = lambda dataset: True
) -> Work:
    """What must be done until the folder of a run holds all that the experiment asks for; "" if it does.

    A failure is a result and asks for nothing; a run that was skipped is trained when its data are there. Of a run that
    was trained here every file but its checkpoints and weights counts; of one that came as a record, the record.
    """
    folder, found = run.folder(results), read_record(experiment, run, results)
    if isinstance(found, Missing):
        if found.status == "skipped":
            return "train" if data_is_there(run.dataset) else ""
        if found.status in FAILURES:
            return "" if (folder / "record.json").exists() else "evaluate"  # which writes the record of a failure
        return "evaluate" if found.status == "not evaluated" and _is_trained(folder) else "train"
    if not is_local(folder):
        return ""
    if any(not (folder / name).exists() for name in TRAINING_FILES):
        return "train"
    if left_out(experiment, found) or not _is_evaluated(folder, experiment.protocols[0]):
        return "evaluate" if _is_trained(folder) else "train"
    return ""


def trained_files(folder: Path) -> list[Path]:
    """The files that a training leaves in a run's folder when it is over, but for checkpoints."""
    return [*(folder / name for name in TRAINING_FILES), inference_weights(folder)]


def _is_trained(folder: Path) -> bool:
    return all(path.exists() for path in trained_files(folder))


def _is_evaluated(folder: Path, protocol: str) -> bool:
    """Whether the files of an evaluation are there, label maps included."""
    maps = folder / "predictions" / protocol
    return all((folder / name).exists() for name in EVALUATION_FILES) and maps.is_dir() and any(maps.iterdir())


def settings_in(folder: Path) -> dict[str, Any] | None:
    """The settings that a run's folder was trained with, as far as its JSON files say; {} of damaged ones.

    None if none of them does: a run that was skipped has not been trained.
    """
    for name in ("training.json", SETTINGS, "record.json"):
        if (folder / name).exists():
            try:
                found = read_json(folder / name)
            except UserError:
                return {}
            if found.get("provenance") != {}:  # which is the mark of a record that no training wrote
                return dict(found.get("settings") or {})
    return None
