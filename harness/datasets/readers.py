"""Layouts: how a data set's files lie on disk. Each is shared by all data sets that are stored alike."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import BaseModel, ConfigDict

from harness.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Sample:
    """One labelled image. `id` is the image's file name without its suffix, unique in the data set."""

    image_path: Path
    label_path: Path
    id: str


@dataclass(frozen=True)
class Listing:
    """What a layout found for a split: `samples` in the list's order, and `problems`, one sentence each."""

    samples: list[Sample]
    problems: list[str]


class ListLayout(BaseModel):
    """One text file a split, with a line "image label" for every sample (CamVid as SegNet distributes it).

    Lists that were written on another machine are taken: of an absolute path, or of one that does not exist under the
    root, the last two parts count (/SegNet/CamVid/train/NAME.png is train/NAME.png). An image may have another suffix
    than the list says (.png, .jpg or .jpeg), since converted copies are common.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    kind: Literal["list"]
    lists: str = "{split}.txt"

    def scan(self, root: Path, split: str) -> Listing:
        """Read the split's list. Raises UserError if it is missing or cannot be read."""
        name = self.lists.format(split=split)
        samples: list[Sample] = []
        problems: list[str] = []
        lines_of: dict[str, int] = {}
        for number, fields in _lines(root / name):
            if len(fields) != 2:
                problems.append(f'{name} line {number} has {len(fields)} words, but "image label" has 2')
                continue
            image = _find(root, fields[0], IMAGE_SUFFIXES)
            label = _find(root, fields[1], ())
            for kind, path, listed in (("image", image, fields[0]), ("label", label, fields[1])):
                if path is None:
                    problems.append(f"{name} line {number} names the {kind} {listed}, which does not exist")
            if image is None or label is None:
                continue
            first = lines_of.setdefault(image.stem, number)
            if first != number:
                problems.append(f"{name} names {image.stem} twice, in the lines {first} and {number}")
            elif not label.stem.startswith(image.stem):
                problems.append(f"{name} line {number} pairs {image.name} with another image's label, {label.name}")
            else:
                samples.append(Sample(image, label, image.stem))
        return Listing(samples, problems)


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


def _find(root: Path, listed: str, other_suffixes: tuple[str, ...]) -> Path | None:
    """The file under `root` that a list means by `listed`, or None."""
    parts = PurePosixPath(listed)
    if not parts.name:
        return None
    candidates = [root / parts.parent.name / parts.name]
    if not parts.is_absolute() and ".." not in parts.parts:
        candidates.insert(0, root / parts)
    for candidate in candidates:
        for suffix in (candidate.suffix, *other_suffixes):
            path = candidate.with_suffix(suffix)
            with suppress(OSError):  # a name that is too long for the file system
                if path.is_file():
                    return path
    return None
