"""The models: one YAML file each in this folder, built from a configuration of mmsegmentation (docs/new-model.md).

    config: hrnet/fcn_hr18s_...py   the configuration, inside the installed package's mmseg/.mim/configs
    overrides: {...}                merged into its `model` part (mmengine's rules: `_delete_: true` replaces a dict)
    taps:                           the feature maps that methods see, fine to coarse
      at: backbone                  the backbone's outputs (the default), or `fpn`: those of a UPerNet head's pyramid
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
    published:                      what mmsegmentation reports for its own trained networks; see `Published`
      - {dataset: ..., protocol: ..., miou: ..., tolerance: ..., checkpoint: ...}

torch and mmsegmentation are imported by `build` alone, so listing and checking models is quick. A run's settings hold
`ModelSpec.model_dump()`: `published`, `smallest_image` and `pools_to_one` are no part of it, and `at` and
`configuration` only where a file uses them.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from harness import strict_yaml
from harness.discovery import unknown
from harness.errors import YAML_FAULTS, UserError

if TYPE_CHECKING:
    from harness.models.segmenter import Segmenter

FOLDER = Path(__file__).parent
# The publisher's mark in a weights file's name: the first digits of its sha256, as in fcn_hr48_...-a989b146.pth.
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Taps(_Strict):
    """Where the maps that methods see are taken, their channels and strides (input pixels a cell), fine to coarse."""

    at: Literal["backbone", "fpn"] = Field(default="backbone", exclude_if=lambda at: at == "backbone")
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


class ModelSpec(_Strict):
    """What a model's YAML file says."""

    name: str
    config: str
    taps: Taps
    overrides: dict[str, Any] = Field(default_factory=dict)
    weights: WeightsSource = WeightsSource()
    smallest_image: PositiveInt = Field(default=1, exclude=True)
    pools_to_one: bool = Field(default=False, exclude=True)
    published: tuple[Published, ...] = Field(default=(), exclude=True)


def names() -> list[str]:
    """The names of all models, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_spec(name: str) -> ModelSpec:
    """Read the YAML file of model `name`. Raises UserError for an unknown model or a file that says something else."""
    path = FOLDER / f"{name}.yaml"
    try:
        return ModelSpec(name=name, **_content(name))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: {key}: {first['msg']}") from None
    except YAML_FAULTS as error:
        raise UserError(f"{path} is not a model's YAML file: {' '.join(str(error).split())}") from None


def _content(name: str) -> dict[str, Any]:
    if name not in names():
        raise unknown("model", name, names())
    own = strict_yaml.load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    base = own.pop("base", None)
    return _content(base) | own if base else own


def published(model: str, dataset: str, sha256: str | None = None) -> list[Published]:
    """The published figures of `model` on `dataset`; with `sha256`, those of that checkpoint alone. Often none."""
    facts = [fact for fact in load_spec(model).published if fact.dataset == dataset]
    return facts if sha256 is None else [fact for fact in facts if fact.is_for(sha256)]


def build(name: str, num_classes: int, weights: str | Path = "auto") -> "Segmenter":
    """Build model `name` for `num_classes` classes, on the CPU, in training mode.

    `weights`: "auto" loads what the model's file names (and downloads it if need be); "none" leaves every parameter at
    its random start; a path loads that file, a checkpoint of the whole model or of its backbone. Random starts draw
    from torch's global generator.

    Raises UserError for an unknown model, and for weights that cannot be had or read or that fill < 95 % of the
    backbone.
    """
    spec = load_spec(name)
    from harness.models.segmenter import from_spec

    return from_spec(spec, num_classes, weights)
