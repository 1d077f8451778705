"""The experiment file: arms x data sets x models x seeds, and all training settings."""

# ruff: noqa: RUF012 (pydantic copies mutable defaults)

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
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

from harness import datasets, models
from harness.config import Listed, Range, Size, Strict, problems, read_yaml
from harness.errors import YAML_FAULTS, UserError, guess, unknown, yaml_fault
from harness.experiment import discovery
from harness.experiment.run import Run

Protocol = Literal["whole", "slide", "ms_flip"]
Absent = Literal["skip", "zero", "require_ground_truth"]
SEEDS = 2**32  # seeds are below this: every random number generator accepts them
FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+=-]*")
LONGEST_TRIAL = 80  # characters of overrides in a folder's name
# Keys that select runs and what is shown of them, or say where data are; they change no result.
CHOOSING = ("name", "datasets", "models", "only", "seeds", "baseline_seeds", "protocols", "baseline", "roots")
ARM_KEYS = (
    "method",
    "starts_at",
    "ends_at",
    "longer",
    "compute_of",
    "compute_ratio",
)  # of an arm, besides its method's options

Seed = Annotated[int, Field(ge=0, lt=SEEDS)]


class Photometric(Strict):
    """Color jitter, as mmsegmentation's PhotoMetricDistortion takes it; each part is applied with probability 1/2."""

    brightness_delta: NonNegativeInt = 32  # grey levels
    contrast_range: Range = (0.5, 1.5)
    saturation_range: Range = (0.5, 1.5)
    hue_delta: PositiveInt = 18  # of OpenCV's 180 steps


class Schedule(Strict):
    """Training settings, the same for every arm.

    A key added later is left out of a run's settings if it has its default, so that older fingerprints stay valid.
    """

    iterations: PositiveInt
    batch: PositiveInt  # images per step, over all processes
    # Share of the training images to use, for experiments with few labels. The images are the first ones of a random
    # order that is the same for all seeds and arms, so a smaller share is a subset of a larger one.
    train_share: Annotated[float, Field(gt=0, le=1)] = Field(default=1.0, exclude_if=lambda share: share == 1)
    crop: Size
    scale: Range = (0.5, 2.0)  # random resize before the crop
    # Long and short side of the box that images are resized to fit before `scale`; None: keep their size.
    fit: Size | None = Field(default=None, exclude_if=lambda fit: fit is None)
    flip: Annotated[float, Field(ge=0, le=1)] = 0.5  # probability
    photometric: Photometric | None = Photometric()
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: PositiveFloat
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # of SGD; AdamW uses betas (0.9, 0.999)
    weight_decay: NonNegativeFloat = 0.0005
    # No weight decay for parameters with one of these in their names (norms, position embeddings).
    undecayed: Annotated[tuple[str, ...], Listed] = Field(default=(), exclude_if=lambda parts: not parts)
    # Multiplies the learning rate of everything except the backbone.
    head_rate: PositiveFloat = Field(default=1.0, exclude_if=lambda rate: rate == 1)
    policy: Literal["poly", "linear", "constant"] = "poly"
    power: PositiveFloat = 0.9  # of the poly policy
    minimum_learning_rate: NonNegativeFloat = 0.0
    warmup: NonNegativeInt = 0  # iterations of linear warm-up
    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0  # the warm-up starts at this share of the learning rate
    class_weights: Annotated[tuple[NonNegativeFloat, ...], Listed] | None = None  # one per class of the data set
    # Of the protocol `slide`. Defaults: the crop, and two thirds of the window.
    slide_window: Size | None = Field(default=None, exclude_if=lambda given: given is None)
    slide_stride: Size | None = Field(default=None, exclude_if=lambda given: given is None)
    precision: Literal["float32", "bfloat16"] = "float32"  # bfloat16: autocast on a GPU
    channels_last: bool = True
    # Compile the network with torch.compile. The first run takes minutes to compile; later ones find it in the cache.
    compile: bool = Field(default=False, exclude_if=lambda given: not given)
    log_every: PositiveInt = 50
    checkpoint_every: PositiveInt = 500

    @model_validator(mode="after")
    def _consistent(self) -> "Schedule":
        if self.checkpoint_every % self.log_every:
            # A row of the curve averages the iterations since the last one, so a resumed run must start with a new row.
            raise ValueError(f"checkpoint_every ({self.checkpoint_every}) must be a multiple of log_every")
        if self.class_weights is not None and not any(self.class_weights):
            raise ValueError("class_weights are all 0, which trains nothing: give null, or a positive one")
        window = self.slide_window or self.crop
        if self.slide_stride is not None and any(
            step > side for step, side in zip(self.slide_stride, window, strict=True)
        ):
            raise ValueError(f"slide_stride {list(self.slide_stride)} must not exceed the window, {list(window)}")
        return self


