"""A data set: its descriptions and its files under a root."""

import hashlib
import json
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.datasets import as_is
from harness.datasets.readers import LARGEST_VALUE, FolderLayout, Listing, ListLayout, Sample
from harness.datasets.sizes import Sizes
from harness.datasets.spec import IGNORE_INDEX, Spec
from harness.errors import UserError, unknown

__all__ = ["IGNORE_INDEX", "Dataset", "Spec", "description_state", "files_state", "no_root", "ranges"]

REFUSED = 254  # marks label values that are not allowed


class Dataset:
    """A data set under a root folder.

    classes, colors  in order of train id; colours are RGB
    splits           the expected number of images per split
    class_pixels     the published number of pixels of each class and, last, of ignored pixels, per split
    categories       {group of classes: their train ids}
    specs            the data set's descriptions, one for each layout with its label values
    spec             the one whose layout is under the root; if there are several, the most complete

    If the root has an as_is.json (as_is.py), it determines `splits` and `sizes`, `class_pixels` is empty, and `remark`
    and the title say that this is not the published set.
    """

    ignore_index = IGNORE_INDEX

    def __init__(self, specs: Spec | Sequence[Spec], root: Path | None = None) -> None:
        self.specs = (specs,) if isinstance(specs, Spec) else tuple(specs)
        spec = self.specs[0]
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
        self.categories = {
            name: [self.classes.index(member) for member in members] for name, members in spec.categories.items()
        }
        self._other_counts = dict(spec.other_counts)
        self.sizes = Sizes.of(spec.size) if spec.size else None
        self.remark = ""
        self._found: Spec | None = None
        self._holds = False  # whether the layout was found under the root
        self._fault: UserError | None = None
        try:
            declared = as_is.read(root, self.splits) if root is not None else None
        except UserError as error:  # raised by `folder`
            self._fault, declared = error, None
        if declared is not None:
            self.splits, self.remark = declared.splits, declared.remark
            self.sizes = declared.sizes or self.sizes
            self.title, self.class_pixels, self._other_counts = f"{spec.title} ({self.remark})", {}, {}

    @property
    def num_classes(self) -> int:
        """The number of classes, without "ignored"."""
        return len(self.classes)

    @property
    def spec(self) -> Spec:
        """The description whose layout is under the root, or the first if none is."""
        return self._found_spec() or self.specs[0]

    def found_layout(self) -> ListLayout | FolderLayout | None:
        """The layout that is found under the root, or None."""
        with suppress(OSError):  # reported by `folder`
            spec = self._found_spec()
            if spec is not None and self.root is not None and spec.layout.found(self.root, self.splits):
                return spec.layout
        return None

    def accepted_counts(self, split: str) -> tuple[int, ...]:
        """The numbers of images that a complete split may have, the usual one first."""
        return (self.splits[split], *self._other_counts.get(split, ()))

    def folder(self) -> Path:
        """The root folder. Raises UserError if it is not given, does not exist or does not contain the data set."""
        if self.root is None:
            raise no_root(self.name, self.root_variable)
        if self._fault is not None:
            raise self._fault
        if not self.root.is_dir():
            where = f"set {self.root_variable} or roots.{self.name} to the right one, or pass --root DIR"
            raise UserError(f"the root {self.root} of the data set {self.name} is no folder: {where}")
        if not os.access(self.root, os.R_OK | os.X_OK):
            raise UserError(f"the root {self.root} cannot be read: make it readable, or pass another --root DIR")
        try:
            spec = self._found_spec()
            self._holds = self._holds or (spec is not None and spec.layout.found(self.root, self.splits))
        except PermissionError as error:
            raise UserError(f"{error.filename} cannot be read: make it readable, or pass another --root DIR") from None
        if not self._holds:
            from harness.datasets.nearest import nearest_layout

            raise UserError(f"the root {self.root} does not hold {self.title}: {nearest_layout(self.specs, self.root)}")
        return self.root

    def check_split(self, split: str) -> None:
        """Raise UserError if there is no such split."""
        if split not in self.splits:
            raise unknown(f"split of {self.name}", split, self.splits)

    def samples(self, split: str) -> list[Sample]:
        """The samples of a split, in the order of its list or, without a list, of their names.

        Raises UserError for an unknown split, a missing root or list, an empty split, or the first faulty pair.
        """
        self.check_split(split)
        listing = self.listing(split)
        if not listing.samples and not listing.problems:
            raise UserError(f"{self.title} in {self.root}: the list of the split {split} names no image")
        if listing.problems:
            others = len(listing.problems) - 1
            more = f" (and {others} more problem{'s' if others > 1 else ''})" if others else ""
            raise UserError(f"{self.title} in {self.root}: {listing.problems[0]}{more}")
        return listing.samples

    def listing(self, split: str) -> Listing:
        """The samples and problems of a split; with an as_is.json, missing files are not a problem.

        Raises UserError for a missing root, and for a list that is missing or cannot be read.
        """
        root = self.folder()
        if self.remark and not self.splits[split]:
            return Listing([], [])
        found = self.spec.layout.scan(root, split)
        if self.remark:
            return Listing(found.samples, [problem for problem in found.problems if problem not in found.absent])
        return found

    def read(self, sample: Sample) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The image uint8 [H, W, 3] RGB and the label uint8 [H, W], train ids and 255 for ignored pixels.

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
        """The label uint8 [H, W], train ids and 255 for ignored pixels. Raises UserError as `read` does."""
        import cv2

        from harness.datasets import images

        layout = self.spec.layout
        stored: NDArray[np.integer]
        if layout.encoding == "mat":
            stored = images.read_mat_label(sample.label_path, layout.field or "")
        elif layout.encoding == "colors":
            stored = images.read_color_label(sample.label_path)
        else:
            stored = images.read_label(sample.label_path)
        # For 8-bit values cv2.LUT is several times faster than indexing.
        mapped = cv2.LUT(stored, self._table) if stored.dtype == np.uint8 else self._table[stored]
        train_ids = np.asarray(mapped, dtype=np.uint8)
        refused = train_ids == REFUSED
        if refused.any():
            raise UserError(f"{sample.label_path} {self._wrong_value(int(stored[refused].min()))}")
        return train_ids

    def cluster(self, sample_id: str) -> str:
        """The cluster (video, city) of a sample: the part of its id that the pattern `clusters` matches.

        Images of a cluster are not independent. Without a pattern each image is its own cluster. Raises UserError for
        an id without a match, whose intervals would be too narrow as those of independent images.
        """
        if not self.clusters:
            return sample_id
        found = re.match(self.clusters, sample_id)
        if not found or not found.group():
            pattern = f"clusters of the data set {self.name}, {self.clusters!r},"
            raise UserError(f"{pattern} matches nothing at the start of the image's id {sample_id!r}: correct it")
        return found.group()

    def fingerprint(self, splits: Sequence[str] | None = None) -> str:
        """sha256 over the data in `splits` (default: all): names, image file sizes, and the labels' bytes and meaning.

        It is the same for every copy of the data.
        """
        digest = hashlib.sha256(json.dumps(self._meaning(), sort_keys=True).encode())
        base = self.spec.layout.base(self.folder())
        for split in sorted(splits or self.splits):
            if self.remark and not self.splits[split]:
                continue
            for sample in sorted(self.samples(split), key=lambda sample: sample.id):
                image, label = (path.relative_to(base).as_posix() for path in (sample.image_path, sample.label_path))
                label_hash = hashlib.sha256(sample.label_path.read_bytes()).hexdigest()
                line = [split, image, sample.image_path.stat().st_size, label, label_hash]
                digest.update(json.dumps(line).encode())
        return digest.hexdigest()

    def _meaning(self) -> dict[str, Any]:
        """The meaning of the label values, and the layout's name if the data set has several."""
        classes = [[entry.name, sorted(entry.labels)] for entry in self.spec.classes]
        meaning: dict[str, Any] = {"classes": classes, "ignored": sorted(self.spec.ignored_labels)}
        if self.spec.layout.name:
            meaning["layout"] = self.spec.layout.name
        return meaning

    @cached_property
    def _table(self) -> NDArray[np.uint8]:
        """The train id of every possible label value: 255 for ignored values, REFUSED for invalid ones."""
        train_ids = np.full(LARGEST_VALUE[self.spec.layout.encoding] + 1, REFUSED, np.uint8)
        for train_id, entry in enumerate(self.spec.classes):
            train_ids[list(entry.labels)] = train_id
        train_ids[list(self.spec.ignored_labels)] = IGNORE_INDEX
        return train_ids

    def _wrong_value(self, value: int) -> str:
        allowed = np.flatnonzero(self._table != REFUSED).tolist()
        if self.spec.layout.encoding == "colors":
            return f"has the colour {_rgb(value)}, which is none of the {len(allowed)} colours of {self.title}"
        return f"has the value {value}, but labels may hold {ranges(allowed)}"

    def _found_spec(self) -> Spec | None:
        """The description whose layout is under the root; if there is only one, it is taken without a check.

        If several layouts are there, the most complete wins: somebody may have converted the labels of one split only.
        """
        if len(self.specs) == 1:
            return self.specs[0]
        if self._found is None and (root := self.root) is not None:
            found = [spec for spec in self.specs if spec.layout.found(root, self.splits)]
            if len(found) > 1:
                found.sort(key=lambda spec: -spec.layout.labels_there(root, self.splits))  # stable: ties keep the order
            self._found = found[0] if found else None
        return self._found


