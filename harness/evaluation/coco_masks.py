"""Predictions as detectron2 writes them: sem_seg_predictions.json, a mask in COCO's run-length code for each class."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.datasets.dataset import IGNORE_INDEX
from harness.errors import UserError
from harness.evaluation.record import write_map

FILE = "sem_seg_predictions.json"


def find_masks(predictions: Path) -> Path | None:
    """The file of masks that `predictions` is, or that lies in that folder beside no PNG; None if there is none."""
    if predictions.is_file():
        return predictions
    inside = predictions / FILE
    return inside if inside.is_file() and not any(predictions.rglob("*.png")) else None


def write_maps(path: Path, folder: Path) -> None:
    """Write the label maps in the file `path` as PNGs of train ids into `folder`, named as their images.

    `category_id` is the train id. A pixel in no mask gets 255. Raises UserError if the file is another one, or puts a
    pixel into two masks.
    """
    maps: dict[str, NDArray[np.uint8]] = {}
    try:
        for entry in json.loads(path.read_text(encoding="utf-8")):
            name = Path(entry["file_name"]).stem
            mask = decode(entry["segmentation"])
            labels = maps.setdefault(name, np.full(mask.shape, IGNORE_INDEX, np.uint8))
            if (labels[mask] != IGNORE_INDEX).any():
                raise UserError(f"{path}: two masks of {name} overlap: it holds instances, not one class a pixel")
            labels[mask] = entry["category_id"]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
        raise UserError(f"{path} is not detectron2's {FILE} ({type(error).__name__}: {error})") from None
    for name, labels in maps.items():
        write_map(folder / f"{name}.png", labels)


def decode(segmentation: dict[str, Any]) -> NDArray[np.bool_]:
    """A mask in COCO's compressed run-length code, {"size": [H, W], "counts": text}: bool [H, W].

    The runs, of 0 first and then in turn, go down the columns. Each is a number of five bits a character (less 48, low
    bits first, bit 32 where more follow, bit 16 of the last for the sign), from the fourth on less the one before the
    last. Raises ValueError if the runs don't fill the mask.
    """
    height, width = segmentation["size"]
    runs: list[int] = []
    value = shift = 0
    for character in segmentation["counts"].encode("ascii"):
        code = character - 48
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if sum(runs) != height * width or min(runs, default=0) < 0:
        raise ValueError("the runs do not fill the mask")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T
