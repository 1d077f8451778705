"""The experiment file: arms x data sets x models x seeds, and the one place where training settings stand."""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from harness import datasets, discovery, models
from harness.errors import YAML_FAULTS, UserError
from harness.run import Run

Protocol = Literal["whole", "slide", "ms_flip"]
Absent = Literal["skip", "zero", "require_ground_truth"]
FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
ARM_KEYS = ("method", "starts_at", "longer")  # of an arm, beside its method's options


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Photometric(_Strict):
    """Colour jitter, as mmsegmentation's PhotoMetricDistortion takes it; each part is applied with probability 1/2."""

    brightness_delta: NonNegativeInt = 32  # grey levels
    contrast_range: tuple[PositiveFloat, PositiveFloat] = (0.5, 1.5)
    saturation_range: tuple[PositiveFloat, PositiveFloat] = (0.5, 1.5)
    hue_delta: PositiveInt = 18  # of OpenCV's 180 steps


class Schedule(_Strict):
    """Training settings, the same for every arm.

    A key that came later is left out of a run's settings where it has its default, so that fingerprints stay.
    """

    iterations: PositiveInt
    batch: PositiveInt  # images a step, over all processes
    crop: tuple[PositiveInt, PositiveInt]  # height, width in pixels
    scale: tuple[PositiveFloat, PositiveFloat] = (0.5, 2.0)  # random resize before the crop
    # Long and short side of a box that the image is fitted into before `scale`; None: its own size.
    fit: tuple[PositiveInt, PositiveInt] | None = Field(default=None, exclude_if=lambda fit: fit is None)
    flip: Annotated[float, Field(ge=0, le=1)] = 0.5  # probability
    photometric: Photometric | None = Photometric()
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: PositiveFloat
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # of SGD; AdamW uses betas (0.9, 0.999)
    weight_decay: NonNegativeFloat = 0.0005
    # Parameters that have one of these in their names do not decay (norms, tables of positions).
    undecayed: tuple[str, ...] = Field(default=(), exclude_if=lambda parts: not parts)
    # Factor of the learning rate for all but the backbone: heads and what the method trains.
    head_rate: PositiveFloat = Field(default=1.0, exclude_if=lambda rate: rate == 1)
    policy: Literal["poly", "linear", "constant"] = "poly"
    power: PositiveFloat = 0.9  # of the poly policy
    minimum_learning_rate: NonNegativeFloat = 0.0
    warmup: NonNegativeInt = 0  # iterations of linear warm-up
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0  # of the learning rate at the start of the warm-up
    class_weights: tuple[NonNegativeFloat, ...] | None = None
    # Of the protocol `slide`, height and width in pixels; None: the crop, and two thirds of the window.
    slide_window: tuple[PositiveInt, PositiveInt] | None = Field(default=None, exclude_if=lambda given: given is None)
    slide_stride: tuple[PositiveInt, PositiveInt] | None = Field(default=None, exclude_if=lambda given: given is None)
    precision: Literal["float32", "bfloat16"] = "float32"  # bfloat16: autocast on a GPU
    channels_last: bool = True
    log_every: PositiveInt = 50
    checkpoint_every: PositiveInt = 500

    @model_validator(mode="after")
    def _consistent(self) -> "Schedule":
        if self.checkpoint_every % self.log_every:
            # A log row averages the iterations since the last one; a continued run must start on a whole row.
            raise ValueError(f"checkpoint_every ({self.checkpoint_every}) must be a multiple of log_every")
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale {self.scale} must be given as low, high")
        return self


class Arm(_Strict):
    """A method with its options, when it begins to count, and how much longer it trains than the schedule says."""

    method: str
    starts_at: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of the schedule before which its terms weigh nothing
    longer: PositiveFloat = 1.0  # factor of the schedule's iterations
    options: dict[str, Any]


class Override(_Strict):
    """Training settings of some (data set, model) pairs of an experiment, on top of its schedule. None: of all."""

    datasets: list[str] | None = None
    models: list[str] | None = None
    settings: dict[str, Any]  # of Schedule's keys

    def covers(self, dataset: str, model: str) -> bool:
        """Whether these settings are for `model` on `dataset`."""
        return (self.datasets is None or dataset in self.datasets) and (self.models is None or model in self.models)


