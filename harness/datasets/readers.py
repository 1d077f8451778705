"""Layouts: how a data set's files lie on disk. Each is shared by all data sets that are stored alike."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from harness.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")  # in any case: .JPG too
Encoding = Literal["ids", "colors", "mat"]
LARGEST_VALUE = {"ids": 255, "colors": 0xFFFFFF, "mat": 65535}


@dataclass(frozen=True)
class Sample:
    """One labelled image. `id` is the image's file name without what all of them end with, unique in the data set."""

    image_path: Path
    label_path: Path
    id: str


@dataclass(frozen=True)
class Listing:
    """What a layout found for a split: `samples` in order, and `problems`, one sentence each.

    absent: those of the problems that say that an image, a label or both are not there. They are none where the owner
    means what is there (declared.py).
    """

    samples: list[Sample]
    problems: list[str]
    absent: frozenset[str] = frozenset()


class _Layout(BaseModel):
    """What all layouts say.

    name: what this layout is called where it is reported, if there are others.
    inside: the folder that the archive unpacks to; the root may be this folder, or any that leads to it.
    below: a folder of the layout that may be named as the root too: all then lies in the folder above it.
    remark: what to know about data in this layout, which `verify` says.
    encoding: what label files are: "ids" (PNG of 8-bit values), "colors" (RGB PNG) or "mat" (MATLAB file whose `field`
        is the label map).
    values: which of the label values are stored, where classes list several.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    name: str = ""
    inside: str = ""
    below: str = ""
    remark: str = ""
    encoding: Encoding = "ids"
    field: str | None = None
    values: str | None = None

    @model_validator(mode="after")
    def _field_belongs_to_mat(self) -> "_Layout":
        if (self.encoding == "mat") != (self.field is not None):
            raise ValueError("field is given for encoding mat, and for no other")
        return self

    def base(self, root: Path) -> Path:
        """The folder that all paths of the layout start from."""
        parts = PurePosixPath(self.inside).parts
        inside = (root.joinpath(*parts[skipped:]) for skipped in range(len(parts)))
        base = next((folder for folder in inside if folder.is_dir()), root)
        return base.absolute().parent if self.below and base.absolute().name == self.below else base


class ListLayout(_Layout):
    """One text file a split, with a line "image label" for every sample (CamVid as SegNet distributes it).

    Lists that were written on another machine are taken: of an absolute path, or of one that does not exist under the
    root, the last two parts count (/SegNet/CamVid/train/NAME.png is train/NAME.png). An image may have another suffix
    than the list says (.png, .jpg or .jpeg), since converted copies are common.
    """

    kind: Literal["list"]
    lists: str = "{split}.txt"

    def found(self, root: Path, splits: Iterable[str]) -> bool:
        """Whether the list of one of the splits is there."""
        return any((self.base(root) / self.lists.format(split=split)).is_file() for split in splits)

    def labels_there(self, root: Path, splits: Mapping[str, int]) -> int:
        """How many labels of `splits` (with the number of each) there are, as far as the lists say."""
        return sum(splits[split] for split in splits if self.found(root, [split]))

    def parts(self, split: str) -> list[str]:
        """Patterns of the files that a split needs, relative to `base`."""
        return [self.lists.format(split=split)]

    def scan(self, root: Path, split: str) -> Listing:
        """Read the split's list. Raises UserError if it is missing or cannot be read."""
        base, name = self.base(root), self.lists.format(split=split)
        samples: list[Sample] = []
        problems: list[str] = []
        absent: set[str] = set()
        lines_of: dict[str, int] = {}
        for number, fields in _lines(base / name):
            if len(fields) != 2:
                problems.append(f'{name} line {number} has {len(fields)} words, but "image label" has 2')
                continue
            image = _listed_file(base, fields[0], IMAGE_SUFFIXES)
            label = _listed_file(base, fields[1], ())
            for kind, path, listed in (("image", image, fields[0]), ("label", label, fields[1])):
                if path is None:
                    absent.add(missing := f"{name} line {number} names the {kind} {listed}, which does not exist")
                    problems.append(missing)
            if image is None or label is None:
                continue
            first = lines_of.setdefault(image.stem, number)
            if first != number:
                problems.append(f"{name} names {image.stem} twice, in the lines {first} and {number}")
            elif not label.stem.startswith(image.stem):
                problems.append(f"{name} line {number} pairs {image.name} with another image's label, {label.name}")
            else:
                samples.append(Sample(image, label, image.stem))
        return Listing(samples, problems, frozenset(absent))


