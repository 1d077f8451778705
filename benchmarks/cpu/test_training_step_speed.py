"""A training step of the harness compared with the same step in plain torch.

lite0_fpn, batch 4 of 128x256, 19 classes, float32, channels last, only cross entropy. The plain step normalises,
predicts, resizes, computes torch's cross entropy, and steps SGD; ours adds seeding, the gradient norm, the check for
divergence and the diagnostics. Both are timed in turns, so that the machine's state does not affect the ratio. The
share outside the network is the part of the step that is not forward, cross entropy, backward or optimiser.
"""

import torch
import torch.nn.functional as F

from harness.cost.arms import LEARNING_RATE, generated_batch, schedule, trainer
from harness.cost.equivalence import ratio
from harness.cost.timing import Plan, take_turns

CLASSES, BATCH, SIZE = 19, 4, (128, 256)
CPU = torch.device("cpu")


def plain_step(made):
    """The plain torch step, on a trainer's network and optimiser."""

    def step(images, labels):
        made.network.train()
        logits, _ = made.network.decode(made.network.features(images.contiguous(memory_format=torch.channels_last)))
        logits = F.interpolate(logits, SIZE, mode="bilinear", align_corners=made.network.align_corners)
        loss = F.cross_entropy(logits, labels, ignore_index=255)
        made.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        made.optimizer.step()

    return step


def test_training_step(benchmark):
    settings = schedule(BATCH, SIZE, channels_last=True)
    ours, plain = (trainer("lite0_fpn", "cross_entropy", CLASSES, CPU, settings) for _ in range(2))
    images, labels = generated_batch(CLASSES, BATCH, SIZE)
    arms = {
        "ours": lambda: ours.step(images, labels, 0, LEARNING_RATE),
        "plain": lambda: plain_step(plain)(images, labels),
    }
    plan = Plan(warmup_iterations=3, rounds=20, settle=0)
    timings = benchmark.pedantic(take_turns, (arms, CPU, plan, "training step"), rounds=1)
    found = ratio(timings.nanoseconds["ours"], timings.nanoseconds["plain"])
    benchmark.extra_info["times the plain step"] = round(found.value, 3)
    benchmark.extra_info["90 % interval"] = f"{found.low:.3f} to {found.high:.3f}"
    benchmark.extra_info["share outside the network"] = round(max(0.0, 1 - 1 / found.value), 3)
    print(f"\nours over plain: {found.value:.3f} ({found.low:.3f} to {found.high:.3f})")
