"""Reads, predicts and counts concurrently, with a bounded number of images in flight."""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.compute.machine import processors_of_a_run
from harness.models.inference import Size, Window, label_maps, scores_of_views, to_batch, views
from harness.models.segmenter import Segmenter

Item = TypeVar("Item")
Extra = TypeVar("Extra")
Result = TypeVar("Result")

MOST_READERS, MOST_COUNTERS = 8, 32
MOST_IMAGES = {"cpu": 1, "cuda": 16}  # images per batch; 1 on a CPU, so that results are bit-identical
HELD = 32  # images, over all sizes, that may wait for others of their size
SCORE_BYTES = 2**30  # of a batch's scores at the largest view's size; the peak is a few times that
WAITING = 4  # unfinished pieces of work per counting process or thread


@dataclass(frozen=True)
class Predicted(Generic[Item, Extra]):
    """An item with its index, whatever was read along with its image, and its label map, uint8 [H, W]."""

    place: int
    item: Item
    extra: Extra
    labels: NDArray[np.uint8]


@dataclass(frozen=True)
class _Read:
    place: int
    item: Any
    extra: Any
    size: Size
    views: list[NDArray[np.uint8]]


def predicted(
    network: Segmenter,
    items: Iterable[Item],
    read: Callable[[Item], tuple[NDArray[np.uint8], Extra]],
    protocol: str,
    window: Window | None = None,
    fit: Size | None = None,
) -> Iterator[Predicted[Item, Extra]]:
    """Yield every item with the label map of its image, as `inference.predict` computes it.

    `read` returns an item's image, uint8 [H, W, 3] RGB, and anything to pass through; it is called in threads, a few
    items ahead of the network. On a CPU images are predicted one by one and yielded in order. On a GPU images of equal
    size form a batch, so the order changes; while the GPU computes a batch, the previous one is yielded. If memory runs
    out, batches are halved.
    """
    device = next(network.parameters()).device
    readers = max(1, min(MOST_READERS, _processors(device) // 2))

    def prepared(place: int, item: Item) -> _Read:
        image, extra = read(item)
        return _Read(place, item, extra, (image.shape[0], image.shape[1]), views(image, protocol, fit))

    batches = _Batches(network, protocol, window, device)
    launched: _Launched | None = None
    with _ending(ThreadPoolExecutor(readers, "read")) as pool, _as_a_fresh_process(device):
        for batch in batches.of(_ahead(pool, prepared, items, 2 * readers)):
            for part in batches.launch(batch):
                if launched:
                    yield from launched.hand_out()
                launched = part
    if launched:
        yield from launched.hand_out()


@contextmanager
def counting(device: torch.device) -> Iterator["Counting"]:
    """Workers that count label maps while the network predicts. Unfinished work is cancelled when the block ends.

    On a CPU, a few threads. On a GPU, processes on all but two of this run's cores: counting threads would hold the
    interpreter lock and so starve the GPU.
    """
    if device.type == "cuda":
        workers = max(1, min(MOST_COUNTERS, _processors(device) - 2))
        pool: Executor = ProcessPoolExecutor(workers, get_context("spawn"), _begin_process)
    else:
        workers = min(4, os.cpu_count() or 1)
        pool = ThreadPoolExecutor(workers, "count")
    with _ending(pool):
        if device.type == "cuda":
            for _ in range(workers):  # starts the processes while the caller builds its network
                pool.submit(_nothing)
        yield Counting(pool, WAITING * workers)


class Counting:
    """A queue of work; `start` blocks while too many pieces are unfinished."""

    def __init__(self, pool: Executor, most: int) -> None:
        self._pool, self._most = pool, most
        self._unfinished: deque[Future[Any]] = deque()

    def start(self, work: Callable[..., Result], *arguments: Any) -> "Future[Result]":
        """Submit `work(*arguments)`; re-raises the exception of an earlier piece."""
        while self._unfinished and (len(self._unfinished) >= self._most or self._unfinished[0].done()):
            self._unfinished.popleft().result()
        future = self._pool.submit(work, *arguments)
        self._unfinished.append(future)
        return future


class _Launched:
    """A batch whose label maps are being copied from the device."""

    def __init__(self, batch: list[_Read], labels: Tensor) -> None:
        self._batch, self._arrived = batch, None
        if labels.device.type == "cuda":
            self._labels = torch.empty(labels.shape, dtype=labels.dtype, pin_memory=True)
            self._labels.copy_(labels, non_blocking=True)
            self._arrived = torch.cuda.Event()
            self._arrived.record()
        else:
            self._labels = labels

    def hand_out(self) -> Iterator[Predicted[Any, Any]]:
        if self._arrived is not None:
            self._arrived.synchronize()
        for each, labels in zip(self._batch, self._labels.numpy(), strict=True):
            yield Predicted(each.place, each.item, each.extra, labels)


class _Batches:
    """Batches of images of equal size, as large as `MOST_IMAGES` and `SCORE_BYTES` allow."""

    def __init__(self, network: Segmenter, protocol: str, window: Window | None, device: torch.device) -> None:
        self._network, self._protocol, self._window, self._device = network, protocol, window, device
        self._most = MOST_IMAGES[device.type]

    def of(self, images: Iterable[_Read]) -> Iterator[list[_Read]]:
        """Yield batches of `images`, each as soon as it is full or `HELD` images are waiting."""
        waiting: dict[Size, list[_Read]] = {}
        for image in images:
            batch = waiting.setdefault(image.size, [])
            batch.append(image)
            if len(batch) >= self._fitting(image):
                yield waiting.pop(image.size)
            elif sum(map(len, waiting.values())) >= HELD:
                yield waiting.pop(max(waiting, key=lambda size: len(waiting[size])))
        yield from waiting.values()

    def launch(self, batch: list[_Read]) -> Iterator[_Launched]:
        """Send a batch through the network, in halves if it does not fit into memory."""
        try:
            seen = [to_batch(of_one_size, self._device) for of_one_size in zip(*(b.views for b in batch), strict=True)]
            scored = scores_of_views(self._network, seen, self._protocol, batch[0].size, self._window)
            launched = _Launched(batch, label_maps(scored))
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            self._most = half = len(batch) // 2
        else:
            yield launched
            return
        torch.cuda.empty_cache()  # outside the handler, since the exception keeps the tensors alive
        for start in range(0, len(batch), half):
            yield from self.launch(batch[start : start + half])

    def _fitting(self, image: _Read) -> int:
        copies = 2 if self._protocol == "ms_flip" else 1
        pixels = max(view.shape[0] * view.shape[1] for view in image.views)
        return max(1, min(self._most, SCORE_BYTES // (4 * self._network.num_classes * copies * pixels)))


def _processors(device: torch.device) -> int:
    """Number of processors for this run; on a CPU torch's threads, since other cores may belong to other runs."""
    return processors_of_a_run() if device.type == "cuda" else torch.get_num_threads()


def _ahead(pool: Executor, work: Callable[[int, Item], _Read], items: Iterable[Item], number: int) -> Iterator[_Read]:
    """Yield the results of `work` on the items, in order, with up to `number` started in advance."""
    begun: deque[Future[_Read]] = deque()
    for place, item in enumerate(items):
        begun.append(pool.submit(work, place, item))
        if len(begun) > number:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


@contextmanager
def _as_a_fresh_process(device: torch.device) -> Iterator[None]:
    """Use torch's default GPU settings within the block, whatever a training in this process had set.

    Benchmarking convolutions would cost more than it saves if nearly every image has its own size.
    """
    cudnn, matmul = torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = False
        torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = cudnn
        torch.set_float32_matmul_precision(matmul)


@contextmanager
def _ending(pool: Executor) -> Iterator[Executor]:
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_process() -> None:
    """Ignore Ctrl-C, which a terminal sends to all processes, and exit when the parent exits, for whatever reason."""
    import cv2

    cv2.setNumThreads(0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _nothing() -> None:
    """The first job of a process, which starts it."""


def _end_with_parent() -> None:
    if parent := parent_process():
        parent.join()
    os._exit(1)