def description_state(dataset: Dataset) -> str:
    """sha256 over the data set's YAML, as_is.json and folder."""
    described = [str(dataset.folder().resolve()), dataset.spec.model_dump_json(), dataset.splits, dataset.remark]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def files_state(samples: Sequence[Sample]) -> str:
    """sha256 over the ids, paths, sizes and modification times of the samples' files, without reading them."""
    digest = hashlib.sha256()
    for sample in samples:
        line: list[str | int] = [sample.id]
        for path in (sample.image_path, sample.label_path):
            stat = path.stat()
            line += [str(path), stat.st_size, stat.st_mtime_ns]
        digest.update(json.dumps(line).encode())
    return digest.hexdigest()


def no_root(name: str, variable: str) -> UserError:
    """The error for a data set without a root."""
    return UserError(
        f"the data set {name} has no root: set {variable}, or roots.{name} in the experiment, or pass --root DIR"
    )


def ranges(values: Sequence[int]) -> str:
    """Ascending integers as ranges: [0, 1, 2, 255] is "0..2, 255"."""
    parts: list[list[int]] = []
    for value in values:
        if parts and parts[-1][-1] == value - 1:
            parts[-1] = [parts[-1][0], value]
        else:
            parts.append([value])
    return ", ".join("..".join(map(str, part)) for part in parts)


def _rgb(value: int) -> tuple[int, int, int]:
    return value >> 16, value >> 8 & 255, value & 255
