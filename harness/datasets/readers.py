"""Layouts: how a data set's files are arranged on disk."""

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
    """A labelled image. `id` is the varying part of the image's file name, unique in the data set."""

    image_path: Path
    label_path: Path
    id: str


@dataclass(frozen=True)
class Listing:
    """The samples of a split in order, and `problems`, one sentence each.

    absent: the problems about missing images and labels, which are accepted in a root with an as_is.json.
    """

    samples: list[Sample]
    problems: list[str]
    absent: frozenset[str] = frozenset()


class _Layout(BaseModel):
    """Keys of all layouts.

    name: of this layout, if the data set has several. inside: the folder inside the archive; the root may be this
    folder or any above it. below: a subfolder that may also be given as the root. remark: a warning that `verify`
    prints. encoding: of label files: "ids" (PNG of 8-bit values), "colors" (RGB PNG) or "mat" (MATLAB file with the
    label map in `field`). values: the name of this layout's label values, if classes list several.
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
            raise ValueError("field must be given for encoding mat, and only for it")
        return self

    def base(self, root: Path) -> Path:
        """The folder that the layout's paths are relative to."""
        parts = PurePosixPath(self.inside).parts
        inside = (root.joinpath(*parts[skipped:]) for skipped in range(len(parts)))
        base = next((folder for folder in inside if folder.is_dir()), root)
        return base.absolute().parent if self.below and base.absolute().name == self.below else base


class ListLayout(_Layout):
    """One text file per split, with a line "image label" for every sample (CamVid as SegNet distributes it).

    A path that does not exist under the root is reduced to its last two parts: /SegNet/CamVid/train/NAME.png becomes
    train/NAME.png. An image may have another suffix than in the list, since converted copies are common.
    """

    kind: Literal["list"]
    lists: str = "{split}.txt"

    def found(self, root: Path, splits: Iterable[str]) -> bool:
        """Whether the list of any split exists."""
        return any((self.base(root) / self.lists.format(split=split)).is_file() for split in splits)

    def labels_there(self, root: Path, splits: Mapping[str, int]) -> int:
        """The number of labels in those of the `splits` {name: images} whose list exists."""
        return sum(splits[split] for split in splits if self.found(root, [split]))

    def parts(self, split: str) -> list[str]:
        """Patterns, relative to `base`, of the files that a split needs."""
        return [self.lists.format(split=split)]

    def scan(self, root: Path, split: str) -> Listing:
        """The samples in the split's list. Raises UserError if the list is missing or cannot be read."""
        base, name = self.base(root), self.lists.format(split=split)
        found = _Found(name)
        for number, words in _lines(base / name):
            if len(words) != 2:
                found.problems.append(f'{name} line {number} has {len(words)} words, but "image label" has 2')
                continue
            image, label = _listed_file(base, words[0], IMAGE_SUFFIXES), _listed_file(base, words[1], ())
            for kind, path, listed in (("image", image, words[0]), ("label", label, words[1])):
                if path is None:
                    found.miss(f"{name} line {number} names the {kind} {listed}, which does not exist")
            if image is None or label is None:
                continue
            if not label.stem.startswith(image.stem):
                pair = f"{image.name} with another image's label, {label.name}"
                found.problems.append(f"{name} line {number} pairs {pair}")
            else:
                found.add(number, Sample(image, label, image.stem))
        return found.listing()