class FolderLayout(_Layout):
    """Images and labels in folders, paired by their ids (Cityscapes, PASCAL-Context, COCO-Stuff, ADE20K, CamVid).

    images, labels: patterns such as "leftImg8bit/{split}/{folder}/{id}_leftImg8bit.png". {split} is the split's folder,
        {folder} any one folder, the same for image and label, {id} the sample's id. An image may have another suffix
        than its pattern (.png, .jpg or .jpeg), since converted copies are common.
    lists: pattern of text files with one id a line that say what a split holds; without them it holds what there is.
    split_names: what splits are called on disk, where this is not their name.
    ids: where all splits share a folder and there are no lists, the runs of ids that make up a split: first and last
        id in alphabetical order.
    """

    kind: Literal["folders"]
    images: str
    labels: str
    lists: str | None = None
    split_names: dict[str, str] = {}
    ids: dict[str, tuple[tuple[str, str], ...]] = {}

    @model_validator(mode="after")
    def _patterns_fit(self) -> "FolderLayout":
        for key, pattern in (("images", self.images), ("labels", self.labels)):
            if PurePosixPath(pattern).name.count("{id}") != 1 or pattern.count("{id}") != 1:
                raise ValueError(f"{key}: the file's name in {pattern!r} must hold {{id}} once")
            if self.lists and "{folder}" in pattern:
                raise ValueError(f"{key}: {pattern!r} cannot hold {{folder}} where lists name the ids")
        return self

    def found(self, root: Path, splits: Iterable[str]) -> bool:
        """Whether an image and a label of one of the splits are there and, if the layout has lists, its list."""
        base = self.base(root)
        for split in splits:
            listed = self.lists is None or (base / self._of(self.lists, split)).is_file()
            label, image = self._of(self.labels, split), PurePosixPath(self._of(self.images, split))
            images = [str(image.with_suffix(suffix)) for suffix in (image.suffix, *IMAGE_SUFFIXES)]
            if listed and _any(base, [label]) and _any(base, images):
                return True
        return False

    def labels_there(self, root: Path, splits: Mapping[str, int]) -> int:
        """How many labels of `splits` (with the number of each) there are, at most these numbers."""
        base = self.base(root)
        return sum(min(sum(1 for _ in files(base, self._of(self.labels, split))), splits[split]) for split in splits)

    def parts(self, split: str) -> list[str]:
        """Patterns of the files that a split needs, relative to `base`: image, label and, if there are lists, its list.

        A star stands for the id and for any one folder.
        """
        lists = [self.lists] if self.lists else []
        return [_stars(self._of(pattern, split)) for pattern in (self.images, self.labels, *lists)]

    def scan(self, root: Path, split: str) -> Listing:
        """Pair the split's images and labels. Raises UserError if the split's list is missing or cannot be read."""
        base = self.base(root)
        return self._paired(base, split) if self.lists is None else self._listed(base, split, self.lists)

    def _listed(self, base: Path, split: str, lists: str) -> Listing:
        name = self._of(lists, split)
        samples: list[Sample] = []
        problems: list[str] = []
        absent: set[str] = set()
        lines_of: dict[str, int] = {}
        for number, words in _lines(base / name):
            key = words[0]
            if len(words) != 1 or "/" in key:
                problems.append(f"{name} line {number} holds {' '.join(words)!r}, but must hold one id")
                continue
            paths = [self._of(pattern, split).replace("{id}", key) for pattern in (self.images, self.labels)]
            image, label = _existing(base / paths[0], IMAGE_SUFFIXES), _existing(base / paths[1], ())
            for kind, path, wanted in zip(("image", "label"), (image, label), paths, strict=True):
                if path is None:
                    absent.add(missing := f"{name} line {number} names {key}, but there is no {kind} {wanted}")
                    problems.append(missing)
            first = lines_of.setdefault(key, number)
            if first != number:
                problems.append(f"{name} names {key} twice, in the lines {first} and {number}")
            elif image and label:
                samples.append(Sample(image, label, key))
        if not lines_of and not problems:
            problems.append(f"{name} names no image: the split is empty")
        return Listing(samples, problems, frozenset(absent))

    def _paired(self, base: Path, split: str) -> Listing:
        labels = self._matching(base, self.labels, split, ())
        images = self._matching(base, self.images, split, IMAGE_SUFFIXES)
        label_paths = set(labels.values())  # in one folder, a_label.png is the label of a.png and no image
        images = {key: path for key, path in images.items() if path not in label_paths}
        for kind, found, pattern in (("image", images, self.images), ("label", labels, self.labels)):
            if not found:
                wanted = _stars(self._of(pattern, split))
                return Listing([], [f"there is no {kind} {wanted}: the split is empty, or this is not the root"])
        problems, absent = [], []
        for (folder, key), path in images.items():
            if (folder, key) not in labels:
                wanted = self._of(self.labels, split).replace("{folder}", folder).replace("{id}", key)
                absent.append(f"{_below(base, path)} has no label {wanted}")
        for folder, key in labels.keys() - images.keys():
            if not _is_companion(folder, key, images):
                absent.append(f"{_below(base, labels[folder, key])} has no image")
        samples: dict[str, Sample] = {}
        for folder, key in sorted(images.keys() & labels.keys()):
            sample = Sample(images[folder, key], labels[folder, key], key)
            if samples.setdefault(key, sample) is not sample:
                problems.append(f"{_below(base, sample.image_path)} has the name of another image: ids must differ")
        return Listing(list(samples.values()), sorted(problems + absent), frozenset(absent))

    def _matching(
        self, base: Path, pattern: str, split: str, other_suffixes: tuple[str, ...]
    ) -> dict[tuple[str, str], Path]:
        """The files of a split that match a pattern, by folder and id; if there are none, those of another suffix."""
        of_split = PurePosixPath(self._of(pattern, split))
        for suffix in (of_split.suffix, *other_suffixes):
            name = str(of_split.with_suffix(suffix))
            expression = re.escape(name.removesuffix(suffix)).replace(r"\{folder\}", "(?P<folder>[^/]+)")
            expression = expression.replace(r"\{id\}", "(?P<id>[^/.][^/]*)")  # no hidden files
            expression += f"(?i:{re.escape(suffix)})"
            matches: dict[tuple[str, str], Path] = {}
            for path in files(base, name):
                found = re.fullmatch(expression, _below(base, path))
                if found and self._belongs(split, found["id"]):
                    matches[found.groupdict().get("folder", ""), found["id"]] = path
            if matches:
                break
        return matches

    def _of(self, pattern: str, split: str) -> str:
        return pattern.replace("{split}", self.split_names.get(split, split))

    def _belongs(self, split: str, key: str) -> bool:
        return not self.ids or any(first <= key <= last for first, last in self.ids.get(split, ()))


