"""Converts labels in MATLAB files to PNG, which other programs can read and which is smaller."""

import errno
import hashlib
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from harness.compute import atomic
from harness.compute.progress import track
from harness.datasets.dataset import Dataset
from harness.datasets.readers import FolderLayout, Sample
from harness.datasets.spec import IGNORE_INDEX, Spec
from harness.errors import UserError

SCHEMA = 1
REPORT = "prepare.json"
PREPARED = "prepared"  # the name of the layout that is written here


def convert(dataset: Dataset, workers: int | None = None) -> dict[str, Any] | None:
    """Convert a data set's .mat labels to PNG, in the layout that its YAML calls `prepared`.

    Returns the content of prepare.json: the layout that was read, images and a sha256 of the sources of each split,
    date and duration; None if there is nothing to convert. Earlier results are kept. The folder appears once it is
    complete; an interrupted conversion resumes from a hidden folder next to it. workers: processes; default one per
    core, at most eight. Raises UserError for a label that cannot be read, and for a folder that cannot be written.
    """
    root = dataset.folder()
    source = next((s for s in dataset.specs if s.layout.encoding == "mat" and s.layout.found(root, s.splits)), None)
    target = next((spec for spec in dataset.specs if spec.layout.name == PREPARED), None)
    if source is None or target is None:
        return None
    base = target.layout.base(root)
    folder, unfinished = base / PREPARED, base / f".{PREPARED}.unfinished"
    if (folder / REPORT).is_file():
        return json.loads((folder / REPORT).read_text(encoding="utf-8"))
    try:
        report = _convert(Dataset(source, root), target, unfinished, workers)
        atomic.write_json(unfinished / REPORT, report)
        unfinished.rename(folder)
    except OSError as error:
        what = "the disk is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else error.strerror or str(error)
        raise UserError(
            f"{unfinished} cannot be written ({what}): make room or make it writable, and run prepare again to continue"
        ) from None
    return report


def _convert(dataset: Dataset, target: Spec, folder: Path, workers: int | None) -> dict[str, Any]:
    started = time.monotonic()
    if not isinstance(target.layout, FolderLayout) or PurePosixPath(target.layout.labels).parent.name != PREPARED:
        raise UserError(f"{target.name}.yaml: the labels of the layout {PREPARED} must be in a folder {PREPARED}")
    samples = {split: dataset.samples(split) for split in dataset.splits}
    folder.mkdir(exist_ok=True)
    values = np.zeros(IGNORE_INDEX + 1, np.uint8)  # the value of each train id in the new labels
    for train_id, entry in enumerate(target.classes):
        values[train_id] = entry.labels[0]
    if target.ignored_labels:
        values[IGNORE_INDEX] = target.ignored_labels[0]
    hashes: dict[str, str] = {}
    pool = ProcessPoolExecutor(workers or min(8, os.cpu_count() or 1))
    try:
        for split, of_split in samples.items():
            digest = hashlib.sha256()
            results = pool.map(partial(_convert_label, dataset, values, folder), of_split, chunksize=16)
            for line in track(results, f"prepare {dataset.name} {split}", len(of_split)):
                digest.update(line.encode())
            hashes[split] = digest.hexdigest()
    finally:
        pool.shutdown(cancel_futures=True)
    return {
        "schema": SCHEMA,
        "dataset": dataset.name,
        "read": dataset.spec.layout.name,
        "images": {split: len(of_split) for split, of_split in samples.items()},
        "sources": hashes,
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - started, 1),
    }


def _convert_label(dataset: Dataset, values: NDArray[np.uint8], folder: Path, sample: Sample) -> str:
    """Convert one label unless its PNG exists; returns a line with its id and its source's sha256."""
    path = folder / f"{sample.id}.png"
    if not path.is_file():
        with atomic.replacing(path) as temporary:
            temporary.write_bytes(cv2.imencode(".png", values[dataset.read_label(sample)])[1].tobytes())
    return f"{sample.id} {hashlib.sha256(sample.label_path.read_bytes()).hexdigest()}\n"
