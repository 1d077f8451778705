"""The arms of a measurement, each with a network of its own: one in training, and what inference keeps of it."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from harness import models
from harness.errors import unknown
from harness.experiment.schema import Schedule, discovery
from harness.models.segmenter import Segmenter
from harness.training.trainer import Trainer
from methods.class_queues import Queues

BLOCK = 64  # pixels: the side of a generated label map's squares
STEP_SIZE = (64, 128)  # of the one training step whose network is then timed
LEARNING_RATE = 0.01


def arm_names(baseline: str, methods: Sequence[str] | None) -> list[str]:
    """The baseline and then the other methods (default: all). Raises UserError for an unknown one."""
    known = discovery.names()
    chosen = list(known if methods is None else methods)
    for name in (baseline, *chosen):
        if name not in known:
            raise unknown("method", name, known)
    return list(dict.fromkeys([baseline, *chosen]))


def trainer(model: str, method: str, num_classes: int, device: torch.device, schedule: Schedule) -> Trainer:
    """A network from scratch, the same for every method, with the method at its default options, and full memories."""
    settings = {
        "model": model,
        "method": method,
        "options": discovery.options(method),
        "seed": 0,
        "schedule": schedule.model_dump(mode="json"),
    }
    made = Trainer(settings, num_classes, device, weights="none")
    fill_memories(made.method)
    return made


def schedule(batch: int, size: tuple[int, int], precision: str = "float32", channels_last: bool = False) -> Schedule:
    """The training settings of a measured step: SGD with momentum, crops of `size` (height, width)."""
    given = {"batch": batch, "crop": size, "precision": precision, "channels_last": channels_last}
    return Schedule.model_validate({"iterations": 10**6, "learning_rate": LEARNING_RATE, "policy": "constant", **given})


@torch.no_grad()
def fill_memories(method: torch.nn.Module) -> None:
    """Fill the queues of a method with random unit vectors, as they are after the first minutes of training."""
    for queues in (part for part in method.modules() if isinstance(part, Queues)):
        queues.vectors.copy_(F.normalize(torch.randn_like(queues.vectors), dim=-1))
        queues.filled.fill_(queues.length)


def generated_batch(num_classes: int, batch: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Images uint8 [B, 3, H, W] and labels int64 [B, H, W]: squares of random classes, each class in a colour."""
    generator = torch.Generator().manual_seed(0)
    height, width = size
    cells = torch.randint(0, num_classes, (batch, -(-height // BLOCK), -(-width // BLOCK)), generator=generator)
    labels = cells.repeat_interleave(BLOCK, 1)[:, :height].repeat_interleave(BLOCK, 2)[:, :, :width].contiguous()
    colours = torch.randint(0, 200, (num_classes, 3), generator=generator)
    noise = torch.randint(0, 56, (batch, 3, height, width), generator=generator)
    return (colours[labels].movedim(-1, 1) + noise).to(torch.uint8).contiguous(), labels


def inference_network(model: str, method: str, num_classes: int) -> Segmenter:
    """What inference keeps of a network after one training step with `method`, on the CPU: a network of its own.

    It is built anew and given `inference_state` alone; auxiliary heads are gone, as in an export.
    """
    cpu = torch.device("cpu")
    trained = trainer(model, method, num_classes, cpu, schedule(2, STEP_SIZE))
    trained.step(*generated_batch(num_classes, 2, STEP_SIZE), 0, LEARNING_RATE)
    network = models.build(model, num_classes, weights="none")
    network.load_inference_state(trained.network.inference_state())
    network.auxiliary_head = None
    return network.eval().requires_grad_(False)
