"""A data set: its YAML, validated, and its files under a root."""

import hashlib
import json
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from harness.datasets.readers import ListLayout, Sample
from harness.discovery import unknown
from harness.errors import UserError

IGNORE_INDEX = 255

Channel = Annotated[int, Field(ge=0, le=255)]
Value = Annotated[int, Field(ge=0, le=255)]
Count = Annotated[int, Field(ge=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class ClassEntry(_Strict):
    """A class. Its train id is its place in the list; `labels` are the values that stand for it in label files."""

    name: str
    color: tuple[Channel, Channel, Channel]
    labels: tuple[Value, ...] = Field(min_length=1)


class Generator(_Strict):
    """Settings of a data set that is rendered and not read from a download."""

    seed: Count
    height: int = Field(ge=16)
    width: int = Field(ge=16)


class Spec(_Strict):
    """The content of a data set's YAML."""

    name: str
    title: str
    licence: str
    source: str
    root_variable: str
    layout: ListLayout
    classes: tuple[ClassEntry, ...] = Field(min_length=2, max_length=IGNORE_INDEX)
    ignored_labels: tuple[Value, ...] = ()
    splits: dict[str, int] = Field(min_length=1)
    train_split: str
    evaluation_split: str
    clusters: str | None = None
    class_pixels: dict[str, tuple[Count, ...]] = {}
    generator: Generator | None = None

    @field_validator("clusters")
    @classmethod
    def _clusters_is_a_pattern(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression ({error})") from None
        return value

    @model_validator(mode="after")
    def _hangs_together(self) -> "Spec":
        values = [value for entry in self.classes for value in entry.labels] + list(self.ignored_labels)
        if twice := {value for value in values if values.count(value) > 1}:
            raise ValueError(f"the label values {sorted(twice)} are given twice")
        names = [entry.name for entry in self.classes]
        if len(set(names)) < len(names):
            raise ValueError("two classes have the same name")
        for split in (self.train_split, self.evaluation_split, *self.class_pixels):
            if split not in self.splits:
                raise ValueError(f"there is no split {split!r}; splits are {', '.join(self.splits)}")
        for split, counts in self.class_pixels.items():
            if len(counts) != len(names) + 1:
                raise ValueError(f"class_pixels.{split} has {len(counts)} numbers, not one a class and one for ignored")
        return self


def read_spec(path: Path) -> Spec:
    """Read and validate a data set's YAML. Raises UserError that names the file and the key."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        spec = Spec.model_validate_json(json.dumps(content))  # JSON mode: strict, but a list may be a tuple
    except (OSError, yaml.YAMLError, TypeError) as error:
        raise UserError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        if first["type"] == "extra_forbidden" and len(first["loc"]) == 1:
            raise unknown("key", key, Spec.model_fields, f" in {path}") from None
        raise UserError(f"{path}: {key + ': ' if key else ''}{first['msg'].removeprefix('Value error, ')}") from None
    if spec.name != path.stem:
        raise UserError(f"{path}: name is {spec.name!r}, but must be the file's name, {path.stem!r}")
    return spec


class Dataset:
    """A data set under a root folder.

    `classes` and `colors` (RGB) are in order of train id; `ignore_index` marks pixels that count nowhere; `splits`
    holds the expected number of images of each split; `class_pixels` holds the known number of pixels of each split,
    one number a class and, last, that of the ignored pixels.
    """

    ignore_index = IGNORE_INDEX

    def __init__(self, spec: Spec, root: Path | None = None) -> None:
        self.spec = spec
        self.root = root
        self.name = spec.name
        self.title = spec.title
        self.classes = tuple(entry.name for entry in spec.classes)
        self.colors = tuple(entry.color for entry in spec.classes)
        self.splits = dict(spec.splits)
        self.train_split = spec.train_split
        self.evaluation_split = spec.evaluation_split
        self.root_variable = spec.root_variable
        self.class_pixels = dict(spec.class_pixels)
        self.clusters = spec.clusters

    @property
    def num_classes(self) -> int:
        """The number of classes, ignored pixels aside."""
        return len(self.classes)

    def folder(self) -> Path:
        """The root folder. Raises UserError if it was not given or does not exist."""
        if self.root is None:
            raise no_root(self.name, self.root_variable)
        if not self.root.is_dir():
            raise UserError(f"the root {self.root} of the data set {self.name} is no folder: pass --root DIR")
        return self.root

    def check_split(self, split: str) -> None:
        """Raise UserError if there is no such split."""
        if split not in self.splits:
            raise unknown(f"split of {self.name}", split, self.splits)

    def samples(self, split: str) -> list[Sample]:
        """The samples of a split, in the order of its list.

        Raises UserError for an unknown split, a missing root or list, or the list's first wrong line.
        """
        self.check_split(split)
        listing = self.spec.layout.scan(self.folder(), split)
        if listing.problems:
            more = f" ({len(listing.problems) - 1} more such lines)" if len(listing.problems) > 1 else ""
            raise UserError(f"{self.title} in {self.root}: {listing.problems[0]}{more}")
        return listing.samples

    def read(self, sample: Sample) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read image uint8 [H, W, 3] RGB and label uint8 [H, W], train ids and 255 for ignored pixels.

        Raises UserError, with a sentence that starts with the file's path, if one of them cannot be used.
        """
        from harness.datasets.images import read_image

        image = read_image(sample.image_path)
        label = self.read_label(sample)
        if image.shape[:2] != label.shape:
            sizes = [f"{width}x{height}" for height, width in (label.shape, image.shape[:2])]
            raise UserError(f"{sample.label_path} is {sizes[0]} (width x height), but its image is {sizes[1]}")
        return image, label

    def read_label(self, sample: Sample) -> NDArray[np.uint8]:
        """Read the label uint8 [H, W], train ids and 255 for ignored pixels. Raises UserError as `read` does."""
        from harness.datasets.images import read_label

        train_ids, allowed = self._table
        stored = read_label(sample.label_path)
        present = np.bincount(stored.ravel(), minlength=256) > 0
        wrong = np.flatnonzero(present & ~allowed)
        if wrong.size:
            holds = ranges(np.flatnonzero(allowed).tolist())
            raise UserError(f"{sample.label_path} has the value {wrong[0]}, but labels may hold {holds}")
        return train_ids[stored]

    def cluster(self, sample_id: str) -> str:
        """The cluster (video, city) of a sample: images of one cluster are not independent.

        It is what the rule `clusters` matches at the start of the id; without a rule each image is its own cluster.
        """
        found = re.match(self.clusters, sample_id) if self.clusters else None
        return found.group() if found else sample_id

    def fingerprint(self, splits: Sequence[str] | None = None) -> str:
        """sha256 of the data in `splits` (default: all): names, image file sizes, and the labels' bytes and meaning.

        It is the same for every copy of the data, wherever it lies and whenever it was copied.
        """
        digest = hashlib.sha256(json.dumps(self._meaning(), sort_keys=True).encode())
        root = self.folder()
        for split in sorted(splits or self.splits):
            for sample in sorted(self.samples(split), key=lambda sample: sample.id):
                image, label = (path.relative_to(root).as_posix() for path in (sample.image_path, sample.label_path))
                label_hash = hashlib.sha256(sample.label_path.read_bytes()).hexdigest()
                line = [split, image, sample.image_path.stat().st_size, label, label_hash]
                digest.update(json.dumps(line).encode())
        return digest.hexdigest()

    def _meaning(self) -> dict[str, Any]:
        """What the label values stand for."""
        classes = [[entry.name, sorted(entry.labels)] for entry in self.spec.classes]
        return {"classes": classes, "ignored": sorted(self.spec.ignored_labels)}

    @cached_property
    def _table(self) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Train id of every stored value, and which values are allowed."""
        train_ids = np.full(256, IGNORE_INDEX, np.uint8)
        allowed = np.zeros(256, bool)
        for train_id, entry in enumerate(self.spec.classes):
            train_ids[list(entry.labels)] = train_id
            allowed[list(entry.labels)] = True
        allowed[list(self.spec.ignored_labels)] = True
        return train_ids, allowed


def no_root(name: str, variable: str) -> UserError:
    """The error for a data set whose root nobody named."""
    return UserError(
        f"the data set {name} has no root: pass --root DIR, set roots.{name} in the experiment, or set {variable}"
    )


def ranges(values: Sequence[int]) -> str:
    """Ascending integers in short: [0, 1, 2, 255] is "0..2, 255"."""
    parts: list[list[int]] = []
    for value in values:
        if parts and parts[-1][-1] == value - 1:
            parts[-1] = [parts[-1][0], value]
        else:
            parts.append([value])
    return ", ".join("..".join(map(str, part)) for part in parts)