class Arm(Strict):
    """A method with its options, when its terms count, and for how long it trains."""

    method: str
    starts_at: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of the schedule before which its terms are 0
    # Share of the schedule after which its terms are 0. If the method replaces cross entropy until then, training has
    # two stages: the method, then cross entropy.
    ends_at: Annotated[float, Field(gt=0, le=1)] = 1.0
    longer: PositiveFloat = 1.0  # multiplies the schedule's iterations
    # The arm whose training time this one matches: the schedule's iterations are multiplied by the ratio of that arm's
    # step time to this one's, {DATASET/MODEL: ratio}, which `harness equal-compute` measures and fills in.
    compute_of: str | None = None
    compute_ratio: dict[str, PositiveFloat] = {}
    options: dict[str, Any]  # as given, under their current names; checked against the method's `Options`

    @model_validator(mode="after")
    def _counts_at_all(self) -> "Arm":
        if self.ends_at <= self.starts_at:
            raise ValueError(f"ends_at ({self.ends_at}) must be after starts_at ({self.starts_at})")
        return self


class Override(Strict):
    """Training settings for some data sets or models, on top of the schedule; None: for all of them."""

    datasets: list[str] | None = None
    models: list[str] | None = None
    settings: dict[str, Any]  # of Schedule's keys

    def covers(self, dataset: str, model: str) -> bool:
        """Whether these settings are for `model` on `dataset`."""
        return (self.datasets is None or dataset in self.datasets) and (self.models is None or model in self.models)


