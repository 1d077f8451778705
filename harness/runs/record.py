"""The record of a run: its type, and the only code that reads or writes it.

training.json says how training ended. record.json holds the same and what evaluation adds: scores, and the hashes of
the counts that they come from. Both are a `Record`; docs/submit-results.md lists its keys.
"""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveInt,
    StringConstraints,
    ValidationError,
    model_validator,
)

from harness.compute import atomic
from harness.compute.walking import files_below
from harness.config import problems
from harness.errors import UserError
from harness.experiment.run import Run
from harness.experiment.schema import Schedule, discovery
from harness.statistics.scores import Absent

SCHEMA = 1
RECORD, TRAINING = "record.json", "training.json"
STALE_MARK = ".stale-"  # in the names of folders whose runs are set aside (runs/aside.py)
FINISHED = ("done", "diverged")  # training again with the same settings would end the same way
PRIVATE = ("protocols", "root", "class_pixels")  # of training.json only: what an evaluation on this machine needs

Status = Literal["done", "diverged", "out_of_memory", "timeout", "skipped", "failed"]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40,64}$")]
Scores = dict[str, float | None]


@dataclass(frozen=True)
class Mark:
    """A fault that a run's curve shows: its name, the value measured and the threshold that it crossed."""

    mark: str
    value: float
    threshold: float


class Part(BaseModel):
    """A frozen part of a record. Values are of their types; keys that another version wrote are kept."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)


def _key(meaning: str, default: Any = ..., **more: Any) -> Any:
    return Field(default, description=meaning, **more)


class InitialWeights(Part):
    """The file that the network started from, and the tensors that did not fit."""

    file: str
    unused: list[str] = []
    unfilled: list[str] = []


class Device(Part):
    """What a run was trained on."""

    type: str
    name: str = ""
    model: str | None = None  # of a processor: family, model and stepping
    threads: PositiveInt | None = None
    sharers: PositiveInt = 1  # runs that may have been on the GPU at the same time


class Provenance(Part):
    """The code, packages, machine and data that a run was made with."""

    commit: Commit | None = _key("of this project's code; null if git does not answer", None)
    dirty: bool | None = _key("whether that code was changed after the commit", None)
    python: str | None = _key("version", None)
    packages: dict[str, str | None] = _key("versions of those that matter", {})
    device: Device | None = _key("type (cpu or cuda), name, model, threads, sharers: runs on the GPU at a time", None)
    data_fingerprint: Sha256 | None = _key("over all files of the data set", None)
    initial_weights_sha256: Sha256 | None = _key("of the file that the network started from", None)
    deterministic: bool = _key("whether it was trained with `--deterministic`", False)
    undetermined: list[str] = _key("operations that torch has no deterministic algorithm for", [])
    gpu_bytes: NonNegativeInt | None = _key("the most GPU memory that torch held", None)

    def describe_device(self) -> str:
        """The device and torch's version, "" if the record does not name both."""
        torch_version = self.packages.get("torch")
        name = self.device.name or self.device.type if self.device else ""
        return f"{name} with torch {torch_version}" if name and torch_version else ""


class Energy(Part):
    """Joules that a device used in the seconds that were counted, and what counted them."""

    joules: NonNegativeFloat
    seconds: NonNegativeFloat
    source: str = ""


def _rare(meaning: str) -> Any:
    """A key that is written only if it has a value."""
    return Field(None, description=meaning, exclude_if=lambda value: value is None)


