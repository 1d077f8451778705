"""Integer counts per image and class, from which every score is computed.

A table is int64 [K, 3] for one image and [N, K, 3] for N images; the last axis is TP, FP, FN in pixels. Tables are
"region", "boundary@WIDTH" and "trimap@WIDTH" (widths as in `bands.radius`: "boundary@3px", "trimap@0.02"), and
"objects@SIZE" (sizes as in `objects.SIZES`).
"""

import math
import zipfile
import zlib
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.compute.atomic import replacing
from harness.errors import UserError
from harness.evaluation.bands import IGNORED, edge_levels, frame_levels, radius
from harness.evaluation.objects import SIZES, component_areas, runs, size_groups

REGION = "region"
DEFAULT_WIDTHS = ("3px", "5px", "7px", "10px", "20px", "0.02")
SCHEMA = 1

Table = NDArray[np.int64]


def count_image(
    prediction: NDArray[Any],
    label: NDArray[Any],
    num_classes: int,
    widths: Sequence[str] = DEFAULT_WIDTHS,
    ignore_edge: bool = True,
    void_is_wrong: bool = False,
) -> dict[str, Table]:
    """TP, FP and FN of every class in one image: {table: int64 [num_classes, 3]}.

    `prediction` and `label` are integer maps [H, W] (uint8 is fastest) of train ids 0..`num_classes` - 1. Pixels that
    are 255 in `label` are ignored, whatever is predicted there.

    boundary: compares the band of the predicted class with that of the true class; the image's border counts as an edge
    (Cheng et al., CVPR 2021), and with `ignore_edge` so does an edge to an ignored area. trimap: the region counts over
    valid pixels near an edge of the ground truth, including edges to ignored areas but not the border. objects: by the
    area of 8-connected components; TP and FN by the size of the ground truth's object, FP by that of the predicted one
    (no paper defines FP by size; this is our definition).

    With `void_is_wrong`, 255 may be predicted on a valid pixel, which is then an FN of its class and an FP of none
    (Cityscapes' official rule). Raises ValueError, saying what and where, if the sizes differ or if a valid pixel has
    an id outside the classes.
    """
    return _count(*_checked(prediction, label, num_classes, void_is_wrong), num_classes, widths, ignore_edge)


def count_with_confusion(
    prediction: NDArray[Any], label: NDArray[Any], num_classes: int, void_is_wrong: bool = False
) -> tuple[dict[str, Table], Table]:
    """The results of `count_image` and `confusion_image` for one image, which is checked only once."""
    maps = _checked(prediction, label, num_classes, void_is_wrong)
    return _count(*maps, num_classes, DEFAULT_WIDTHS, True), _confusion(*maps, num_classes)


def _count(
    truth: NDArray[np.uint8], guess: NDArray[np.uint8], num_classes: int, widths: Sequence[str], ignore_edge: bool
) -> dict[str, Table]:
    height, image_width = truth.shape
    reaches = {width: radius(width, height, image_width) for width in widths}
    radii = sorted(reaches.values())

    frame = frame_levels(height, image_width, radii)
    trimap = edge_levels(truth, radii)
    truth_band = np.minimum(frame, trimap if ignore_edge else edge_levels(truth, radii, ignore_edge=False))
    guess_band = np.minimum(frame, edge_levels(guess, radii, ignore_edge))

    # One histogram over (class, band level, trimap level) gives the region and every width; class K is "ignored".
    shape = (num_classes + 1, len(radii) + 1, len(radii) + 1)
    size = math.prod(shape)
    code = np.min_scalar_type(size)

    def histogram(classes: NDArray[np.uint8], band: NDArray[np.uint8]) -> Table:
        cells = (classes.astype(code) * shape[1] + band) * shape[2] + trimap
        return np.bincount(cells.ravel(), minlength=size).reshape(shape)[:num_classes]

    nothing = np.uint8(num_classes)
    hits = histogram(np.where(truth == guess, np.minimum(truth, nothing), nothing), np.maximum(truth_band, guess_band))
    guessed = histogram(np.minimum(guess, nothing), guess_band)
    true = histogram(np.minimum(truth, nothing), truth_band)

    tables = {REGION: _table(*(each.sum((1, 2)) for each in (hits, guessed, true)))}
    for width in widths:
        inside = slice(0, radii.index(reaches[width]) + 1)
        tables[f"boundary@{width}"] = _table(*(each[:, inside].sum((1, 2)) for each in (hits, guessed, true)))
        tables[f"trimap@{width}"] = _table(*(each[:, :, inside].sum((1, 2)) for each in (hits, guessed, true)))
    return tables | _object_tables(truth, guess, num_classes)


