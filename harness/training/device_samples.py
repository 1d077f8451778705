"""Training samples made on a GPU: decoded there once, drawn by threads here, augmented there a batch at a time."""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.compute import devices
from harness.compute.graph import Graphs
from harness.datasets.cache import BYTES_A_PIXEL, for_each, shapes
from harness.datasets.dataset import Dataset
from harness.datasets.device_augmentation import DeviceAugmentation, described, packed
from harness.training.samples import TrainingSamples

PART = 0.25  # of a GPU's memory that decoded images may take
AHEAD = 6  # batches that are drawn before they are asked for


def fits(dataset: Dataset, samples: TrainingSamples, device: torch.device) -> bool:
    """Whether the decoded samples take no more of a GPU than their part, as far as this run may use it."""
    if device.type != "cuda":
        return False
    pixels = sum(height * width for height, width in shapes(dataset, samples.samples))
    return BYTES_A_PIXEL * pixels <= PART * torch.cuda.mem_get_info(device)[1] / devices.sharers()


class DeviceSamples:
    """The samples of a run, decoded on `device`, and the batches made of them there.

    A batch is what `samples.batches` gives (`device_augmentation` says how nearly), a function of the keys alone.
    """

    def __init__(self, dataset: Dataset, samples: TrainingSamples, device: torch.device) -> None:
        self._samples, self._device = samples, device
        self._shapes = shapes(dataset, samples.samples)
        ends = np.cumsum([height * width for height, width in self._shapes])
        self._starts = [0, *ends[:-1].tolist()]
        self._pixels = torch.empty(int(ends[-1]), dtype=torch.int32, device=device)
        self._labels: list[NDArray[np.uint8]] = [np.empty(0, np.uint8)] * len(self._shapes)  # for the class rule
        self._fill()
        augment = DeviceAugmentation(samples.augmentation, device)
        self._augment = lambda batch: augment(self._pixels, batch)
        self._graphs = Graphs(self._augment, "augmentation") if device.type == "cuda" else None

    def batches(self, start: int, stop: int, slots: range | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of iterations start..stop-1: images uint8 [B, 3, h, w], labels uint8 [B, h, w], on the GPU.

        The next batch overwrites them. With `slots` those of each batch alone.
        """
        chosen = range(self._samples.batch) if slots is None else slots
        keys = iter(range(start, stop))
        drawn: deque[Future[Tensor]] = deque()
        pool = ThreadPoolExecutor(min(4, os.cpu_count() or 1), "draw")
        try:
            drawn.extend(pool.submit(self._draw, key, chosen) for key in islice(keys, AHEAD))
            while drawn:
                batch = drawn.popleft().result()
                drawn.extend(pool.submit(self._draw, key, chosen) for key in islice(keys, 1))
                yield self._graphs(None, batch) if self._graphs else self._augment(batch)
        finally:
            pool.shutdown(cancel_futures=True)

    def _fill(self) -> None:
        def keep(place: int) -> None:
            image, label = self._samples.reader.read(self._samples.samples[place])
            start, end = self._starts[place], self._starts[place] + label.size
            self._pixels[start:end].copy_(torch.from_numpy(packed(image, label)))
            self._labels[place] = label

        for_each(keep, f"decode images onto {self._device}", range(len(self._shapes)))

    def _draw(self, iteration: int, slots: range) -> Tensor:
        places = [self._samples.index(iteration, slot) for slot in slots]
        keys = [self._samples.key(iteration, slot) for slot in slots]
        draw = self._samples.augmentation.draw
        draws = [draw(self._labels[place], key) for place, key in zip(places, keys, strict=True)]
        batch = described(draws, [self._starts[place] for place in places], [self._shapes[place] for place in places])
        return batch.pin_memory() if self._device.type == "cuda" else batch
