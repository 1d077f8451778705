"""Decoded samples in memory."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness.datasets.dataset import Dataset
from harness.datasets.readers import Sample
from harness.progress import track


class Cached:
    """Reads samples of `dataset` from memory where `fill` has put them, else from disk.

    Worker processes that are forked after `fill` share the arrays with the parent: each sample is held once.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._pairs: dict[Path, tuple[NDArray[np.uint8], NDArray[np.uint8]]] = {}

    @property
    def nbytes(self) -> int:
        """The size of what is held, in bytes: 4 for every pixel."""
        return sum(image.nbytes + label.nbytes for image, label in self._pairs.values())

    def fill(self, samples: Sequence[Sample], workers: int | None = None) -> None:
        """Decode `samples` in threads and keep them, read-only. Raises UserError for a file that cannot be used."""
        with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
            pairs = track(pool.map(self.dataset.read, samples), f"decode {self.dataset.name}", len(samples))
            for sample, pair in zip(samples, pairs, strict=True):
                for array in pair:
                    array.setflags(write=False)
                self._pairs[sample.image_path] = pair

    def read(self, sample: Sample) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """What `Dataset.read` returns; not writable if it is held in memory."""
        held = self._pairs.get(sample.image_path)
        return self.dataset.read(sample) if held is None else held