def confusion_image(
    prediction: NDArray[Any], label: NDArray[Any], num_classes: int, void_is_wrong: bool = False
) -> Table:
    """The confusion matrix of one image in pixels, int64 [K, K]: rows are the ground truth, columns the prediction.

    Arguments and errors are those of `count_image`. Void predictions have no column.
    """
    return _confusion(*_checked(prediction, label, num_classes, void_is_wrong), num_classes)


def _confusion(truth: NDArray[np.uint8], guess: NDArray[np.uint8], num_classes: int) -> Table:
    size = num_classes + 1  # the last row and column take the ignored pixels
    cells = np.minimum(truth, num_classes).astype(np.uint16) * np.uint16(size) + np.minimum(guess, num_classes)
    return np.bincount(cells.ravel(), minlength=size * size).reshape(size, size)[:num_classes, :num_classes]


def stack(images: Sequence[Mapping[str, Table]]) -> dict[str, Table]:
    """Tables [K, 3] of N images, in order, as tables [N, K, 3]. Raises ValueError if `images` is empty."""
    if not images:
        raise ValueError("there are no images to stack")
    return {name: np.stack([tables[name] for tables in images]) for name in images[0]}


def _object_tables(truth: NDArray[np.uint8], guess: NDArray[np.uint8], num_classes: int) -> dict[str, Table]:
    starts, pixels = runs(truth, guess)
    true_size, guess_size = (size_groups(component_areas(each).ravel()[starts]) for each in (truth, guess))
    true, guessed = (each.ravel()[starts] for each in (truth, guess))
    right = true == guessed

    def histogram(counted: NDArray[np.bool_], classes: NDArray[np.uint8], sizes: NDArray[np.uint8]) -> Table:
        """Pixels [num_classes, sizes] of the selected runs; the float64 sums are exact up to 2^53."""
        cells = classes[counted].astype(np.intp) * len(SIZES) + sizes[counted]
        found = np.bincount(cells, pixels[counted], (IGNORED + 1) * len(SIZES)).astype(np.int64)
        return found.reshape(-1, len(SIZES))[:num_classes]

    hits, missed = histogram(right, true, true_size), histogram(~right, true, true_size)
    false = histogram(~right, guessed, guess_size)
    return {
        f"objects@{size}": np.stack([hits[:, index], false[:, index], missed[:, index]], axis=1)
        for index, size in enumerate(SIZES)
    }


def _table(hits: Table, guessed: Table, true: Table) -> Table:
    return np.stack([hits, guessed - hits, true - hits], axis=1)