class Record(Part):
    """What training.json and record.json hold."""

    key: Run = _key("experiment, dataset, model, arm and seed: the run's folder")
    method: str = _key("name of the method; `external`: label maps made elsewhere")
    options: dict[str, Any] = _key("the method's options, defaults included", {})
    status: Status = _key("how the run ended")
    reason: str | None = _key("why it is not done", None)
    log_tail: list[str] = _key("the last lines of the log of a run that is not done", [])
    iterations: NonNegativeInt | None = _key("iterations trained", None)
    processes: PositiveInt = _key("processes that trained together", 1)
    micro_batch: PositiveInt | None = _key("images per forward pass and process", None)
    weights_hash: Sha256 | None = _key("hash of the trained inference network's tensors", None)
    initial_weights: InitialWeights | None = _key("the file of initial weights and what did not fit", None)
    settings: dict[str, Any] = _key("all that decides the outcome: schedule, method, options, seed, hashes of code")
    fingerprint: Sha256 = _key("sha256 of settings as canonical JSON", None, validate_default=False)
    provenance: Provenance | None = _key("commit, packages, device and data; null if nothing was trained", None)
    started: str | None = _key("when training began, ISO 8601", None)
    seconds: NonNegativeFloat | None = _key("seconds of training", None)
    gpu_hours: NonNegativeFloat | None = _key("GPU hours of training; null on a CPU", None)
    energy: dict[str, Energy] = _key("joules of `gpu` and `processor`, if the machine counts them", {})
    borrowed_from: str | None = _rare("the run of another experiment that this one was copied from")
    kept_for_source: Sha256 | None = _rare("source of the method that the run was kept for, though other code made it")
    absent: Absent = _key("how classes that are absent enter means", "skip")
    split: str | None = _key("the split that was evaluated", None)
    scores: dict[str, Scores] = _key("by protocol and metric, in percent; null: undefined", {})
    per_class: dict[str, dict[str, Scores]] = _key("by protocol, metric and class, in percent", {})
    evaluated: str | None = _key("when it was evaluated, ISO 8601", None)
    files: dict[str, Sha256] = _key("sha256 of counts.npz and confusion.npz", {})
    health: list[Mark] = _key("faults that the curve shows: mark, value and threshold", [])
    data_remark: str | None = _rare("how the data differ from the published set")
    protocols: list[str] | None = _rare("in training.json only: the experiment's protocols")
    root: str | None = _rare("in training.json only: the data's folder")
    class_pixels: list[NonNegativeInt] | None = _rare("in training.json only: pixels of each class in training")

    @model_validator(mode="before")
    @classmethod
    def _of_any_version(cls, content: Any) -> Any:
        """Translate what earlier versions wrote otherwise, and fill in what follows from other keys."""
        if not isinstance(content, dict):
            return content
        found = {key: value for key, value in content.items() if key != "schema"}
        if found.get("provenance") == {}:
            found["provenance"] = None
        if isinstance(found.get("settings"), dict):
            found.setdefault("fingerprint", fingerprint(found["settings"]))
        if "gpu_hours" not in found and isinstance(found.get("seconds"), int | float):
            device = (found.get("provenance") or {}).get("device") if isinstance(found.get("provenance"), dict) else {}
            if isinstance(device, dict) and device.get("type") == "cuda":
                found["gpu_hours"] = found["seconds"] / 3600
        return found

    @classmethod
    def load(cls, path: Path) -> Self:
        """The record in a file. Raises UserError, naming the key, for one that is missing, damaged or edited."""
        try:
            return cls.model_validate_json(json.dumps(read_json(path)))
        except ValidationError as error:
            raise UserError(f"{path}: {problems(error, cls)[0]}") from None

    def save(self, path: Path) -> None:
        """Write the record, with the number of the schema and the hash of the content."""
        write_json(path, self.model_dump(mode="json"))

    def but(self, **changes: Any) -> Self:
        """A copy of the record with these values changed."""
        return type(self)(**dict(self) | changes)

    @property
    def device(self) -> Device | None:
        """What the run was trained on, if that is known."""
        return self.provenance.device if self.provenance else None

    @property
    def schedule(self) -> Schedule:
        """The training settings. Raises UserError if the record has none that this version knows."""
        try:
            return Schedule.model_validate(self.settings["schedule"])
        except (KeyError, ValidationError):
            raise UserError(f"the record of {self.key} has no schedule that this version can read") from None

    @property
    def current_options(self) -> dict[str, Any]:
        """The options of the settings by their names of today; as they are for a method that is gone."""
        options = self.settings.get("options", self.options)
        try:
            return discovery.current_names(self.method, options)
        except UserError:
            return dict(options)

    def settings_for(self, source: str | None) -> dict[str, Any]:
        """The settings, as those of a method with this source if the run was kept for it (`runs.aside.keep`)."""
        kept = source is not None and source == self.kept_for_source
        return self.settings | {"method_source": source} if kept else self.settings

    def score(self, protocol: str, metric: str = "miou") -> float | None:
        """A score in percent; None if it is undefined or missing."""
        return self.scores.get(protocol, {}).get(metric)

    def refuse_changed_files(self, folder: Path) -> None:
        """Raise UserError if one of `files` is missing from the run's folder or no longer has its hash."""
        for name, known in self.files.items():
            if not (folder / name).is_file() or file_hash(folder / name) != known:
                raise UserError(f"{folder / name} is not the file that its record was made with: evaluate it again")


def now() -> str:
    """The time as records hold it: ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def describe_keys(part: type[Part] = Record, prefix: str = "") -> list[tuple[str, str, str]]:
    """Name, type and meaning of every key of a record, those of its provenance as provenance.NAME."""
    schema = part.model_json_schema()
    found = []
    for name, key in schema["properties"].items():
        if "description" in key and name not in PRIVATE:
            found.append((f"{prefix}{name}", _type_in_words(key), key["description"]))
        if name == "provenance":
            found += describe_keys(Provenance, "provenance.")
    return found


def _type_in_words(schema: dict[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(map(_type_in_words, schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("pattern", "").endswith("{64}$"):
        return "sha256"
    if schema.get("type") == "array":
        return f"list of {_type_in_words(schema['items'])}s"
    return schema.get("type", "object")


def records_below(folder: Path) -> list[Path]:
    """Every record.json in or below a folder, sorted; without runs that are set aside."""
    return sorted(path for path in files_below(folder) if path.name == RECORD and not is_set_aside(path))


def is_set_aside(path: Path) -> bool:
    """Whether a path is in the folder of a run that is set aside."""
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
            "pass --restart to start over, or use another --results folder or experiment name"
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a run without its `record_hash`, which is checked; files of early versions have none.

    Raises UserError if the file is missing, damaged, edited by hand, or of another schema.
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
    """Write a JSON file of a run: the schema number first and, last, the sha256 of all the rest."""
    plain = json.loads(json.dumps({"schema": SCHEMA, **content}, allow_nan=False))  # as it will be read back
    atomic.write_json(path, plain | {"record_hash": fingerprint(plain)})


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 20 else text[:17] + "..."
