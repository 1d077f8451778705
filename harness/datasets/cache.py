"""Decoded samples in memory, or in one file that is mapped into memory."""

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
from numpy.typing import NDArray

from harness.compute import atomic
from harness.compute.progress import track
from harness.datasets.dataset import Dataset
from harness.datasets.images import opened
from harness.datasets.readers import Sample
from harness.datasets.state import description_state, files_state
from harness.errors import UserError

Kind = Literal["auto", "ram", "disk"]
Pair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
Shape = tuple[int, int]  # height, width

SCHEMA = 1
BYTES_A_PIXEL = 4  # three of the image and one of the label
CHANNELS = BYTES_A_PIXEL - 1
LENGTH_BYTES = 8


class Reads(Protocol):
    """What a sample can be read from: a data set or a cache of it."""

    def read(self, sample: Sample) -> Pair:
        """Image uint8 [H, W, 3] RGB and label uint8 [H, W] of train ids; maybe not writable."""


def open_cache(
    dataset: Dataset, samples: Sequence[Sample], kind: Kind | None, folder: Path, reads: int | None = None
) -> Reads:
    """Decode `samples` once, into memory ("ram") or a file in `folder` ("disk"); None decodes at every read.

    "auto" is "disk" where that pays for so many `reads` (None: many) and there is room for it, else None: it never
    fails for want of room. All runs of a machine share the file.

    The size is 4 bytes a pixel, known and shown before anything is decoded. Raises UserError if that much memory or
    disk is not free, or for a file that cannot be used.
    """
    if kind == "auto":
        return _of_the_machine(dataset, samples, folder, reads)
    if kind == "disk":
        return DiskCache(dataset, samples, folder)
    if kind == "ram":
        cached = Cached(dataset)
        cached.fill(samples)
        return cached
    return dataset


def _of_the_machine(dataset: Dataset, samples: Sequence[Sample], folder: Path, reads: int | None) -> Reads:
    if reads is not None and reads < len(samples):
        return dataset
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not DiskCache.path_of(dataset, samples, folder).exists():
            need, free = decoded_bytes(dataset, samples), _free_memory()
            # What is not in memory is read from the disk again and again, and then decoding costs little more.
            if 2 * need > shutil.disk_usage(folder).free or (free is not None and 2 * need > free):
                return dataset
        return DiskCache(dataset, samples, folder)
    except OSError:  # a folder that cannot be written, or a file system without locks
        return dataset


def decoded_bytes(dataset: Dataset, samples: Sequence[Sample]) -> int:
    """How many bytes `samples` take when decoded, from the headers of their images."""
    return BYTES_A_PIXEL * sum(height * width for height, width in shapes(dataset, samples))


