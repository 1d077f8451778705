"""The models: one YAML file each in this folder, built from a configuration of mmsegmentation.

    config: hrnet/fcn_hr18s_...py   the configuration, inside the installed package's mmseg/.mim/configs
    overrides: {...}                merged into its `model` part (mmengine's rules: `_delete_: true` replaces a dict)
    taps:                           the backbone's outputs, fine to coarse: what methods see and the head decodes
      channels: [48, 96, 192, 384]
      strides: [4, 8, 16, 32]
    base: NAME                      start from another model's file, whose keys those given here replace
    weights:                        what `weights="auto"` loads; left out for a network from scratch
      package, file                 a file inside an installed Python package, or
      url                           a file, read from torch.hub's cache; open-mmlab://NAME is one that mmengine knows
      rename: {pattern: template}   regular expressions that turn the file's names into the backbone's
      without: [pattern, ...]       names of the file that are known to have no place here (a classifier)

torch and mmsegmentation are imported by `build` alone, so listing and checking models is quick.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from harness.discovery import unknown
from harness.errors import UserError

if TYPE_CHECKING:
    from harness.models.segmenter import Segmenter

FOLDER = Path(__file__).parent


class Taps(BaseModel):
    """Channels and strides (input pixels per cell) of the backbone's outputs, fine to coarse."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    channels: tuple[int, ...]
    strides: tuple[int, ...]


class WeightsSource(BaseModel):
    """Where the initial weights of a model's backbone come from; none of the keys: from scratch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    package: str | None = None
    file: str | None = None
    url: str | None = None
    rename: dict[str, str] = Field(default_factory=dict)
    without: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_source(self) -> "WeightsSource":
        if (self.package is None) != (self.file is None):
            raise ValueError("package and file belong together")
        if self.package and self.url:
            raise ValueError("give either package and file, or url")
        return self


class ModelSpec(BaseModel):
    """What a model's YAML file says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    config: str
    taps: Taps
    overrides: dict[str, Any] = Field(default_factory=dict)
    weights: WeightsSource = WeightsSource()


def names() -> list[str]:
    """The names of all models, sorted."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_spec(name: str) -> ModelSpec:
    """Read the YAML file of model `name`. Raises UserError for an unknown model or a file that says something else."""
    path = FOLDER / f"{name}.yaml"
    try:
        return ModelSpec(name=name, **_content(name))
    except (yaml.YAMLError, AttributeError, TypeError) as error:
        raise UserError(f"{path} is not a model's YAML file: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: {key}: {first['msg']}") from None


def _content(name: str) -> dict[str, Any]:
    if name not in names():
        raise unknown("model", name, names())
    own = yaml.safe_load((FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    base = own.pop("base", None)
    return _content(base) | own if base else own


def build(name: str, num_classes: int, weights: str | Path = "auto") -> "Segmenter":
    """Build model `name` for `num_classes` classes, on the CPU, in training mode.

    `weights`: "auto" loads what the model's file names; "none" leaves every parameter at its random start; a path loads
    that file, a checkpoint of the whole model or of its backbone. Random starts draw from torch's global generator.

    Raises UserError for an unknown model, and for weights that cannot be read or that fill < 95 % of the backbone.
    """
    spec = load_spec(name)
    from harness.models.segmenter import from_spec

    return from_spec(spec, num_classes, weights)
