"""The three hottest paths compared with a lower bound for this machine.

The machine's rates are measured first: FLOP/s by a 1024x1024 float32 matrix product, bytes/s by a copy of 64 MiB (read
and written). A floor is a path's operations or bytes divided by that rate, which no implementation on this machine can
beat, apart from caches.

Training step, lite0_fpn, batch 4 of 128x256: three times the forward pass's FLOPs (the backward pass needs two).
Contextrast's loss, batch 2, 256 channels, four layers from 128x256: every embedding is read once for the class means,
and read once and its gradient written once in the backward pass. Counts of a 1024x2048 image in six widths: for two
maps, the minimum and maximum over squares, each by a pass along rows and one along columns that read and write a byte
per pixel.
"""

import time

import numpy as np
import pytest
import torch

from harness.cost.arms import LEARNING_RATE, generated_batch, schedule, trainer
from harness.cost.complexity import flops
from harness.evaluation.counts import DEFAULT_WIDTHS, count_image
from methods.contextrast import Contextrast

CPU, CLASSES = torch.device("cpu"), 19


def rate(function, amount):
    """The best rate in operations or bytes per second, for a function that takes `amount` of them."""
    taken = []
    for _ in range(8):
        start = time.perf_counter()
        function()
        taken.append(time.perf_counter() - start)
    return amount / min(taken)


@pytest.fixture(scope="module")
def operations_per_second():
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    return rate(lambda: a @ b, 2 * 1024**3)


@pytest.fixture(scope="module")
def bytes_per_second():
    a, b = torch.zeros(2**24), torch.zeros(2**24)
    return rate(lambda: a.copy_(b), 2 * 2**26)


def say(benchmark, amount, per_second, unit):
    floor = amount / per_second
    ours = benchmark.stats.stats.min
    benchmark.extra_info[f"floor, {unit}"] = f"{amount / 1e9:.3g} G at {per_second / 1e9:.3g} G/s"
    benchmark.extra_info["floor, ms"] = round(1000 * floor, 1)
    benchmark.extra_info["times the floor"] = round(ours / floor, 1)
    print(f"\n{1000 * ours:.1f} ms, floor {1000 * floor:.1f} ms: {ours / floor:.1f} times")


def test_training_step_floor(benchmark, operations_per_second):
    made = trainer("lite0_fpn", "cross_entropy", CLASSES, CPU, schedule(4, (128, 256), channels_last=True))
    images, labels = generated_batch(CLASSES, 4, (128, 256))
    benchmark.pedantic(made.step, (images, labels, 0, LEARNING_RATE), rounds=5, warmup_rounds=2)
    say(benchmark, 3 * flops(made.network.eval(), images.float()), operations_per_second, "FLOPs")


def test_contextrast_loss_floor(benchmark, bytes_per_second):
    _, labels = generated_batch(CLASSES, 2, (512, 1024))
    logits = torch.randn(2, CLASSES, 128, 256, generator=torch.Generator().manual_seed(0))
    embeddings = [torch.randn(2, 256, 128 >> i, 256 >> i).requires_grad_() for i in range(4)]
    method = Contextrast([4] * 4, CLASSES)

    def step():
        method.loss(embeddings, logits, labels, 0)["pixel_anchor"].backward()

    benchmark.pedantic(step, rounds=5, warmup_rounds=1)
    say(benchmark, 3 * 4 * sum(z.numel() for z in embeddings), bytes_per_second, "bytes")


def test_counting_floor(benchmark, bytes_per_second):
    _, labels = generated_batch(CLASSES, 1, (1024, 2048))
    label = labels[0].numpy().astype(np.uint8)
    prediction = np.minimum(np.roll(label, 3, axis=1), CLASSES - 1)  # a prediction holds no ignored pixel
    benchmark.pedantic(count_image, (prediction, label, CLASSES), rounds=10, warmup_rounds=2)
    say(benchmark, label.size * len(DEFAULT_WIDTHS) * 2 * 2 * 2 * 2, bytes_per_second, "bytes")
