"""Training samples as a function of (seed, iteration, slot) only.

Which image fills a slot of the batch, and how it is cropped, flipped and colour-jittered, depends neither on the number
of workers or ranks nor on interruptions.
"""

import signal
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from harness.datasets.augmentation import Augmentation
from harness.datasets.cache import Reads
from harness.datasets.dataset import Dataset as DataSet
from harness.datasets.readers import Sample
from harness.experiment.schema import Schedule

_ORDER, _AUGMENTATION, _ITERATION = range(3)  # separate streams of random numbers from one seed
_SUBSET = 0  # seed for picking a share of the images; the same in all runs


def iteration_seed(seed: int, iteration: int, rank: int = 0) -> int:
    """The 64-bit seed of a rank's generators in one iteration, distinct for every (seed, iteration, rank)."""
    key = (seed, _ITERATION, iteration, rank) if rank else (seed, _ITERATION, iteration)
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0])


def slots_of(rank: int, number: int, batch: int) -> range:
    """The batch slots of rank `rank` of `number`, where `number` divides `batch`."""
    return range(rank * batch // number, (rank + 1) * batch // number)


class TrainingSamples(Dataset):
    """Maps (iteration, slot) to (image uint8 [h, w, 3] RGB, label uint8 [h, w]).

    Every epoch is shuffled anew.
    """

    def __init__(self, reader: Reads, samples: list[Sample], augmentation: Augmentation, seed: int, batch: int) -> None:
        self.reader, self.samples, self.augmentation = reader, samples, augmentation
        self.seed, self.batch = seed, batch

    def index(self, iteration: int, slot: int) -> int:
        """The index of the sample in `slot` of `iteration`."""
        epoch, position = divmod(iteration * self.batch + slot, len(self.samples))
        return int(_order(self.seed, epoch, len(self.samples))[position])

    def key(self, iteration: int, slot: int) -> tuple[int, int, int, int]:
        """The seed of the augmentation in `slot` of `iteration`."""
        return self.seed, _AUGMENTATION, iteration, slot

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, Tensor]:
        image, label = self.reader.read(self.samples[self.index(*key)])
        image, label = self.augmentation(image, label, self.key(*key))
        return torch.from_numpy(image), torch.from_numpy(label)


def training_images(dataset: DataSet, schedule: Schedule) -> list[Sample]:
    """The training images of this schedule (`train_share` of them, at least one), in the data set's order."""
    samples = dataset.samples(dataset.train_split)
    number = max(1, round(schedule.train_share * len(samples)))
    chosen = np.random.default_rng(_SUBSET).permutation(len(samples))[:number]
    return [samples[index] for index in sorted(chosen)]


def training_samples(
    reader: Reads, samples: list[Sample], schedule: Schedule, seed: int, pad: tuple[int, ...]
) -> TrainingSamples:
    """The augmented samples of a run; `pad` is the network's `pad_value`."""
    augmentation = Augmentation(
        crop=schedule.crop,
        scale=schedule.scale,
        fit=schedule.fit,
        flip=schedule.flip,
        photometric=schedule.photometric.model_dump() if schedule.photometric else None,
        pad=pad,
    )
    return TrainingSamples(reader, samples, augmentation, seed, schedule.batch)


def batches(
    samples: TrainingSamples, start: int, stop: int, workers: int, slots: range | None = None, pinned: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of iterations start..stop-1: images uint8 [B, 3, h, w] and labels uint8 [B, h, w].

    Channels are innermost in memory, as decoded. `slots`: only these of each batch. `pinned`: in pinned memory, for
    asynchronous copies to a GPU.
    """
    chosen = range(samples.batch) if slots is None else slots
    keys = ([(iteration, slot) for slot in chosen] for iteration in range(start, stop))
    loader = DataLoader(
        samples,
        batch_sampler=keys,
        num_workers=workers,
        pin_memory=pinned,
        worker_init_fn=_begin_worker,
        prefetch_factor=4 if workers else None,
    )
    for images, labels in loader:
        yield images.permute(0, 3, 1, 2), labels


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng((seed, _ORDER, epoch)).permutation(count)


def _begin_worker(_: int) -> None:
    import cv2

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    # Ignore the first SIGTERM: torchrun sends it to all processes, and training needs its workers up to the checkpoint.
    signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
