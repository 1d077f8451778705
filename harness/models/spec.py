"""The schema of a model's YAML. Never imports torch.

A run's settings contain `ModelSpec.model_dump()`. Fields marked `exclude` do not affect a run and are left out; fields
that were added later (`exclude_if`) are included only if a YAML uses them.
"""

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

FOLDER = Path(__file__).parent
MMSEGMENTATION, DETECTRON2 = "mmsegmentation", "detectron2"
MODULE_FUNCTION = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
# Publishers put the first digits of the sha256 into a file's name: fcn_hr48_...-a989b146.pth.
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Taps(_Strict):
    """The feature maps that methods see, fine to coarse.

    at: the backbone's outputs, or those of the feature pyramid ("fpn") in mmsegmentation's UPerNet head or detectron2's
    backbone. maps: indices of a function network's maps; default all. strides: input pixels per cell.
    """

    at: Literal["backbone", "fpn"] = Field(default="backbone", exclude_if=lambda at: at == "backbone")
    maps: tuple[int, ...] | None = Field(default=None, exclude_if=lambda maps: maps is None)
    channels: tuple[int, ...]
    strides: tuple[int, ...]


class WeightsSource(_Strict):
    """The source of the backbone's initial weights; without one, training starts from scratch.

    configuration: the file that the configuration names. package, file: a file in an installed Python package. url: a
    download, also open-mmlab://NAME as in mmengine. rename: regular expressions from the file's names to the
    backbone's. without: names in the file that are not needed (a classifier). missing: names of the backbone that the
    file lacks.
    """

    configuration: bool = Field(default=False, exclude_if=lambda given: not given)
    package: str | None = None
    file: str | None = None
    url: str | None = None
    rename: dict[str, str] = Field(default_factory=dict)
    without: tuple[str, ...] = ()
    missing: tuple[str, ...] = Field(default=(), exclude=True)  # affects only the check, not what is loaded

    @property
    def given(self) -> bool:
        """Whether a source is given."""
        return bool(self.configuration or self.package or self.url)

    @model_validator(mode="after")
    def _one_source(self) -> "WeightsSource":
        if (self.package is None) != (self.file is None):
            raise ValueError("package and file belong together")
        if sum(map(bool, (self.configuration, self.package, self.url))) > 1:
            raise ValueError("give one of configuration, package and file, or url")
        return self


class Published(_Strict):
    """mmsegmentation's published mIoU of a `checkpoint` (from its metafile.yaml): a known answer for our evaluator.

    miou: percent; tolerance: points. window, stride: (height, width) for the protocol `slide`. fit: the box (long and
    short side) that test images were scaled into. For `ms_flip` the tolerance is wide, since mmsegmentation averages
    scales 0.5 to 1.75 and we average 0.75 to 2.0.
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
        """Whether the score belongs to the file with this sha256."""
        mark = HASH_IN_NAME.search(self.checkpoint)
        return mark is not None and sha256.startswith(mark[1])


class Input(_Strict):
    """Input normalisation of a function's network: (RGB in 0..255 - `mean`) / `std`; default ImageNet's."""

    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] = (58.395, 57.12, 57.375)

    @model_validator(mode="after")
    def _of_bytes(self) -> "Input":
        if max(self.std) < 1:  # torchvision's are for images on 0 to 1
            raise ValueError(f"std is {list(self.std)}: give mean and std for RGB on 0 to 255, 255 times as large")
        return self


class ModelSpec(_Strict):
    """A model's YAML.

    title: its name on pages and in figures; default: the YAML's name.
    source: mmsegmentation, detectron2, or MODULE:FUNCTION, a function that returns the network. config: a configuration
    of the framework; overrides: merged into it (mmengine's `_delete_: true` replaces a dict). imports: modules to
    import first. arguments, input, backbone: for MODULE:FUNCTION. smallest_image: side in pixels. pools_to_one: a batch
    norm sees one value per image, so a batch needs two images. code: {module next to the YAML: sha256 of its code}.
    folder: the YAML's folder.
    """

    name: str
    title: str = Field(default="", exclude=True)
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