def _checked(
    prediction: NDArray[Any], label: NDArray[Any], num_classes: int, void_is_wrong: bool
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Ground truth and prediction as uint8, with 255 wherever the ground truth is 255.

    With `void_is_wrong`, other 255s in the prediction become `num_classes`, a label that belongs to no class.
    """
    if not 1 <= num_classes <= IGNORED:
        raise ValueError(f"{num_classes} classes do not fit 8-bit train ids: give 1 to {IGNORED}")
    for name, values in (("prediction", prediction), ("label", label)):
        if values.ndim != 2 or not np.issubdtype(values.dtype, np.integer):
            raise ValueError(f"the {name} is {values.dtype} {list(values.shape)}: it must be an integer map [H, W]")
    if prediction.shape != label.shape:
        raise ValueError(f"the prediction is {_size(prediction)} pixels and the label {_size(label)}: they must agree")
    valid = label != IGNORED
    for name, values in (("label", label), ("prediction", prediction)):
        wrong = values >= num_classes
        if values.dtype.kind == "i":
            wrong |= values < 0
        wrong &= valid
        if void_is_wrong and name == "prediction":
            wrong &= values != IGNORED
        if wrong.any():
            row, column = divmod(int(wrong.argmax()), wrong.shape[1])
            raise ValueError(
                f"the {name} holds {values[row, column]} at row {row}, column {column}, "
                f"outside the train ids 0..{num_classes - 1}"
            )
    ignored = np.uint8(IGNORED)
    if void_is_wrong:
        if num_classes == IGNORED:
            raise ValueError(f"{num_classes} classes leave no label for void predictions: use at most 254")
        prediction = np.where(prediction == IGNORED, num_classes, prediction)
    return np.where(valid, label.astype(np.uint8), ignored), np.where(valid, prediction.astype(np.uint8), ignored)


def _size(values: NDArray[Any]) -> str:
    return f"{values.shape[1]}x{values.shape[0]}"


def _is_wanted(name: str, wanted: Container[tuple[str, str]]) -> bool:
    protocol, is_table, table = name.partition("/")
    return not is_table or (protocol, table) in wanted


@dataclass(frozen=True)
class Counts:
    """The counts of one run: {protocol: {table: int64 [N, K, 3]}} for the N images `image_ids` and K `classes`.

    Raises ValueError if an id occurs twice (a sample counted twice would count double) or a table has another size.
    """

    image_ids: list[str]
    classes: tuple[str, ...]
    tables: dict[str, dict[str, Table]]

    def __post_init__(self) -> None:
        for image_id, times in Counter(self.image_ids).most_common(1):
            if times > 1:
                raise ValueError(f"image {image_id} is counted {times} times")
        expected = (len(self.image_ids), len(self.classes), 3)
        for protocol, tables in self.tables.items():
            for name, table in tables.items():
                if table.shape != expected:
                    raise ValueError(f"table {name} of {protocol} is {list(table.shape)}, not {list(expected)}")

    def save(self, path: Path) -> None:
        """Write to `path` (compressed npz) atomically. Tables are stored in the smallest unsigned type."""
        arrays: dict[str, NDArray[Any]] = {
            "schema": np.array(SCHEMA),
            "image_ids": np.array(self.image_ids, dtype=np.str_),
            "classes": np.array(self.classes, dtype=np.str_),
        }
        for protocol, tables in self.tables.items():
            for name, table in tables.items():
                arrays[f"{protocol}/{name}"] = table.astype(np.min_scalar_type(int(table.max(initial=0))))
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path, wanted: Container[tuple[str, str]] | None = None) -> "Counts":
        """The counts that `save` wrote; with `wanted`, only those (protocol, table) that the file has.

        Raises UserError, naming the file, if it is missing, damaged or of another schema.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files if wanted is None or _is_wanted(name, wanted)}
            schema = int(arrays.pop("schema"))
            if schema == SCHEMA:
                tables: dict[str, dict[str, Table]] = {}
                image_ids, classes = arrays.pop("image_ids").tolist(), tuple(arrays.pop("classes").tolist())
                for name, table in arrays.items():
                    protocol, _, table_name = name.partition("/")
                    if table.dtype.kind not in "iu" or (table < 0).any():
                        raise ValueError("no counts")
                    tables.setdefault(protocol, {})[table_name] = table.astype(np.int64)
                return cls(image_ids, classes, tables)
        except FileNotFoundError:
            raise UserError(f"{path} does not exist: evaluate the run first") from None
        except (OSError, ValueError, KeyError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error):
            raise UserError(f"{path} is not a whole file of counts: delete it and evaluate the run again") from None
        raise UserError(f"{path} has schema {schema}, this version reads {SCHEMA}: evaluate the run again")

    def select(self, image_ids: Sequence[str]) -> "Counts":
        """The counts of `image_ids` only, in that order. Raises KeyError for an unknown id."""
        place = {image_id: index for index, image_id in enumerate(self.image_ids)}
        rows = np.array([place[image_id] for image_id in image_ids], dtype=np.intp)
        tables = {
            protocol: {name: table[rows] for name, table in tables.items()} for protocol, tables in self.tables.items()
        }
        return Counts(list(image_ids), self.classes, tables)