class Cached:
    """Reads samples of `dataset` from memory where `fill` has put them, else from disk.

    Worker processes that are forked after `fill` share the arrays with the parent: each sample is held once.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self._pairs: dict[Path, Pair] = {}

    @property
    def nbytes(self) -> int:
        """The size of what is held, in bytes: 4 for every pixel."""
        return sum(image.nbytes + label.nbytes for image, label in self._pairs.values())

    def fill(self, samples: Sequence[Sample], workers: int | None = None) -> None:
        """Decode `samples` in threads and keep them, read-only.

        Raises UserError if they need more memory than is free, or for a file that cannot be used.
        """
        need, free = decoded_bytes(self.dataset, samples), _free_memory()
        if free is not None and need > free:
            raise UserError(
                f"--cache ram needs {_size(need)} for {self.dataset.name}, but {_size(free)} of memory are free: "
                "use --cache disk, or none"
            )

        def keep(sample: Sample) -> None:
            pair = self.dataset.read(sample)
            for array in pair:
                array.setflags(write=False)
            self._pairs[sample.image_path] = pair

        for_each(keep, f"decode {self.dataset.name} into memory, {_size(need)}", samples, workers=workers)

    def read(self, sample: Sample) -> Pair:
        """What `Dataset.read` returns; not writable if it is held in memory."""
        held = self._pairs.get(sample.image_path)
        return self.dataset.read(sample) if held is None else held


class DiskCache:
    """Reads samples from one file of decoded pixels, which all processes of a machine share through its page cache.

    The file is written by the first process that asks for these samples, under a lock that others wait for and that
    ends with the process, and gets its name when it is complete. It is replaced when an image, a label or the data
    set's YAML has changed (by names, sizes and times). Raises UserError as `open_cache` does.

    The file: the length of the index (8 bytes, little-endian), the index (JSON), then for each sample the image and
    the label.
    """

    def __init__(self, dataset: Dataset, samples: Sequence[Sample], folder: Path) -> None:
        self.dataset = dataset
        self.path = self.path_of(dataset, samples, folder)
        self._state = f"{SCHEMA} {description_state(dataset)} {files_state(samples)}"
        if not self._open():
            with _lock(self.path):
                if not self._open():
                    self._fill(samples)
                    self._open()

    @staticmethod
    def path_of(dataset: Dataset, samples: Sequence[Sample], folder: Path) -> Path:
        """The file in `folder` that holds these samples, if there is one."""
        key = hashlib.sha256("\n".join(sample.id for sample in samples).encode()).hexdigest()[:12]
        return folder / f"{dataset.name}-{key}.pixels"

    @property
    def nbytes(self) -> int:
        """The size of the decoded pixels, in bytes: 4 for every pixel."""
        return self._pixels.nbytes

    def read(self, sample: Sample) -> Pair:
        """What `Dataset.read` returns, not writable; a sample that is not held is read from the data set."""
        if sample.id not in self._places:
            return self.dataset.read(sample)
        start, height, width = self._places[sample.id]
        middle = start + CHANNELS * height * width
        image = self._pixels[start:middle].reshape(height, width, CHANNELS)
        return image, self._pixels[middle : middle + height * width].reshape(height, width)

    def _open(self) -> bool:
        """Map the file, if there is one that holds the samples as they are now."""
        beginning = json.dumps({"state": self._state})[:-1].encode()
        try:
            with self.path.open("rb") as file:
                length, found = int.from_bytes(file.read(LENGTH_BYTES), "little"), file.read(len(beginning))
                if found != beginning:
                    return False
                index = json.loads(found + file.read(length - len(found)))
                sizes = [height * width * BYTES_A_PIXEL for _, height, width in index["samples"]]
                if os.fstat(file.fileno()).st_size != LENGTH_BYTES + length + sum(sizes):
                    return False
                self._pixels = np.asarray(np.memmap(file, np.uint8, "r", offset=LENGTH_BYTES + length))
        except OSError:
            return False
        starts = itertools.accumulate(sizes, initial=0)
        self._places = {key: (start, h, w) for (key, h, w), start in zip(index["samples"], starts, strict=False)}
        return True

    def _fill(self, samples: Sequence[Sample]) -> None:
        sizes = shapes(self.dataset, samples)
        index = {"state": self._state, "samples": [[s.id, *shape] for s, shape in zip(samples, sizes, strict=True)]}
        head = json.dumps(index).encode()
        head = len(head).to_bytes(LENGTH_BYTES, "little") + head
        starts = list(itertools.accumulate((h * w * BYTES_A_PIXEL for h, w in sizes), initial=len(head)))
        for left in (self.path, *self.path.parent.glob(f".{self.path.stem}.*{self.path.suffix}")):
            left.unlink(missing_ok=True)  # of other data, or of a process that was killed
        self._check_room(starts[-1])
        with atomic.replacing(self.path) as temporary, temporary.open("r+b", buffering=0) as file:

            def write(sample: Sample, shape: Shape, start: int) -> None:
                image, label = self.dataset.read(sample)
                if label.shape != shape:
                    raise UserError(f"{sample.image_path} has changed while it was read: start again")
                _write(file.fileno(), image.tobytes() + label.tobytes(), start)

            title = f"decode {self.dataset.name} into {self.path}, {_size(starts[-1])}"
            try:
                _write(file.fileno(), head, 0)
                for_each(write, title, samples, sizes, starts)
            except OSError as error:  # a disk that others have filled meanwhile
                raise UserError(f"--cache disk: {self.path} cannot be written: {error.strerror}") from None

    def _check_room(self, need: int) -> None:
        free = shutil.disk_usage(self.path.parent).free
        if need > free:
            raise UserError(
                f"--cache disk needs {_size(need)} in {self.path.parent}, but {_size(free)} are free: "
                "make room, or leave out --cache"
            )


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Let one process at a time into the block; a killed process holds no lock."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for the process that decodes into {path}", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def for_each(function: Callable[..., None], title: str, *arguments: Sequence[Any], workers: int | None = None) -> None:
    """Call `function` with each element of `arguments`, in threads; the first error ends it."""
    with ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        for _ in track(pool.map(function, *arguments), title, len(arguments[0])):
            pass


def shapes(dataset: Dataset, samples: Sequence[Sample]) -> list[Shape]:
    """The sizes of the samples' images, from their headers."""

    def shape(sample: Sample) -> Shape:
        try:
            with opened(sample.image_path) as image:
                return image.height, image.width
        except (OSError, SyntaxError, ValueError):
            return dataset.read(sample)[1].shape  # says what is wrong with the file

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return list(pool.map(shape, samples))


def _write(handle: int, content: bytes, start: int) -> None:
    """Write into an open file from byte `start` on."""
    left = memoryview(content)
    while left:
        written = os.pwrite(handle, left, start)
        left, start = left[written:], start + written


def _free_memory() -> int | None:
    """Bytes that programs can still take, or None where the system does not say."""
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _size(number: int) -> str:
    """Bytes in short: 253_000_000 is "253 MB"."""
    return f"{number / 1e9:,.1f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"