class Experiment(Strict):
    """An experiment file's content. Read one with `Experiment.load`."""

    name: str
    arms: dict[str, Arm]
    baseline: str
    datasets: Annotated[list[str], Field(min_length=1)]
    models: Annotated[list[str], Field(min_length=1)]
    only: dict[str, Annotated[list[str], Field(min_length=1)]] = {}  # models that run on these data sets only
    schedule: Schedule
    schedules: list[Override] = []
    protocols: Annotated[list[Protocol], Field(min_length=1)] = ["whole"]
    seeds: Annotated[list[Seed], Field(min_length=1)] = [0]
    # The baseline is in every comparison, so it gets more seeds: `seeds` and the next ones. None: twice as many as the
    # arms have, or one if they have one, since a single run has no interval.
    baseline_seeds: PositiveInt | None = None
    roots: dict[str, Annotated[Path, Listed]] = {}
    absent: Absent = "skip"
    demonstration: bool = False  # shows that everything works, and nothing about the methods

    @classmethod
    def load(cls, path: Path, overrides: list[str] | None = None) -> "Experiment":
        """The experiment in the file `path`; `overrides` are KEY=VALUE with dotted keys, validated the same way.

        Overrides that change what is trained or scored make it a trial: an experiment of another name (`trial_name`),
        whose runs and reports never mix with those of the file. The override name=... gives any name.

        Raises UserError, one sentence naming the file and the key.
        """
        content = _read_yaml(Path(path))
        # The file may keep settings for pairs that --set took out.
        narrowed = any(override.partition("=")[0] in ("datasets", "models", "only") for override in overrides or [])
        if "name" in content:
            raise UserError(f"{path}: name is taken from the file's name; remove the key")
        content["name"] = trial_name(Path(path).stem, overrides or [])
        for override in overrides or []:
            _override(content, override)
        return cls.of(content, str(path), narrowed)

    @classmethod
    def of(cls, content: dict[str, Any], source: str, narrowed: bool = False) -> "Experiment":
        """The experiment with this content; `narrowed`: keys may name pairs that do not run.

        Raises UserError, one sentence that begins with `source` and names the key.
        """
        try:
            return cls.model_validate(content, context={"narrowed": narrowed})
        except ValidationError as error:
            keys = [name for name in cls.model_fields if name != "name"]
            raise UserError(f"{source}: {problems(error, cls, keys)[0]}") from None
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
            try:
                current, allowed = discovery.current_names(method, given), discovery.options(method)
            except UserError as error:
                raise UserError(f"arms.{name}: {error}") from None
            if len(current) < len(given):
                both = [key for key in given if key not in current]
                raise ValueError(f"{name} gives an option twice: {', '.join(both)} is the former name of another one")
            if taken := [key for key in ARM_KEYS if key in allowed]:
                raise UserError(f"methods/{method}.py: an arm has a key {taken[0]} itself: rename the option")
            given = current
            for key in given:
                if key not in allowed:
                    raise unknown("option", key, [*allowed, *ARM_KEYS[1:]], f" of method {method} in arm {name}")
            try:
                discovery.options(method, given)
            except UserError as error:
                raise UserError(f"arms.{name}.{error}") from None
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
                    raise unknown("key", str(key), allowed, f" in schedules.{number}")
            read.append({**chosen, "settings": given})
        return read

    @model_validator(mode="after")
    def _names_exist(self) -> "Experiment":
        for name in [self.name, *self.arms]:
            if not FOLDER_NAME.fullmatch(name):
                raise ValueError(f"{name!r} names a folder: use letters, digits, '_', '-', '.' and '+' only")
        if self.baseline not in self.arms:
            raise unknown("arm", self.baseline, self.arms, " as baseline")
        for name, arm in self.arms.items():
            if arm.compute_of is None:
                continue
            if arm.compute_of not in self.arms:
                raise unknown("arm", arm.compute_of, self.arms, f" as compute_of of {name}")
            if arm.longer != 1 or self.arms[arm.compute_of].compute_of is not None:
                raise ValueError(
                    f"arms.{name}.compute_of needs an arm without compute_of, and cannot be combined with longer"
                )
        bound = [name for names in self.only.values() for name in names]
        named_datasets = [name for entry in self.schedules for name in entry.datasets or []]
        named_models = [name for entry in self.schedules for name in entry.models or []]
        for kind, chosen, known in (
            ("data set", [*self.datasets, *self.roots, *bound, *named_datasets], datasets.names()),
            ("model", [*self.models, *self.only, *named_models], models.names()),
        ):
            for name in chosen:
                if name not in known:
                    raise unknown(kind, name, known)
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
                schedule = self.schedule_of(dataset, model)
            except ValidationError as error:
                raise ValueError(f"schedules, for {model} on {dataset}: {problems(error, Schedule)[0]}") from None
            if fault := _misfit(schedule, dataset, model):
                raise ValueError(f"schedule.{fault}")
        return self

    @model_validator(mode="after")
    def _options_fit_networks(self) -> "Experiment":
        numbers = {len(models.load_spec(model).taps.channels): model for _, model in self.pairs()}
        for number, model in numbers.items():
            for name, arm in self.arms.items():
                try:
                    discovery.check_maps(arm.method, arm.options, number)
                except UserError as error:
                    raise UserError(f"arms.{name}.{error} of model {model}") from None
        return self

    def pairs(self) -> list[tuple[str, str]]:
        """The (data set, model) pairs that run: all but those that `only` leaves out."""
        return [
            (dataset, model)
            for dataset in self.datasets
            for model in self.models
            if dataset in self.only.get(model, self.datasets)
        ]

    def schedule_of(self, dataset: str, model: str, arm: str | None = None) -> Schedule:
        """The training settings of a pair: `schedule`, updated in order by the entries of `schedules` that cover it.

        With `arm` they have that arm's number of iterations, which `longer` and `compute_of` may change. Raises
        UserError if the ratio that `compute_of` needs was not measured yet.
        """
        merged = self.schedule.model_dump()
        for entry in self.schedules:
            if entry.covers(dataset, model):
                merged |= entry.settings
        schedule = Schedule.model_validate(merged)
        if arm is not None and (factor := self.longer(dataset, model, arm)) != 1:
            schedule = schedule.model_copy(update={"iterations": max(1, round(factor * schedule.iterations))})
        return schedule

    def longer(self, dataset: str, model: str, arm: str) -> float:
        """How many times as many iterations as the schedule has `arm` trains. Raises UserError as `schedule_of`."""
        given = self.arms[arm]
        if given.compute_of is None:
            return given.longer
        ratio = given.compute_ratio.get(f"{dataset}/{model}")
        if ratio is None:
            raise UserError(
                f"arms.{arm}.compute_ratio has no {dataset}/{model}: `python -m harness equal-compute FILE` "
                f"measures how long a step of {given.compute_of} takes, and fills it in"
            )
        return ratio * self.arms[given.compute_of].longer

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
                raise unknown(kind, name, allowed, f" in experiment {self.name}")
        if (dataset, model) not in self.pairs():
            bound = ", ".join(self.only[model])
            raise UserError(f"model {model} runs on {bound} alone in experiment {self.name}: see its key only")
        if not 0 <= seed < SEEDS:
            raise UserError(f"--seed must be from 0 to {SEEDS - 1}, not {seed}")
        return Run(self.name, dataset, model, arm, seed)

    def settings(self, run: Run) -> dict[str, Any]:
        """Everything in this project's files that decides the outcome of `run`, as JSON values."""
        arm = self.arms[run.arm]
        settings = {
            "dataset": run.dataset,
            "model": run.model,
            "model_spec": models.load_spec(run.model).model_dump(mode="json"),
            "method": arm.method,
            "method_source": discovery.source_fingerprint(arm.method),
            "options": discovery.options(arm.method, arm.options),
            "seed": run.seed,
            "schedule": self.schedule_of(run.dataset, run.model, run.arm).model_dump(mode="json"),
        }
        if arm.starts_at:
            settings["starts_at"] = arm.starts_at
        if arm.ends_at != 1:
            settings["ends_at"] = arm.ends_at
        return json.loads(json.dumps(settings))  # tuples become lists, as they will be when read back


