"""The models: one YAML file each, in this folder or in one of your own (docs/new-model.md).

    source:                         where the network comes from: mmsegmentation (the default), detectron2, or
                                    MODULE:FUNCTION, a function of yours that returns it
    config: hrnet/fcn_hr18s_...py   mmsegmentation: a configuration inside mmseg/.mim/configs; detectron2: one of its
                                    model zoo, or a file beside the YAML
    overrides: {...}                merged into it (mmengine's rules: `_delete_: true` replaces a dict)
    imports: [MODULE, ...]          modules to import first, which register backbones, heads ...
    arguments: {...}                of FUNCTION, beside `num_classes`
    input: {mean: ..., std: ...}    of FUNCTION's network, RGB on 0 to 255; default: ImageNet's
    backbone: encoder               the child of FUNCTION's network that initial weights fill; default: backbone, and
                                    the whole network if it has no such child
    taps:                           the feature maps that methods see, fine to coarse
      at: backbone                  the backbone's outputs (the default), or `fpn`: those of the feature pyramid in
                                    mmsegmentation's UPerNet head or in detectron2's backbone
      maps: [1, 2, 3, 4]            which of the maps of FUNCTION's network; default: all
      channels: [48, 96, 192, 384]
      strides: [4, 8, 16, 32]
    smallest_image: 29              height and width in pixels that an image must have; any, if left out
    pools_to_one: true              a part sees one value an image, whose batch norm needs two images or more
    base: NAME                      start from another model's file, whose keys those given here replace
    weights:                        what `weights="auto"` loads; left out for a network from scratch
      configuration: true           the file that the configuration itself starts its backbone from, or
      package, file                 a file inside an installed Python package, or
      url                           a file to download; open-mmlab://NAME is one that mmengine knows
      rename: {pattern: template}   regular expressions that turn the file's names into the backbone's
      without: [pattern, ...]       names of the file that are known to have no place here (a classifier)
      missing: [pattern, ...]       names of the backbone that the file is known to lack; they start at random
    published:                      what mmsegmentation reports for its own trained networks; see `Published`
      - {dataset: ..., protocol: ..., miou: ..., tolerance: ..., checkpoint: ...}

torch and the frameworks are imported by `build` alone, so listing and checking models is quick. A run's settings hold
`ModelSpec.model_dump()`: `published`, `smallest_image` and `pools_to_one` are no part of it, and keys that came later
only where a file uses them.
"""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from harness.config import read_yaml
from harness.errors import YAML_FAULTS, UserError, unknown
from harness.models.code import code_of

if TYPE_CHECKING:
    from harness.models.segmenter import Segmenter

FOLDER = Path(__file__).parent
FOLDERS_VARIABLE = "CONTEXTRAST_BENCH_MODELS"  # folders of your own, with os.pathsep between them
MMSEGMENTATION, DETECTRON2 = "mmsegmentation", "detectron2"
MODULE_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
# The publisher's mark in a weights file's name: the first digits of its sha256, as in fcn_hr48_...-a989b146.pth.
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Taps(_Strict):
    """Where the maps that methods see are taken, their channels and strides (input pixels a cell), fine to coarse."""

    at: Literal["backbone", "fpn"] = Field(default="backbone", exclude_if=lambda at: at == "backbone")
    maps: tuple[int, ...] | None = Field(default=None, exclude_if=lambda maps: maps is None)
    channels: tuple[int, ...]
    strides: tuple[int, ...]


class WeightsSource(_Strict):
    """Where the initial weights of a model's backbone come from; none of the sources: from scratch."""

    configuration: bool = Field(default=False, exclude_if=lambda given: not given)
    package: str | None = None
    file: str | None = None
    url: str | None = None
    rename: dict[str, str] = Field(default_factory=dict)
    without: tuple[str, ...] = ()
    missing: tuple[str, ...] = Field(default=(), exclude=True)  # it changes what is refused, not what is loaded

    @property
    def given(self) -> bool:
        """Whether there is a file to start from."""
        return bool(self.configuration or self.package or self.url)

    @model_validator(mode="after")
    def _one_source(self) -> "WeightsSource":
        if (self.package is None) != (self.file is None):
            raise ValueError("package and file belong together")
        if sum(map(bool, (self.configuration, self.package, self.url))) > 1:
            raise ValueError("give one of configuration, package and file, or url")
        return self


class Published(_Strict):
    """A figure that mmsegmentation publishes for a network that it trained: a known answer for our evaluator.

    `miou` is in percent, `tolerance` in points of it. The figure holds for the file `checkpoint` alone. `window` and
    `stride` (height, width) are those of the protocol `slide`; `fit` (long and short side) is the box that the test
    image was scaled into first, where it was. Source: the package's metafile.yaml files. mmsegmentation averages the
    scales 0.5 to 1.75 and `ms_flip` those from 0.75 to 2.0, so there the tolerance is a wide one.
    """

    dataset: str
    protocol: Literal["whole", "slide", "ms_flip"]
    miou: float = Field(ge=0, le=100)
    tolerance: PositiveFloat
    checkpoint: str
    window: tuple[PositiveInt, PositiveInt] | None = None
    stride: tuple[PositiveInt, PositiveInt] | None = None
    fit: tuple[PositiveInt, PositiveInt] | None = None

    @model_validator(mode="after")
    def _complete(self) -> "Published":
        if HASH_IN_NAME.search(self.checkpoint) is None:
            raise ValueError(f"{self.checkpoint} does not end in eight digits of its sha256")
        if [self.window is not None, self.stride is not None] != [self.protocol == "slide"] * 2:
            raise ValueError("window and stride belong to the protocol slide")
        return self

    def is_for(self, sha256: str) -> bool:
        """Whether the file with this sha256 is the one that the figure was measured with."""
        mark = HASH_IN_NAME.search(self.checkpoint)
        return mark is not None and sha256.startswith(mark[1])