class Experiment(_Strict):
    """What is compared with what, on what, and how. Load one with `Experiment.load`."""

    name: str
    arms: dict[str, Arm]
    baseline: str
    datasets: Annotated[list[str], Field(min_length=1)]
    models: Annotated[list[str], Field(min_length=1)]
    only: dict[str, Annotated[list[str], Field(min_length=1)]] = {}  # models that run on some of the data sets alone
    schedule: Schedule
    schedules: list[Override] = []
    protocols: Annotated[list[Protocol], Field(min_length=1)] = ["whole"]
    seeds: Annotated[list[NonNegativeInt], Field(min_length=1)] = [0]
    # How many seeds the baseline has, these and the next ones: it is in every comparison. None: twice the arms', or one
    # where these have one, which shows no interval anyway.
    baseline_seeds: PositiveInt | None = None
    roots: dict[str, Path] = {}
    absent: Absent = "skip"

    @classmethod
    def load(cls, path: Path, overrides: list[str] | None = None) -> "Experiment":
        """Read `path`; `overrides` are KEY=VALUE with dotted keys, under the same validation.

        Raises UserError, one sentence naming the file and the key.
        """
        content = _read_yaml(Path(path))
        for override in overrides or []:
            _override(content, override)
        # What the file says of the pairs that --set took out is no mistake.
        narrowed = any(override.partition("=")[0] in ("datasets", "models", "only") for override in overrides or [])
        if "name" in content:
            raise UserError(f"{path}: name is taken from the file's name; remove the key")
        return cls.of({"name": Path(path).stem, **content}, str(path), narrowed)

    @classmethod
    def of(cls, content: dict[str, Any], source: str, narrowed: bool = False) -> "Experiment":
        """The experiment with that content; `narrowed`: some of its keys may speak of pairs that are left out.

        Raises UserError, one sentence that begins with `source` and names the key.
        """
        try:
            return cls.model_validate(content, context={"narrowed": narrowed})
        except ValidationError as error:
            raise UserError(f"{source}: {_first_problem(error)}") from None
        except UserError as error:
            raise UserError(f"{source}: {error}") from None

    @field_validator("arms", mode="before")
    @classmethod
    def _read_arms(cls, arms: Any) -> Any:
        if not isinstance(arms, dict) or not arms:
            raise ValueError("must map at least one arm's name to its options, {} for none")
        read: dict[str, dict[str, Any]] = {}
        for name, options in arms.items():
            if not isinstance(options, dict | None):
                raise ValueError(f"{name} must be a mapping of options, {{}} for none")
            given = dict(options or {})
            read[name] = {key: given.pop(key) for key in ARM_KEYS if key in given}
            method = str(read[name].setdefault("method", name))
            allowed = discovery.options(method)
            for key in given:
                if key not in allowed:
                    raise discovery.unknown(
                        "option", key, [*allowed, *ARM_KEYS[1:]], f" of method {method} in arm {name}"
                    )
            read[name]["options"] = given
        return read

    @field_validator("schedules", mode="before")
    @classmethod
    def _read_schedules(cls, entries: Any) -> Any:
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError("must be a list of settings, each such as {datasets: [camvid], iterations: 6000}")
        read = []
        for number, entry in enumerate(entries):
            given = dict(entry)
            chosen = {key: given.pop(key) for key in ("datasets", "models") if key in given}
            for key in given:
                if key not in Schedule.model_fields:
                    allowed = [*Schedule.model_fields, "datasets", "models"]
                    raise discovery.unknown("key", str(key), allowed, f" in schedules.{number}")
            read.append({**chosen, "settings": given})
        return read

    @model_validator(mode="after")
    def _names_exist(self) -> "Experiment":
        for name in [self.name, *self.arms]:
            if not FOLDER_NAME.fullmatch(name):
                raise ValueError(f"{name!r} names a folder: use letters, digits, '_', '-', '.' and '+' only")
        if self.baseline not in self.arms:
            raise discovery.unknown("arm", self.baseline, self.arms, " as baseline")
        bound = [name for names in self.only.values() for name in names]
        named_datasets = [name for entry in self.schedules for name in entry.datasets or []]
        named_models = [name for entry in self.schedules for name in entry.models or []]
        for kind, chosen, known in (
            ("data set", [*self.datasets, *self.roots, *bound, *named_datasets], datasets.names()),
            ("model", [*self.models, *self.only, *named_models], models.names()),
        ):
            for name in chosen:
                if name not in known:
                    raise discovery.unknown(kind, name, known)
        for key in ("datasets", "models", "seeds", "protocols"):
            values = getattr(self, key)
            if len(set(values)) != len(values):
                raise ValueError(f"{key} names one of {values} twice")
        return self

    @field_validator("baseline_seeds")
    @classmethod
    def _baseline_has_the_arms_seeds(cls, number: int | None, info: ValidationInfo) -> int | None:
        seeds = info.data.get("seeds", [])
        if number is not None and number < len(seeds):
            raise ValueError(f"must be {len(seeds)} or more, since the baseline's seeds begin with the arms'")
        return number

    @model_validator(mode="after")
    def _pairs_have_schedules(self, info: ValidationInfo) -> "Experiment":
        pairs = self.pairs()
        if not pairs:
            raise ValueError("only leaves no pair of data set and model to run")
        if not (info.context or {}).get("narrowed"):
            for model, chosen in self.only.items():
                if model not in self.models or not set(chosen) <= set(self.datasets):
                    raise ValueError(f"only.{model} names what is not among datasets and models")
            for number, entry in enumerate(self.schedules):
                if not any(entry.covers(*pair) for pair in pairs):
                    raise ValueError(f"schedules.{number} matches no pair of data set and model that runs")
        for dataset, model in pairs:
            try:
                self.schedule_of(dataset, model)
            except ValidationError as error:
                raise ValueError(f"schedules, for {model} on {dataset}: {_first_problem(error)}") from None
        return self

    def pairs(self) -> list[tuple[str, str]]:
        """The (data set, model) pairs that run: every one that `only` does not leave out."""
        return [
            (dataset, model)
            for dataset in self.datasets
            for model in self.models
            if dataset in self.only.get(model, self.datasets)
        ]

    def schedule_of(self, dataset: str, model: str, arm: str | None = None) -> Schedule:
        """The training settings of a pair: `schedule`, and on top, in order, the entries of `schedules` for it.

        Those of an arm differ if it trains `longer`.
        """
        merged = self.schedule.model_dump()
        for entry in self.schedules:
            if entry.covers(dataset, model):
                merged |= entry.settings
        schedule = Schedule.model_validate(merged)
        if arm is not None and self.arms[arm].longer != 1:
            iterations = max(1, round(self.arms[arm].longer * schedule.iterations))
            schedule = schedule.model_copy(update={"iterations": iterations})
        return schedule

    def seeds_of(self, arm: str) -> list[int]:
        """The seeds that an arm is trained with: `seeds`, and for the baseline also the next ones."""
        if arm != self.baseline:
            return self.seeds
        arms = len(self.seeds)
        number = self.baseline_seeds or (2 * arms if arms > 1 else 1)
        return self.seeds + [max(self.seeds) + extra for extra in range(1, number - arms + 1)]

    def runs(self) -> list[Run]:
        """Every run of the experiment, baseline first within each (data set, model, seed)."""
        arms = sorted(self.arms, key=lambda arm: arm != self.baseline)
        return [
            Run(self.name, dataset, model, arm, seed)
            for dataset, model in self.pairs()
            for seed in self.seeds_of(self.baseline)
            for arm in arms
            if seed in self.seeds_of(arm)
        ]

    def run(self, dataset: str, model: str, arm: str, seed: int) -> Run:
        """One run of the experiment; any seed >= 0 is allowed. Raises UserError for names it does not hold."""
        for kind, name, allowed in (
            ("data set", dataset, self.datasets),
            ("model", model, self.models),
            ("arm", arm, list(self.arms)),
        ):
            if name not in allowed:
                raise discovery.unknown(kind, name, allowed, f" in experiment {self.name}")
        if (dataset, model) not in self.pairs():
            bound = ", ".join(self.only[model])
            raise UserError(f"model {model} runs on {bound} alone in experiment {self.name}: see its key only")
        if seed < 0:
            raise UserError(f"--seed must be 0 or larger, not {seed}")
        return Run(self.name, dataset, model, arm, seed)

    def settings(self, run: Run) -> dict[str, Any]:
        """All that decides the outcome of `run` and stands in files of this project; plain JSON values."""
        arm = self.arms[run.arm]
        settings = {
            "dataset": run.dataset,
            "model": run.model,
            "model_spec": models.load_spec(run.model).model_dump(mode="json"),
            "method": arm.method,
            "method_source": discovery.source_fingerprint(arm.method),
            "options": discovery.options(arm.method) | arm.options,
            "seed": run.seed,
            "schedule": self.schedule_of(run.dataset, run.model, run.arm).model_dump(mode="json"),
        }
        if arm.starts_at:
            settings["starts_at"] = arm.starts_at
        return json.loads(json.dumps(settings))  # tuples become lists, as they will be when read back