def as_told(file: Path | str, overrides: Sequence[str]) -> tuple[str, ...]:
    """The words that name an experiment on a command line: its file, and a --set for each override."""
    return str(file), *(word for each in overrides for word in ("--set", each))


def trial_name(name: str, overrides: list[str]) -> str:
    """The name of experiment `name` with `overrides`: its own, or "<name>+<key>=<value>..." if they change a result.

    Of dotted keys, only the last part is shown.
    """
    said = [each for each in overrides if each.partition("=")[0].partition(".")[0] not in CHOOSING]
    if not said:
        return name
    short = [re.sub(r"^[^=]*\.(?=[^=.]*=)", "", each) for each in said]
    told = "+".join(re.sub(r"[^A-Za-z0-9_.=-]+", "-", each).strip("-").replace("=-", "=") for each in short)
    if len(told) > LONGEST_TRIAL:
        told = hashlib.sha256("\n".join(said).encode()).hexdigest()[:12]
    return f"{name}+{told}"


def _misfit(schedule: Schedule, dataset: str, model: str) -> str:
    """Which setting does not fit the data set or the model, and why; "" if all fit."""
    weights, classes = schedule.class_weights, datasets.load(dataset).num_classes
    if weights is not None and len(weights) != classes:
        return f"class_weights has {len(weights)} numbers, but {dataset} has {classes} classes: give one for each"
    spec = models.load_spec(model)
    if min(schedule.crop) < spec.smallest_image:
        least = spec.smallest_image
        return f"crop is {list(schedule.crop)}, but {model} takes images of {least}x{least} pixels or more"
    one_value = spec.pools_to_one or max(schedule.crop) <= max(spec.taps.strides)
    if schedule.batch == 1 and one_value:
        return f"batch is 1, but {model} normalises maps of a single value over the batch: give 2 or more"
    return ""


def _read_yaml(path: Path) -> dict[str, Any]:
    if not path.is_file():
        near = guess(path.stem, (each.stem for each in Path("config").glob("*.yaml")))
        raise UserError(f"there is no experiment file {path}: {near}pass one of config/*.yaml")
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except YAML_FAULTS as error:
        raise UserError(f"{path} is not valid YAML: {yaml_fault(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold keys such as arms, datasets and models")
    return content


def _override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override}: give KEY=VALUE, for example schedule.iterations=50")
    try:
        parsed = read_yaml(value)
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
