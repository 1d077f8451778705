"""Encodings of label maps in other programs' PNGs: train ids, the data set's own ids, or its colours.

train_ids   pixel values are train ids, 0..K-1
raw_ids     pixel values (or colours) are those of the data set's own label files (ADE20K: 1 for wall); if the files
            under the root hold train ids, those of the original label files (Cityscapes: 7 for road)
colors      pixel colours are those of the classes in the data set's colour table

A greyscale PNG has values, an RGB PNG colours, and a palette PNG both; it is read by whichever the encoding needs.
"""

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from harness.datasets.containers import PNG_COLOR_TYPES
from harness.datasets.dataset import IGNORE_INDEX, Dataset, ranges
from harness.datasets.images import opened, read_color_label, read_label

Encoding = Literal["train_ids", "raw_ids", "colors"]
ENCODINGS: tuple[Encoding, ...] = get_args(Encoding)

Labels = NDArray[np.uint8]
HEADER = 26  # bytes of a PNG up to its kind of pixels


@dataclass(frozen=True)
class Picture:
    """A decoded PNG. One of the two is None, except in a palette PNG.

    values: uint8 [H, W], the pixels of a greyscale PNG or the indices of a palette PNG.
    colors: int32, 0xRRGGBB: [H, W] for an RGB PNG, or the palette [256] of a palette PNG.
    """

    values: Labels | None
    colors: NDArray[np.int32] | None

    @property
    def shape(self) -> tuple[int, ...]:
        """Height and width in pixels."""
        pixels = self.colors if self.values is None else self.values
        assert pixels is not None
        return pixels.shape


def read_picture(path: Path) -> Picture:
    """Read a PNG: 8-bit greyscale, 8-bit RGB, or with a palette.

    Raises UserError, with a sentence that starts with the path, for any other kind and for a damaged file.
    """
    header = b""
    with suppress(OSError), path.open("rb") as file:  # errors are reported when the image is read below
        header = file.read(HEADER)
    kind = PNG_COLOR_TYPES.get(header[-1]) if len(header) == HEADER else None
    if kind == "RGB":
        return Picture(None, read_color_label(path))
    values = read_label(path)
    if kind != "palette":
        return Picture(values, None)
    with opened(path) as image:
        palette = np.array(image.getpalette("RGB"), np.int32).reshape(-1, 3)
    colors = np.zeros(256, np.int32)
    colors[: len(palette)] = palette @ (1 << 16, 1 << 8, 1)
    return Picture(values, colors)


def raw_values(dataset: Dataset) -> list[tuple[int, ...]]:
    """The values or colours (0xRRGGBB) of each class in the data set's own label files.

    They are those of the layout under the root. If these are train ids or do not fit 8 bits, they are those of the data
    set's first layout with 8-bit values that are no train ids, if there is one.
    """
    candidates = [[entry.labels for entry in spec.classes] for spec in (dataset.spec, *dataset.specs)]
    train_ids: list[tuple[int, ...]] = [(k,) for k in range(dataset.num_classes)]
    if dataset.spec.layout.encoding == "colors":
        return candidates[0]
    fitting = [each for each in candidates if max(map(max, each)) < 256 and each != train_ids]
    return fitting[0] if fitting else train_ids


class LabelTable:
    """Converts pictures to train ids of one data set."""

    def __init__(self, dataset: Dataset) -> None:
        self.name = dataset.name
        self.class_names = dataset.classes
        self._stored: dict[Encoding, list[tuple[int, ...]]] = {
            "train_ids": [(k,) for k in range(dataset.num_classes)],
            "raw_ids": raw_values(dataset),
            "colors": [(red << 16 | green << 8 | blue,) for red, green, blue in dataset.colors],
        }
        self._by_color = {"colors"} | ({"raw_ids"} if dataset.spec.layout.encoding == "colors" else set())

    def read(self, picture: Picture, encoding: Encoding) -> Labels | None:
        """Train ids uint8 [H, W], 255 for values of no class; None if the picture lacks values or colours."""
        table = self._tables[encoding]
        if encoding not in self._by_color:
            return None if picture.values is None else table[picture.values]
        if picture.colors is None:
            return None
        train_ids = table[picture.colors]
        return train_ids if picture.values is None else train_ids[picture.values]

    def fault(
        self, picture: Picture, labels: Labels | None, encoding: Encoding, valid: NDArray[np.bool_]
    ) -> str | None:
        """Why `labels` (from `read`) are no valid prediction, or None if each pixel of `valid` [H, W] has a class.

        The text continues a sentence that begins with the file's name.
        """
        if labels is None:
            return "is RGB and holds no ids" if picture.values is None else "is greyscale and holds no colours"
        wrong = valid & (labels == IGNORE_INDEX)
        if not wrong.any():
            return None
        row, column = divmod(int(wrong.argmax()), wrong.shape[1])
        where = f"on a labelled pixel (row {row}, column {column})"
        if encoding not in self._by_color:
            assert picture.values is not None  # otherwise labels would be None
            allowed = ranges(sorted(value for values in self._stored[encoding] for value in values))
            kind = "train ids" if encoding == "train_ids" else f"the raw ids of {self.name}'s classes"
            return f"has the value {picture.values[row, column]} {where}, but {kind} are {allowed}"
        assert picture.colors is not None
        code = int(
            picture.colors[row, column] if picture.values is None else picture.colors[picture.values[row, column]]
        )
        color = f"has the colour {(code >> 16, code >> 8 & 255, code & 255)} {where}"
        owners = [
            name for name, of_class in zip(self.class_names, self._stored[encoding], strict=True) if code in of_class
        ]
        if owners:
            return f"{color}, which {' and '.join(owners)} share: write ids and not colours"
        return f"{color}, which is no class's of {self.name}"

    @cached_property
    def _tables(self) -> dict[Encoding, Labels]:
        """Train ids by value, uint8 [256], or by colour, uint8 [2^24]; 255 for what several classes share."""
        tables: dict[Encoding, Labels] = {}
        for encoding, stored in self._stored.items():
            table = np.full(1 << 24 if encoding in self._by_color else 256, IGNORE_INDEX, np.uint8)
            every = [value for values in stored for value in values]
            for train_id, values in enumerate(stored):
                table[[value for value in values if every.count(value) == 1]] = train_id
            tables[encoding] = table
        return tables