class _UniqueKeys(yaml.SafeLoader):
    """The safe loader, refusing a key that stands twice (two arms alike would silently become one)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} stands twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise UserError(f"there is no experiment file {path}: pass one of config/*.yaml")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except YAML_FAULTS as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold keys such as arms, datasets and models")
    return content


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override}: give KEY=VALUE, for example schedule.iterations=50")
    try:
        parsed = yaml.safe_load(value)
    except YAML_FAULTS:
        raise UserError(f"--set {override}: the value is not valid YAML") from None
    *parents, last = key.split(".")
    target = content
    for parent in parents:
        if target.get(parent) is None:
            target[parent] = {}
        target = target[parent]
        if not isinstance(target, dict):
            raise UserError(f"--set {override}: {parent} holds no keys")
    target[last] = parsed
    section, _, rest = key.partition(".")
    if section == "schedule" and isinstance(content.get("schedules"), list):  # it holds for every pair
        said = [rest.split(".")[0]] if rest else parsed if isinstance(parsed, dict) else []
        for entry in content["schedules"]:
            for name in said if isinstance(entry, dict) else []:
                entry.pop(name, None)


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        *parents, key = problem["loc"]
        parent = str(parents[-1]) if parents else ""
        sections: dict[str, type[BaseModel]] = {"schedule": Schedule, "photometric": Photometric}
        section = sections.get(parent, Experiment)
        allowed = [name for name in section.model_fields if name != "name"]
        return str(discovery.unknown("key", str(key), allowed, f" in {parent}" if parent else ""))
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    given = problem.get("input")
    shown = f", not {given!r}" if isinstance(given, str | int | float | bool) else ""
    return f"{where}: {message}{shown}" if where else message