class FolderLayout(_Layout):
    """Images and labels in folders, paired by their ids.

    images, labels: patterns such as "leftImg8bit/{split}/{folder}/{id}_leftImg8bit.png"; {folder} is any one folder,
        the same for image and label. An image may have another suffix (.png, .jpg or .jpeg).
    lists: pattern of text files with one id per line; without them a split has all files in its folders.
    split_names: folders of splits, if they differ from the splits' names.
    ids: first and last id of each range of ids in a split, if all splits share a folder without lists.
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
                raise ValueError(f"{key}: {pattern!r} cannot hold {{folder}}, since lists name the ids")
        return self

    def found(self, root: Path, splits: Iterable[str]) -> bool:
        """Whether any split has an image, a label and, if the layout has lists, its list."""
        base = self.base(root)
        for split in splits:
            listed = self.lists is None or (base / self._of(self.lists, split)).is_file()
            label, image = self._of(self.labels, split), PurePosixPath(self._of(self.images, split))
            images = [str(image.with_suffix(suffix)) for suffix in (image.suffix, *IMAGE_SUFFIXES)]
            if listed and _any(base, [label]) and _any(base, images):
                return True
        return False

    def labels_there(self, root: Path, splits: Mapping[str, int]) -> int:
        """The number of labels of the `splits` {name: images} that exist."""
        base = self.base(root)
        return sum(min(sum(1 for _ in files(base, self._of(self.labels, split))), splits[split]) for split in splits)

    def parts(self, split: str) -> list[str]:
        """Glob patterns, relative to `base`, of the images, labels and list of a split."""
        lists = [self.lists] if self.lists else []
        return [_stars(self._of(pattern, split)) for pattern in (self.images, self.labels, *lists)]

    def scan(self, root: Path, split: str) -> Listing:
        """The split's pairs of images and labels. Raises UserError if its list is missing or cannot be read."""
        base = self.base(root)
        return self._paired(base, split) if self.lists is None else self._listed(base, split, self.lists)

    def _listed(self, base: Path, split: str, lists: str) -> Listing:
        name = self._of(lists, split)
        found = _Found(name)
        for number, words in _lines(base / name):
            key = words[0]
            if len(words) != 1 or "/" in key:
                found.problems.append(f"{name} line {number} holds {' '.join(words)!r}, but must hold one id")
                continue
            paths = [self._of(pattern, split).replace("{id}", key) for pattern in (self.images, self.labels)]
            image, label = _existing(base / paths[0], IMAGE_SUFFIXES), _existing(base / paths[1], ())
            for kind, path, wanted in zip(("image", "label"), (image, label), paths, strict=True):
                if path is None:
                    found.miss(f"{name} line {number} names {key}, but there is no {kind} {wanted}")
            if image and label:
                found.add(number, Sample(image, label, key))
        if not found.samples and not found.problems:
            found.problems.append(f"{name} names no image: the split is empty")
        return found.listing()

    def _paired(self, base: Path, split: str) -> Listing:
        labels = self._matching(base, self.labels, split, ())
        images = self._matching(base, self.images, split, IMAGE_SUFFIXES)
        label_paths = set(labels.values())  # in one folder, a_label.png is the label of a.png, not an image
        images = {key: path for key, path in images.items() if path not in label_paths}
        for kind, found, pattern in (("image", images, self.images), ("label", labels, self.labels)):
            if not found:
                wanted = f"{_stars(self._of(pattern, split))}{' with an id in layout.ids' if self.ids else ''}"
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
        """{(folder, id): path} of a split's files that match the pattern or, if none does, it with another suffix."""
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


class _Found:
    """Collects the samples and problems of the list `name`."""

    def __init__(self, name: str) -> None:
        self.name, self.samples, self.problems, self.absent = name, list[Sample](), list[str](), set[str]()
        self._lines: dict[str, int] = {}

    def miss(self, problem: str) -> None:
        """Add a problem about a missing file."""
        self.absent.add(problem)
        self.problems.append(problem)

    def add(self, number: int, sample: Sample) -> None:
        """Add the sample in a line, or a problem if an earlier line has it too."""
        if (first := self._lines.setdefault(sample.id, number)) == number:
            self.samples.append(sample)
        else:
            self.problems.append(f"{self.name} names {sample.id} twice, in the lines {first} and {number}")

    def listing(self) -> Listing:
        return Listing(self.samples, self.problems, frozenset(self.absent))


def _is_companion(folder: str, key: str, images: Mapping[tuple[str, str], Path]) -> bool:
    """Whether a file next to the labels is not a label itself, such as a_instanceTrainIds.png for an image a."""
    ends = (place for place, letter in enumerate(key) if letter == "_")
    return any((folder, key[:end]) in images for end in ends)


def files(base: Path, pattern: str) -> Iterator[Path]:
    """The files that match a pattern, with the suffix in upper or lower case."""
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
    """Number (from 1) and words of every line that is not blank."""
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
    r"""The file under `root` for the path `listed` in a list (possibly a Windows path, train\\a.png), or None."""
    parts = PurePosixPath(listed.replace("\\", "/"))
    if not parts.name:
        return None
    candidates = [root / parts.parent.name / parts.name]
    if not parts.is_absolute() and ".." not in parts.parts:
        candidates.insert(0, root / parts)
    return next((found for path in candidates if (found := _existing(path, other_suffixes))), None)


def _existing(path: Path, other_suffixes: tuple[str, ...]) -> Path | None:
    """The file `path`, or the one with another suffix, or None."""
    suffixes = [path.suffix, *other_suffixes]
    for suffix in [*suffixes, *(each.swapcase() for each in suffixes)]:
        other = path.with_suffix(suffix)
        with suppress(OSError):  # a name that is too long for the file system
            if other.is_file():
                return other
    return None
