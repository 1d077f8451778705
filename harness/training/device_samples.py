"""Training samples augmented on a GPU; CPU threads draw the random numbers.

Decoded images stay on the GPU if they all fit; otherwise each batch's images are copied there.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.compute import devices
from harness.compute.graph import Graphs
from harness.datasets.cache import BYTES_A_PIXEL, CHANNELS, for_each, shapes
from harness.datasets.dataset import Dataset
from harness.datasets.device_augmentation import DeviceAugmentation, described, packed
from harness.training.samples import TrainingSamples

PART = 0.25  # share of a GPU's memory for decoded images
AHEAD = 6  # batches drawn in advance
LEAST_THREADS = 4  # even with few cores: the threads mostly wait for memory

Bytes = NDArray[np.uint8]


class DeviceSamples:
    """Batches of a run's samples on `device`, where decoded images may take up to `room` bytes.

    A batch equals that of `samples.batches` up to rounding (see `device_augmentation`) and depends only on its keys.
    `slots`: this rank's slots of each batch; None: all. `threads`: number of threads that read images and draw.
    """

    def __init__(
        self,
        dataset: Dataset,
        samples: TrainingSamples,
        device: torch.device,
        room: float,
        slots: range | None = None,
        threads: int = LEAST_THREADS,
    ) -> None:
        self._samples, self._device = samples, device
        self._slots = range(samples.batch) if slots is None else slots
        self._threads = max(threads, LEAST_THREADS)
        self._shapes = shapes(dataset, samples.samples)
        sizes = [height * width for height, width in self._shapes]
        self.resident = BYTES_A_PIXEL * sum(sizes) <= room
        number = sum(sizes) if self.resident else len(self._slots) * max(sizes)
        self._pixels = torch.empty(number, dtype=torch.int32, device=device)
        self._starts = _starts(sizes)
        self._labels: list[Bytes] = []  # of the images on the device, for the class rule
        if self.resident:
            self._fill()
        augment = DeviceAugmentation(samples.augmentation, device)
        self._augment = lambda batch: augment(self._pixels, batch)
        self._graphs = Graphs(self._augment, "augmentation") if device.type == "cuda" else None

    def batches(self, start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches start..stop-1 on the device: images uint8 [B, 3, h, w], labels uint8 [B, h, w].

        Each batch overwrites the previous one's memory.
        """
        keys = iter(range(start, stop))
        drawn: deque[Future[tuple[Tensor, Tensor | None]]] = deque()
        pool = ThreadPoolExecutor(self._threads, "draw")
        try:
            drawn.extend(pool.submit(self.draw, key) for key in islice(keys, AHEAD))
            while drawn:
                batch, sent = drawn.popleft().result()
                drawn.extend(pool.submit(self.draw, key) for key in islice(keys, 1))
                if sent is not None:
                    self._place(0, sent.to(self._device, non_blocking=True))
                yield self._graphs(None, batch) if self._graphs else self._augment(batch)
        finally:
            pool.shutdown(cancel_futures=True)

    def _fill(self) -> None:
        self._labels = [np.empty(0, np.uint8)] * len(self._shapes)

        def keep(place: int) -> None:
            image, label = self._samples.reader.read(self._samples.samples[place])
            self._place(self._starts[place], torch.tensor(_bytes([image], [label]), device=self._device))
            self._labels[place] = label

        for_each(keep, f"decode images onto {self._device}", range(len(self._shapes)))

    def _place(self, start: int, content: Tensor) -> None:
        """Pack the pixels in `content` (as `_bytes` lays them out) into the device's buffer, from `start` on."""
        number = len(content) // BYTES_A_PIXEL
        colors, labels = content.split([CHANNELS * number, number])
        self._pixels[start : start + number].copy_(packed(colors, labels))

    def draw(self, iteration: int) -> tuple[Tensor, Tensor | None]:
        """The random draws of a batch and, unless they are already on the device, its images and labels."""
        places = [self._samples.index(iteration, slot) for slot in self._slots]
        sent = None
        if self.resident:
            labels, starts = [self._labels[place] for place in places], [self._starts[place] for place in places]
        else:
            sent, labels, starts = self._read(places)
        keys = [self._samples.key(iteration, slot) for slot in self._slots]
        draws = [self._samples.augmentation.draw(label, key) for label, key in zip(labels, keys, strict=True)]
        batch = described(draws, starts, [label.shape for label in labels])
        return batch.pin_memory() if self._device.type == "cuda" else batch, sent

    def _read(self, places: list[int]) -> tuple[Tensor, list[Bytes], list[int]]:
        """The pixels of some samples (as `_bytes` lays them out), their labels, and the start of each."""
        images, labels = zip(
            *(self._samples.reader.read(self._samples.samples[place]) for place in places), strict=True
        )
        sizes = [label.size for label in labels]
        sent = torch.empty(BYTES_A_PIXEL * sum(sizes), dtype=torch.uint8, pin_memory=self._device.type == "cuda")
        _bytes(images, labels, sent.numpy())
        return sent, list(labels), _starts(sizes)


def room_on(device: torch.device) -> float:
    """Bytes of GPU memory that one run's decoded images may take."""
    return PART * torch.cuda.mem_get_info(device)[1] / devices.sharers()


def _bytes(images: Sequence[Bytes], labels: Sequence[Bytes], into: Bytes | None = None) -> Bytes:
    """The colours of all images pixel by pixel, followed by all labels."""
    return np.concatenate([array.reshape(-1) for array in (*images, *labels)], out=into)


def _starts(sizes: list[int]) -> list[int]:
    """The start offset of each of several consecutive pieces."""
    return [0, *np.cumsum(sizes)[:-1].tolist()]
