"""The arms of a measurement: a separate network for each, for training or for inference."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from harness import models
from harness.datasets import IGNORE_INDEX
from harness.errors import unknown
from harness.experiment.schema import Schedule, discovery
from harness.models.segmenter import Segmenter
from harness.training.trainer import Trainer
from methods.class_queues import Queues

# Generated label maps resemble CamVid's training labels: 4 % ignored pixels, 33 % of the valid ones in the most common
# of 11 classes, 0.3 % in the rarest, about ten classes per image.
CELLS, RAREST, IGNORED = 400, 1 / 200, 0.03
LABELS = f"{CELLS} Voronoi cells an image, the rarest class {RAREST:g} times as frequent as the commonest"
STEP_SIZE = (64, 128)  # image size of the training step before inference is timed
LEARNING_RATE = 0.01


def arm_names(baseline: str, methods: Sequence[str] | None) -> list[str]:
    """The baseline, then the other methods (default: all). Raises UserError for an unknown name."""
    known = discovery.names()
    chosen = list(known if methods is None else methods)
    for name in (baseline, *chosen):
        if name not in known:
            raise unknown("method", name, known)
    return list(dict.fromkeys([baseline, *chosen]))


def trainer(
    model: str, method: str, num_classes: int, device: torch.device, schedule: Schedule, graphs: bool = False
) -> Trainer:
    """A trainer with default options, full memory banks, and the same random network for every method.

    graphs: as in `Trainer`; a captured step keeps its memory.
    """
    settings = {
        "model": model,
        "method": method,
        "options": discovery.options(method),
        "seed": 0,
        "schedule": schedule.model_dump(mode="json"),
    }
    made = Trainer(settings, num_classes, device, weights="none", graphs=graphs)
    fill_memories(made.method)
    return made


def schedule(batch: int, size: tuple[int, int], precision: str = "float32", channels_last: bool = False) -> Schedule:
    """Training settings of a measured step: SGD with momentum, crops of `size` (height, width)."""
    given = {"batch": batch, "crop": size, "precision": precision, "channels_last": channels_last}
    return Schedule.model_validate({"iterations": 10**6, "learning_rate": LEARNING_RATE, "policy": "constant", **given})


@torch.no_grad()
def fill_memories(method: torch.nn.Module) -> None:
    """Fill a method's queues with random unit vectors, since they are full after some minutes of training."""
    for queues in (part for part in method.modules() if isinstance(part, Queues)):
        queues.vectors.copy_(F.normalize(torch.randn_like(queues.vectors), dim=-1))
        queues.filled.fill_(queues.length)


def generated_batch(num_classes: int, batch: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Images uint8 [B, 3, H, W] and labels int64 [B, H, W] with areas and class frequencies as in street scenes.

    Labels are `CELLS` Voronoi cells per image. Class frequencies fall geometrically to `RAREST` of the first; a share
    of `IGNORED` cells is ignored. A method's work depends on this: the rarest class often limits how many pixels it
    samples. Images have one colour per class, and noise.
    """
    numbers = np.random.default_rng(0)
    height, width = size
    frequencies = np.append((1 - IGNORED) * _long_tail(num_classes), IGNORED)
    labels = np.empty((batch, height, width), np.int64)
    for label in labels:
        elsewhere = np.ones((height, width), bool)
        elsewhere[numbers.integers(0, height, CELLS), numbers.integers(0, width, CELLS)] = False
        row, column = distance_transform_edt(elsewhere, return_distances=False, return_indices=True)
        classes = numbers.choice([*range(num_classes), IGNORE_INDEX], (height, width), p=frequencies)
        label[:] = classes[row, column]
    colors = numbers.integers(0, 200, (IGNORE_INDEX + 1, 3))
    noise = numbers.integers(0, 56, (batch, 3, height, width))
    images = (np.moveaxis(colors[labels], -1, 1) + noise).astype(np.uint8)
    return torch.from_numpy(images), torch.from_numpy(labels)


def _long_tail(num_classes: int) -> np.ndarray:
    falling = np.geomspace(1, RAREST, num_classes)
    return falling / falling.sum()


def inference_network(model: str, method: str, num_classes: int) -> Segmenter:
    """A new network on the CPU with the `inference_state` after one training step with `method`.

    It has no auxiliary heads, as in an export.
    """
    cpu = torch.device("cpu")
    trained = trainer(model, method, num_classes, cpu, schedule(2, STEP_SIZE))
    trained.step(*generated_batch(num_classes, 2, STEP_SIZE), 0, LEARNING_RATE)
    network = models.build(model, num_classes, weights="none")
    network.load_inference_state(trained.network.inference_state())
    network.auxiliary_head = None
    return network.eval().requires_grad_(False)
