"""TensorBoard logging of a training run: its curve, and predictions for a few images."""

import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from harness.datasets.dataset import Dataset
from harness.datasets.pictures import narrowed, painted
from harness.errors import UserError
from harness.models.inference import predict
from harness.models.segmenter import Segmenter
from harness.runs.ending import is_out_of_memory

VERSION = "2.21.0"  # of tensorboard, which is not in the lock file
FOLDER = "tensorboard"  # in a run's folder
IMAGES = 3
WIDEST = 512  # pixels of each of the pictures side by side
LAST_LOSS = "gradient_norm"  # columns up to this one are losses, later ones are diagnostics
UNGROUPED = ("learning_rate", "seconds")


def require_tensorboard() -> None:
    """Raise UserError if tensorboard cannot be imported."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise UserError(f"--tensorboard needs tensorboard ({error}): pip install tensorboard=={VERSION}") from None


class Board:
    """Writes TensorBoard event files to the run's `folder`, from iteration `start` on.

    Later iterations in earlier event files (after a kill, say) are purged. If there are no event files yet, the
    history's `rows` are written first. Pictures show `IMAGES` evenly spaced images of the evaluation split. Nothing
    here changes random generators or the network's state.
    """

    def __init__(self, folder: Path, dataset: Dataset, rows: Sequence[dict[str, Any]], start: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        is_new = not any((folder / FOLDER).glob("events.*"))
        self._writer = SummaryWriter(str(folder / FOLDER), purge_step=start + 1)  # type: ignore[no-untyped-call]
        self._dataset = dataset
        samples = dataset.samples(dataset.evaluation_split)
        places = np.linspace(0, len(samples) - 1, min(IMAGES, len(samples))).round().astype(int)
        self._samples = [samples[place] for place in places]
        for row in rows if is_new else []:
            self.add(row)

    def __enter__(self) -> "Board":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._writer.close()

    def add(self, row: dict[str, Any]) -> None:
        """Write a history row: one scalar per number, and for a vector one per class, bin or map."""
        group, step = "losses", row["iteration"]
        for name, value in row.items():
            if name == "iteration":
                continue
            tag = name if name in UNGROUPED else f"{group}/{name}"
            named = {tag: value}
            if isinstance(value, list):
                numbered = name.startswith(("distance_bins/", "by_layer/"))  # explained in methods.method.Method
                places = range(1, len(value) + 1) if numbered else self._dataset.classes
                named = {f"{tag}/{place}": number for place, number in zip(places, value, strict=True)}
            for each, number in named.items():
                if not math.isnan(number):
                    self._writer.add_scalar(each, number, step)
            if name == LAST_LOSS:
                group = "diagnostics"
        self._writer.flush()  # before the checkpoint: resuming from it purges only later iterations

    def show(self, network: Segmenter, iteration: int) -> None:
        """Write image, ground truth and prediction of the chosen images, side by side.

        If this runs out of memory, training continues without pictures.
        """
        try:
            with _evaluating(network):
                for sample in self._samples:
                    image, label = self._dataset.read(sample)
                    prediction = predict(network, image, "whole")
                    drawn = [image, painted(label, self._dataset), painted(prediction, self._dataset)]
                    picture = np.concatenate([narrowed(each, WIDEST) for each in drawn], axis=1)
                    self._writer.add_image(f"examples/{sample.id}", picture, iteration, dataformats="HWC")
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            print(
                "warning: out of memory while drawing TensorBoard's pictures: training continues without them",
                file=sys.stderr,
                flush=True,
            )
            self._samples = []
        self._writer.flush()


@contextmanager
def _evaluating(network: Segmenter) -> Iterator[None]:
    """Put the network into eval mode for the block, so that batch norm's statistics and random state stay."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)
