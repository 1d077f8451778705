"""Writes a run's predictions in the format of the official evaluation servers, or of `score`."""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from harness.compute.machine import Machine
from harness.compute.progress import track
from harness.compute.walking import files_below
from harness.datasets.dataset import Dataset
from harness.datasets.images import read_image
from harness.datasets.jpeg_damage import inspectors
from harness.datasets.readers import IMAGE_SUFFIXES, FolderLayout
from harness.errors import UserError, unknown
from harness.evaluation.encodings import raw_values
from harness.evaluation.evaluate import load_network, open_dataset, window_of
from harness.evaluation.pipeline import counting, predicted
from harness.evaluation.record import write_map
from harness.experiment.schema import FOLDER_NAME, Protocol
from harness.runs.record import TRAINING, Record

Format = Literal["train_ids", "cityscapes", "ade20k"]


def write_predictions(
    folder: Path,
    machine: Machine,
    *,
    split: str,
    form: str,
    protocol: str = "whole",
    out: Path | None = None,
    images: Path | None = None,
    root: Path | None = None,
) -> Path:
    """Predict a split with the trained run in `folder` and write a greyscale PNG per image; returns their folder.

    `form`: "train_ids"; "cityscapes", the raw ids of its labels.py; or "ade20k", 1 to 150. Both servers want PNGs with
    the images' names and sizes. The labels of the split need not exist; `images` is a folder of images to predict if
    they are not stored like the labelled ones. The PNGs are written to `out` (default:
    RUN/submissions/SPLIT-FORM-PROTOCOL), all or none; it must not contain files yet.

    Raises UserError for a run that is not trained, a form of another data set, and images that are missing or cannot be
    read.
    """
    for kind, given, allowed in (("format", form, get_args(Format)), ("protocol", protocol, get_args(Protocol))):
        if given not in allowed:
            raise unknown(kind, given, allowed)
    if not FOLDER_NAME.fullmatch(split):
        raise UserError(f"--split {split!r} names a folder: use letters, digits, '_', '-', '.' and '+' only")
    training = Record.load(folder / TRAINING)
    if training.status != "done":
        raise UserError(f"{folder} ended as {training.status}: only a run that is done can predict")
    dataset = open_dataset(training, root)
    stored = stored_values(dataset, form)
    out = out or folder / "submissions" / f"{split}-{form}-{protocol}"
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already: remove it, or pass another folder as --out")
    paths = _images(dataset, split, images)
    device = machine.use()
    network = load_network(folder, training.key.model, dataset.num_classes, device)
    window, fit = window_of(training.schedule), training.schedule.fit

    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    try:
        with inspectors(1) as looking, counting(device) as writers:

            def read(path: Path) -> tuple[np.ndarray, None]:
                if fault := looking.fault(path):  # these images may never have been verified
                    raise UserError(f"{path} {fault}")
                return read_image(path), None

            maps = predicted(network, paths, read, protocol, window, fit)
            written = [
                writers.start(write_map, temporary / f"{each.item.stem}.png", stored[each.labels])
                for each in track(maps, f"predict {folder} {split} {protocol}", len(paths))
            ]
            for future in written:
                future.result()
        temporary.chmod(0o755)  # mkdtemp creates folders that only the owner can read
        temporary.replace(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return out


def stored_values(dataset: Dataset, form: str) -> np.ndarray:
    """The value of each train id in a file of this form, uint8 [K].

    Raises UserError if `form` is another data set's.
    """
    if form == "train_ids":
        return np.arange(dataset.num_classes, dtype=np.uint8)
    if not dataset.name.startswith(form):
        raise UserError(f"--format {form} is for the server of {form}, but this run is of {dataset.name}")
    return np.array([values[0] for values in raw_values(dataset)], np.uint8)


def _images(dataset: Dataset, split: str, folder: Path | None) -> list[Path]:
    """The images of a split, or those below `folder`, sorted by name."""
    layout = dataset.spec.layout
    if folder is not None:
        paths = [path for path in files_below(folder) if path.suffix.lower() in IMAGE_SUFFIXES]
    elif split in dataset.splits or not isinstance(layout, FolderLayout) or "{split}" not in layout.images:
        paths = [sample.image_path for sample in dataset.samples(split)]
    else:  # a split without labels
        pattern = layout.images.replace("{split}", layout.split_names.get(split, split))
        folder = layout.base(dataset.root or Path())
        paths = list(folder.glob(re.sub(r"\{(id|folder)\}", "*", pattern)))
    found: dict[str, Path] = {}
    for path in sorted(each for each in paths if not each.name.startswith(".")):
        first = found.setdefault(path.stem, path)
        if first != path:
            raise UserError(f"{first} and {path} would be written to one file: keep one of them")
    if not found:
        raise UserError(f"{folder} holds no image of the split {split}: pass their folder with --images DIR")
    return list(found.values())
