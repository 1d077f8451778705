"""Reads detectron2's predictions (sem_seg_predictions.json): for each class a mask in COCO's run-length encoding."""

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
    """The file of masks: `predictions` itself, or the one in that folder if it has no PNGs; None if there is none."""
    if predictions.is_file():
        return predictions
    inside = predictions / FILE
    return inside if inside.is_file() and not any(predictions.rglob("*.png")) else None


def write_maps(path: Path, folder: Path) -> None:
    """Convert the masks in the file `path` to PNGs of train ids in `folder`, named after their images.

    `category_id` is the train id. A pixel in no mask gets 255. Raises UserError if the file has another format, or if
    masks overlap.
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
    """The mask bool [H, W] of COCO's compressed run-length encoding, {"size": [H, W], "counts": text}.

    Runs go down the columns and alternate, starting with a run of 0. Each run length is coded in characters of five
    bits (after subtracting 48), low bits first; bit 32 means that more characters follow, and bit 16 of the last one is
    the sign. From the fourth run on, the value is the difference to the run two before. Raises ValueError if the runs
    do not fill the mask.
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
