"""A cache of decoded samples, in memory or in a file that all processes of a machine share by memory mapping."""

import fcntl
import hashlib
import itertools
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import psutil
from numpy.typing import NDArray

from harness.compute import atomic
from harness.compute.progress import track
from harness.datasets.dataset import Dataset, description_state, files_state
from harness.datasets.images import opened
from harness.datasets.readers import Sample
from harness.errors import UserError

Kind = Literal["auto", "ram", "disk"]
Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
Shape = tuple[int, int]  # height, width

SCHEMA = 2
BYTES_A_PIXEL = 4  # three of the image and one of the label
CHANNELS = BYTES_A_PIXEL - 1


class Reads(Protocol):
    """A source of samples: a data set or a cache of it."""

    def read(self, sample: Sample) -> Pair:
        """Image uint8 [H, W, 3] RGB and label uint8 [H, W] of train ids, possibly read-only."""


def open_cache(
    dataset: Dataset, samples: Sequence[Sample], kind: Kind | None, folder: Path, reads: int | None = None
) -> Reads:
    """A reader of `samples`, decoded once into memory ("ram") or a file in `folder` ("disk"), or on every read (None).

    "auto" is "disk" if a training makes enough `reads` (None: many) and there is room, and otherwise None. All runs of
    a machine share the file. It takes 4 bytes per pixel. Raises UserError if there is not enough memory or disk space,
    or if a file of the data set cannot be used.
    """
    if kind == "ram":
        return _in_memory(dataset, samples)
    if kind == "disk":
        return _on_disk(dataset, samples, folder)
    if kind == "auto" and (reads is None or reads >= len(samples)):
        with suppress(OSError):  # the folder is not writable, or the file system has no locks
            folder.mkdir(parents=True, exist_ok=True)
            if cache_path(dataset, samples, folder).exists():
                return _on_disk(dataset, samples, folder)
            # A file that does not fit in memory is read from disk again and again, which saves little over decoding.
            free = min(psutil.virtual_memory().available, shutil.disk_usage(folder).free)
            if 2 * BYTES_A_PIXEL * _pixels(shapes(dataset, samples)) <= free:
                return _on_disk(dataset, samples, folder)
    return dataset


class Cached:
    """Reads samples from one array of decoded bytes (for each sample the image, then the label), others from `dataset`.

    Worker processes that are forked later share the array.
    """

    def __init__(
        self, dataset: Dataset, samples: Sequence[Sample], sizes: Sequence[Shape], pixels: NDArray[np.uint8]
    ) -> None:
        self.dataset, self.pixels = dataset, pixels
        starts = itertools.accumulate((BYTES_A_PIXEL * height * width for height, width in sizes), initial=0)
        self._places = {s.id: (start, *size) for s, size, start in zip(samples, sizes, starts, strict=False)}

    def read(self, sample: Sample) -> Pair:
        """The result of `Dataset.read`, read-only if it is cached."""
        if sample.id not in self._places:
            return self.dataset.read(sample)
        start, height, width = self._places[sample.id]
        middle = start + CHANNELS * height * width
        image = self.pixels[start:middle].reshape(height, width, CHANNELS)
        return image, self.pixels[middle : middle + height * width].reshape(height, width)

    def fill(self, samples: Sequence[Sample], title: str) -> None:
        """Decode `samples` in threads. Raises UserError for a file that cannot be used."""

        def keep(sample: Sample) -> None:
            for held, decoded in zip(self.read(sample), self.dataset.read(sample), strict=True):
                if held.shape != decoded.shape:
                    raise UserError(f"{sample.image_path} has changed while it was read: start again")
                held[:] = decoded

        for_each(keep, f"decode {self.dataset.name} into {title}, {_size(self.pixels.nbytes)}", samples)


def _in_memory(dataset: Dataset, samples: Sequence[Sample]) -> Cached:
    sizes = shapes(dataset, samples)
    need, free = BYTES_A_PIXEL * _pixels(sizes), psutil.virtual_memory().available
    if need > free:
        raise UserError(
            f"--cache ram needs {_size(need)} for {dataset.name}, but {_size(free)} of memory are free: "
            "use --cache disk, or none"
        )
    cached = Cached(dataset, samples, sizes, np.empty(need, np.uint8))
    cached.fill(samples, "memory")
    cached.pixels.setflags(write=False)
    return cached


def cache_path(dataset: Dataset, samples: Sequence[Sample], folder: Path) -> Path:
    """The cache file in `folder` for these samples; NAME.json has their sizes and their files' state."""
    key = hashlib.sha256("\n".join(sample.id for sample in samples).encode()).hexdigest()[:12]
    return folder / f"{dataset.name}-{key}.pixels"


def _on_disk(dataset: Dataset, samples: Sequence[Sample], folder: Path) -> Cached:
    """The cache on disk; the first process writes the file while others wait.

    It is rewritten if an image, a label or the data set's YAML has changed (judged by names, sizes and times).
    """
    path = cache_path(dataset, samples, folder)
    state = f"{SCHEMA} {description_state(dataset)} {files_state(samples)}"

    def mapped() -> Cached | None:
        try:
            index = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            if index["state"] != state or path.stat().st_size != BYTES_A_PIXEL * _pixels(index["sizes"]):
                return None
            return Cached(dataset, samples, index["sizes"], np.asarray(np.memmap(path, np.uint8, "r")))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    if found := mapped():
        return found
    with _lock(path):
        if found := mapped():
            return found
        for left in (path.with_suffix(".json"), path, *folder.glob(f".{path.stem}.*")):
            left.unlink(missing_ok=True)  # outdated, or left by a killed process
        sizes = shapes(dataset, samples)
        need, free = BYTES_A_PIXEL * _pixels(sizes), shutil.disk_usage(folder).free
        if need > free:
            raise UserError(
                f"--cache disk needs {_size(need)} in {folder}, but {_size(free)} are free: make room, or use "
                "--cache none"
            )
        try:
            with atomic.replacing(path) as temporary:
                if hasattr(os, "posix_fallocate"):  # otherwise a full disk would kill the process with SIGBUS
                    with temporary.open("r+b") as file:
                        os.posix_fallocate(file.fileno(), 0, need)
                pixels = np.memmap(temporary, np.uint8, "w+" if not temporary.stat().st_size else "r+", shape=(need,))
                Cached(dataset, samples, sizes, pixels).fill(samples, str(path))
                pixels.flush()
            atomic.write_json(path.with_suffix(".json"), {"state": state, "sizes": sizes})
        except OSError as error:
            raise UserError(f"--cache disk: {path} cannot be written: {error.strerror}") from None
        found = mapped()
    if found is None:
        raise UserError(f"{path} has changed while it was written: start again")
    return found


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Run the block in one process at a time; the lock of a killed process is released."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for the process that decodes into {path}", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def for_each(function: Callable[..., None], title: str, items: Sequence[Any]) -> None:
    """Call `function` with each item in threads; the first error is raised."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for _ in track(pool.map(function, items), title, len(items)):
            pass


def shapes(dataset: Dataset, samples: Sequence[Sample]) -> list[Shape]:
    """Height and width of the samples' images, from their headers."""

    def shape(sample: Sample) -> Shape:
        try:
            with opened(sample.image_path) as image:
                return image.height, image.width
        except (OSError, SyntaxError, ValueError):
            return dataset.read(sample)[1].shape  # raises UserError that says what is wrong with the file

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(shape, samples))


def _pixels(sizes: Sequence[Shape]) -> int:
    return sum(height * width for height, width in sizes)


def _size(number: int) -> str:
    """Bytes as text: 253_000_000 is "253.0 MB"."""
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"
