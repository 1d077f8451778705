"""The JSON files of a run: written with a hash, read with a check, and compared by their settings."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

from harness.compute import atomic
from harness.errors import UserError

SCHEMA = 1
Status = Literal["done", "diverged", "out_of_memory", "timeout", "skipped", "failed"]
STALE_MARK = ".stale-"  # in the name of a folder whose run is set aside (runs/aside.py)
FINISHED = ("done", "diverged")  # of a training: the same settings would end the same way again


def is_set_aside(path: Path) -> bool:
    """Whether a path is that of a run that is set aside, or of a file of it."""
    return any(STALE_MARK in part for part in path.parts)


def inference_weights(folder: Path) -> Path:
    """Where a run keeps the tensors of its inference network."""
    return folder / "checkpoints" / "inference.safetensors"


def fingerprint(settings: dict[str, Any]) -> str:
    """sha256 of settings in canonical JSON."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def differences(asked: dict[str, Any], found: dict[str, Any], prefix: str = "") -> list[str]:
    """The settings in which two runs differ, as "schedule.iterations (50 there, 400 asked)"."""
    lines = []
    for key in sorted(asked.keys() | found.keys()):
        ours, theirs = asked.get(key), found.get(key)
        if isinstance(ours, dict) and isinstance(theirs, dict):
            lines += differences(ours, theirs, f"{prefix}{key}.")
        elif ours != theirs:
            lines.append(f"{prefix}{key} ({_short(theirs)} there, {_short(ours)} asked)")
    return lines


def refuse_other_settings(folder: Path, asked: dict[str, Any], found: dict[str, Any]) -> None:
    """Raise UserError if `folder` was made with other settings than those asked for."""
    if changed := differences(asked, found):
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise UserError(
            f"{folder} was made with other settings: {', '.join(changed[:3])}{more}; "
            "pass --restart to start it over, or keep it and use another --results folder or experiment name"
        )


def read_json(path: Path) -> dict[str, Any]:
    """Read a run's JSON file. Raises UserError if it is missing, damaged, of another schema, or changed by hand.

    Its `record_hash` is checked and left out; files from before there was one have none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"there is no {path}: train (and evaluate) this run first") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise UserError(f"{path} is damaged: remove it and run the command that writes it again") from None
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise UserError(f"{path} has another schema than {SCHEMA}: it was written by another version of the harness")
    if content.pop("record_hash", None) not in (None, fingerprint(content)):
        raise UserError(f"{path} was changed after it was written: remove it and run the command that writes it again")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a run's JSON file with the schema number first and, last, the sha256 of all the rest as canonical JSON."""
    plain = json.loads(json.dumps({"schema": SCHEMA, **content}, allow_nan=False))  # as it will be read back
    atomic.write_json(path, plain | {"record_hash": fingerprint(plain)})


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def refuse_changed_files(folder: Path, record: dict[str, Any]) -> None:
    """Raise UserError if a file whose hash `record` holds (its `files`) is another now."""
    for name, known in record.get("files", {}).items():
        if not (folder / name).is_file() or file_hash(folder / name) != known:
            raise UserError(f"{folder / name} is not the file that its record was made with: evaluate this run again")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 20 else text[:17] + "..."
