"""A data set's YAML, validated.

    name, title, licence, source    the file's name, a title for people, the licence, and where to get the set
    root_variable                   the environment variable with its folder
    layout, or layouts              how the files are arranged (readers.py); the one that a root has is read
    classes                         in order of train id: name, display colour and label values
    ignored_labels                  label values that are ignored
    splits, other_counts            images per split; other correct numbers
    size                            of every image, WIDTHxHEIGHT in pixels, or a range: 1x1..640x640
    train_split, evaluation_split   the split to train on, and the one that papers report
    clusters                        a regular expression that matches an image's cluster at the start of its id
    class_pixels                    published pixels of each class in a split and, last, of ignored ones
    generator                       settings of a rendered set
    base, ignored_classes           another data set's file to inherit from, and classes of it that are ignored here

A label value is an integer, a range "3..8", or a colour [r, g, b]. If layouts store different values, `labels` and
`ignored_labels` map names to lists, and each layout names its own (`values`).
"""

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from harness.config import problems, read_yaml
from harness.datasets.readers import LARGEST_VALUE, FolderLayout, ListLayout
from harness.datasets.sizes import Sizes
from harness.errors import YAML_FAULTS, UserError, yaml_fault

IGNORE_INDEX = 255
MOST_CLASSES = 254  # 255 is the ignore index, and 254 marks forbidden values


def _label_values(given: Any) -> tuple[int, ...]:
    """Label values as integers: 7 is 7, "1..3" is 1, 2, 3, and a colour [r, g, b] is 0xRRGGBB."""
    if not isinstance(given, list | tuple):
        raise ValueError("must be a list of label values")
    values: list[int] = []
    for item in given:
        span = re.fullmatch(r"(\d+)\.\.(\d+)", item) if isinstance(item, str) else None
        if isinstance(item, int) and not isinstance(item, bool) and item >= 0:
            values.append(item)
        elif span:
            values += range(int(span[1]), int(span[2]) + 1)
        elif isinstance(item, list) and len(item) == 3 and all(type(c) is int and 0 <= c <= 255 for c in item):
            values.append(item[0] << 16 | item[1] << 8 | item[2])
        else:
            raise ValueError(f"{item!r} is no label value: give an integer of 0 or more, 'a..b' or [r, g, b]")
    return tuple(values)