class Input(_Strict):
    """What the network of a function is given: RGB on 0 to 255, minus `mean`, divided by `std`. Default: ImageNet's."""

    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (58.395, 57.12, 57.375)


class ModelSpec(_Strict):
    """What a model's YAML file says; `folder` is where it lies, `code` {module beside it: sha256 of its code}."""

    name: str
    source: str = Field(default=MMSEGMENTATION, exclude_if=lambda source: source == MMSEGMENTATION)
    config: str = Field(default="", exclude_if=lambda config: not config)
    taps: Taps
    overrides: dict[str, Any] = Field(default_factory=dict)
    imports: tuple[str, ...] = Field(default=(), exclude_if=lambda imports: not imports)
    arguments: dict[str, Any] = Field(default_factory=dict, exclude_if=lambda arguments: not arguments)
    input: Input | None = Field(default=None, exclude_if=lambda given: given is None)
    backbone: str = Field(default="backbone", exclude_if=lambda name: name == "backbone")
    weights: WeightsSource = WeightsSource()
    code: dict[str, str] = Field(default_factory=dict, exclude_if=lambda code: not code)
    smallest_image: PositiveInt = Field(default=1, exclude=True)
    pools_to_one: bool = Field(default=False, exclude=True)
    published: tuple[Published, ...] = Field(default=(), exclude=True)
    folder: Path = Field(default=FOLDER, exclude=True)

    @model_validator(mode="after")
    def _keys_of_its_source(self) -> "ModelSpec":
        of_function = {"arguments", "input", "backbone"} & self.model_fields_set
        if self.source in (MMSEGMENTATION, DETECTRON2):
            if "config" not in self.model_fields_set:
                raise ValueError(f"config is missing: name a configuration of {self.source}")
            if of_function or self.taps.maps is not None:
                raise ValueError(f"{', '.join(sorted(of_function)) or 'taps.maps'} needs source: MODULE:FUNCTION")
        elif not MODULE_FUNCTION.fullmatch(self.source):
            raise ValueError(f"source is {self.source!r}: give mmsegmentation, detectron2 or MODULE:FUNCTION")
        elif self.config or self.overrides or self.weights.configuration or self.taps.at != "backbone":
            raise ValueError(
                "config, overrides, weights.configuration and taps.at are for mmsegmentation and detectron2"
            )
        return self


def names() -> list[str]:
    """The names of all models, sorted. Raises UserError if two files have one name."""
    return sorted(_files())


def load_spec(name: str) -> ModelSpec:
    """Read the YAML file of model `name`. Raises UserError for an unknown model or a file that says something else."""
    path = _files().get(name, Path(name))
    try:
        spec = ModelSpec(name=name, folder=path.parent, **_content(name))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: {f'{key}: ' if key else ''}{first['msg'].removeprefix('Value error, ')}") from None
    except YAML_FAULTS as error:
        raise UserError(f"{path} is not a model's YAML file: {' '.join(str(error).split())}") from None
    code = code_of(spec)
    return spec.model_copy(update={"code": code}) if code else spec


def _files() -> dict[str, Path]:
    """{model: its YAML file}: in this folder, then in those that $CONTEXTRAST_BENCH_MODELS names."""
    found: dict[str, Path] = {}
    own = [Path(each) for each in os.environ.get(FOLDERS_VARIABLE, "").split(os.pathsep) if each]
    for folder in [FOLDER, *own]:
        if not folder.is_dir():
            raise UserError(f"there is no folder {folder}: correct ${FOLDERS_VARIABLE}")
        for path in sorted(folder.glob("*.yaml")):
            if found.setdefault(path.stem, path) != path:
                raise UserError(f"{found[path.stem]} and {path} are both the model {path.stem}: rename one of them")
    return found


def _content(name: str) -> dict[str, Any]:
    files = _files()
    if name not in files:
        raise unknown("model", name, files)
    own = read_yaml(files[name].read_text(encoding="utf-8"))
    base = own.pop("base", None)
    return _content(base) | own if base else own


def published(model: str, dataset: str, sha256: str | None = None) -> list[Published]:
    """The published figures of `model` on `dataset`; with `sha256`, those of that checkpoint alone. Often none."""
    facts = [fact for fact in load_spec(model).published if fact.dataset == dataset]
    return facts if sha256 is None else [fact for fact in facts if fact.is_for(sha256)]


def build(name: str, num_classes: int, weights: str | Path = "auto") -> "Segmenter":
    """Build model `name` for `num_classes` classes, on the CPU, in training mode.

    `weights`: "auto" loads what the model's file names (and downloads it if need be); "none" leaves every parameter at
    its random start; a path or an address (open-mmlab://NAME, https://...) loads that file, a checkpoint of the whole
    model or of its backbone. Random starts draw from torch's global generator.

    Raises UserError for an unknown model, for weights that cannot be had or read, and for a file that leaves a learned
    tensor of the backbone empty.
    """
    spec = load_spec(name)
    from harness.models.segmenter import from_spec

    return from_spec(spec, num_classes, weights)