def _is_companion(folder: str, key: str, images: Mapping[tuple[str, str], Path]) -> bool:
    """Whether a file is no label but lies beside one: a_instanceTrainIds.png beside a.png, where a is an image."""
    ends = (place for place, letter in enumerate(key) if letter == "_")
    return any((folder, key[:end]) in images for end in ends)


def files(base: Path, pattern: str) -> Iterator[Path]:
    """The files that match a pattern, whose suffix may be in any case."""
    stem, suffix = str(PurePosixPath(pattern).with_suffix("")), PurePosixPath(pattern).suffix
    spelled = "".join(f"[{c.lower()}{c.upper()}]" if c.isalpha() else c for c in suffix)
    return base.glob(_stars(stem) + spelled)


def _stars(pattern: str) -> str:
    return re.sub(r"\{(?:id|folder)\}", "*", pattern)


def _any(base: Path, patterns: list[str]) -> bool:
    return any(True for pattern in patterns for _ in files(base, pattern))


def _below(base: Path, path: Path) -> str:
    return path.relative_to(base).as_posix()


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The words of every line that is not blank, with the line's number from 1."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"the list {path} does not exist: check that --root names the folder that holds it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the list {path} cannot be read ({error}): replace it by a text file") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if words := line.split():
            yield number, words


def _listed_file(root: Path, listed: str, other_suffixes: tuple[str, ...]) -> Path | None:
    r"""The file under `root` that a list means by `listed` (perhaps written on Windows, as train\\a.png), or None."""
    parts = PurePosixPath(listed.replace("\\", "/"))
    if not parts.name:
        return None
    candidates = [root / parts.parent.name / parts.name]
    if not parts.is_absolute() and ".." not in parts.parts:
        candidates.insert(0, root / parts)
    return next((found for path in candidates if (found := _existing(path, other_suffixes))), None)


def _existing(path: Path, other_suffixes: tuple[str, ...]) -> Path | None:
    """The file `path`, or else the one of its name with another suffix, or None."""
    suffixes = [path.suffix, *other_suffixes]
    for suffix in [*suffixes, *(each.swapcase() for each in suffixes)]:
        other = path.with_suffix(suffix)
        with suppress(OSError):  # a name that is too long for the file system
            if other.is_file():
                return other
    return None