Channel = Annotated[int, Field(ge=0, le=255)]
Count = Annotated[int, Field(ge=0)]
LabelValues = Annotated[tuple[int, ...], BeforeValidator(_label_values)]
Layout = Annotated[ListLayout | FolderLayout, Field(discriminator="kind")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ClassEntry(_Strict):
    """A class; its train id is its position in the list. pixel_share: its published share of all pixels, 0 to 1."""

    name: str
    color: tuple[Channel, Channel, Channel]
    labels: LabelValues
    pixel_share: Annotated[float, Field(ge=0, le=1)] | None = None

    @field_validator("labels")
    @classmethod
    def _labels_are_given(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value:
            raise ValueError("a class needs at least one label value")
        return value


class Generator(_Strict):
    """Settings of a rendered data set."""

    seed: Count
    height: int = Field(ge=16)
    width: int = Field(ge=16)


class Spec(_Strict):
    """A data set's description for one layout, with this layout's label values."""

    name: str
    title: str
    licence: str
    source: str
    root_variable: str
    layout: Layout
    classes: tuple[ClassEntry, ...] = Field(min_length=2, max_length=MOST_CLASSES)
    ignored_labels: LabelValues = ()
    splits: dict[str, int] = Field(min_length=1)
    other_counts: dict[str, tuple[Count, ...]] = {}
    size: str | None = None
    train_split: str
    evaluation_split: str
    clusters: str | None = None
    class_pixels: dict[str, tuple[Count, ...]] = {}
    categories: dict[str, tuple[str, ...]] = {}  # groups of classes that are also scored as one
    generator: Generator | None = None

    @field_validator("clusters")
    @classmethod
    def _clusters_is_a_pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression ({error})") from None
        return value

    @field_validator("size")
    @classmethod
    def _size_is_one(cls, value: str | None) -> str | None:
        return value if value is None else str(Sizes.of(value))

    @model_validator(mode="after")
    def _hangs_together(self) -> "Spec":
        values = [value for entry in self.classes for value in entry.labels] + list(self.ignored_labels)
        if twice := sorted({value for value in values if values.count(value) > 1}):
            raise ValueError(f"the label values {twice} are given twice")
        largest = LARGEST_VALUE[self.layout.encoding]
        if values and max(values) > largest:
            raise ValueError(f"the label value {max(values)} is larger than {largest}, the most that such labels hold")
        names = [entry.name for entry in self.classes]
        if len(set(names)) < len(names):
            raise ValueError("two classes have the same name")
        grouped = [name for members in self.categories.values() for name in members]
        if self.categories and sorted(grouped) != sorted(names):
            raise ValueError("categories must name every class once")
        layout = [*self.layout.split_names, *self.layout.ids] if isinstance(self.layout, FolderLayout) else []
        for split in (self.train_split, self.evaluation_split, *self.class_pixels, *self.other_counts, *layout):
            if split not in self.splits:
                raise ValueError(f"there is no split {split!r}; splits are {', '.join(self.splits)}")
        for split, counts in self.class_pixels.items():
            if len(counts) != len(names) + 1:
                raise ValueError(f"class_pixels.{split} has {len(counts)} numbers, not one a class and one for ignored")
        return self


def read_specs(path: Path) -> tuple[Spec, ...]:
    """One Spec for each layout of a data set's YAML, in its order. Raises UserError naming file and key."""
    content = _content(path, ())
    ignored_classes = content.pop("ignored_classes", [])
    if not isinstance(ignored_classes, list):
        raise UserError(f"{path}: ignored_classes must be a list of classes' names")
    layouts = content.pop("layouts", None)
    if (layouts is None) == ("layout" not in content):
        raise UserError(f"{path}: give either layout, or a list of them as layouts")
    if layouts is None:
        prefix, layouts = "layout", [content.pop("layout")]
    else:
        prefix = "layouts.{}"
    if not isinstance(layouts, list) or not layouts:
        raise UserError(f"{path}: layouts must be a list with at least one entry")
    specs = []
    for number, layout in enumerate(layouts):
        one = _with_layout(path, content, layout, ignored_classes)
        specs.append(_validated(path, one, prefix.format(number)))
    if specs[0].name != path.stem:
        raise UserError(f"{path}: name is {specs[0].name!r}, but must be the file's name, {path.stem!r}")
    names = [spec.layout.name for spec in specs]
    if len(set(names)) < len(names):
        raise UserError(f"{path}: two of the layouts have the same name")
    return tuple(specs)


@lru_cache(maxsize=64)
def _parsed(text: str) -> Any:
    """`read_yaml`, cached, since checks read all data sets' files for every split. Do not modify the result."""
    return read_yaml(text)


def _content(path: Path, below: tuple[Path, ...]) -> dict[str, Any]:
    """The YAML's keys on top of its base's; `below`: the files that have this one as their base."""
    try:
        content = _parsed(path.read_text(encoding="utf-8"))
    except (OSError, *YAML_FAULTS) as error:
        raise UserError(f"{path} cannot be read as YAML: {yaml_fault(error)}") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold keys such as name, layout and classes")
    content = dict(content)
    base = content.pop("base", None)
    if base is None:
        return content
    same_folder, here = path.with_name(f"{base}.yaml"), Path(__file__).with_name(f"{base}.yaml")
    base_path = same_folder if same_folder.is_file() else here
    if not base_path.is_file() or base_path in (*below, path):
        raise UserError(f"{path}: base: {base!r} is no other data set's name")
    inherited = _content(base_path, (*below, path))
    for one, several in (("layout", "layouts"), ("layouts", "layout")):
        if one in content:
            inherited.pop(several, None)
    return inherited | content


def _with_layout(path: Path, content: dict[str, Any], layout: Any, ignored_classes: Any) -> dict[str, Any]:
    """The content for one layout, with its label values."""
    values = layout.get("values") if isinstance(layout, dict) else None

    def chosen(labels: Any, owner: str) -> Any:
        if not isinstance(labels, dict):
            return labels
        if values not in labels:
            raise UserError(f"{path}: {owner} has no label values {values!r}, which a layout names: add them")
        return labels[values]

    result = content | {"layout": layout}
    if "ignored_labels" in content:
        result["ignored_labels"] = chosen(content["ignored_labels"], "ignored_labels")
    classes = content.get("classes")
    if not isinstance(classes, list) or not all(isinstance(entry, dict) and "labels" in entry for entry in classes):
        return result  # rejected by the validation
    classes = [entry | {"labels": chosen(entry["labels"], f"the class {entry.get('name')}")} for entry in classes]
    for name in ignored_classes:
        found = [entry for entry in classes if entry.get("name") == name]
        if not found:
            raise UserError(f"{path}: ignored_classes names {name!r}, which is no class")
        classes.remove(found[0])
        result["ignored_labels"] = [*result.get("ignored_labels", []), *found[0]["labels"]]
    return result | {"classes": classes}


def _validated(path: Path, content: dict[str, Any], layout_key: str) -> Spec:
    try:
        text = json.dumps(content)
    except (TypeError, ValueError, RecursionError) as error:  # dates, and lists that contain themselves
        raise UserError(f"{path} holds what is no text, number or list ({error}): put it in quotes") from None
    try:
        return Spec.model_validate_json(text)  # JSON mode: strict, but a list may be a tuple
    except ValidationError as error:
        keys = [*Spec.model_fields, "layouts", "base", "ignored_classes"]
        raise UserError(f"{path}: {problems(error, Spec, keys, {'layout': layout_key})[0]}") from None
