"""Contextrast's step, which does not make its embeddings, beside the same loss of embeddings that are made.

Forward and backward of heads and loss, float32, channels last; run with `--benchmark-enable -s`. The ratio is that of
the processor's time, which other programs disturb less than the clock's.
"""

import statistics
import time

import pytest
import torch
import torch.nn.functional as F

from methods.contextrast import Contextrast
from methods.contextrast_pp import ContextrastPP

SHAPES = {  # channels of the maps, fine to coarse; images; their height and width; classes
    "lite0_fpn": ((24, 40, 112, 320), 4, (360, 480), 11),
    "hrnet_w48": ((48, 96, 192, 384), 2, (512, 1024), 19),
}


def inputs(channels, images, size, classes):
    """Blocks of classes with a twentieth of the pixels ignored, and predictions that are wrong in smooth spots."""
    torch.manual_seed(0)
    sizes = [(-(-size[0] // stride), -(-size[1] // stride)) for stride in (4, 8, 16, 32)]
    coarse = torch.randint(0, classes, (images, 1, size[0] // 40, size[1] // 40)).float()
    labels = F.interpolate(coarse, size)[:, 0].long()
    labels[torch.rand(labels.shape) < 0.05] = 255
    spots = F.interpolate(torch.rand(images, 1, size[0] // 32, size[1] // 32), sizes[0], mode="bilinear")[:, 0]
    grid = F.interpolate(labels[:, None].float(), sizes[0])[:, 0].long().clamp(max=classes - 1)
    prediction = torch.where(spots > 0.65, (grid + 1) % classes, grid)
    logits = F.one_hot(prediction, classes).movedim(-1, 1).float()
    maps = [torch.randn(images, c, *s) for c, s in zip(channels, sizes, strict=True)]
    return [x.to(memory_format=torch.channels_last).requires_grad_() for x in maps], logits, labels


@pytest.mark.parametrize("kind", [Contextrast, ContextrastPP])
@pytest.mark.parametrize("shape", SHAPES)
def test_step_without_embeddings(benchmark, shape, kind):
    if benchmark.disabled:
        pytest.skip("run with --benchmark-enable -s")
    maps, logits, labels = inputs(*SHAPES[shape])
    method = kind(SHAPES[shape][0], SHAPES[shape][-1]).train().to(memory_format=torch.channels_last)
    method.observing = False

    def without():
        sum(method(maps, logits, labels, 0).values()).backward()

    def with_embeddings():
        sum(method.loss(method.embed(maps), logits, labels, 0).values()).backward()

    def seconds(step):
        started = time.process_time()
        step()
        return time.process_time() - started

    without(), with_embeddings()
    taken = [(seconds(with_embeddings), seconds(without)) for _ in range(5)]
    ratio = statistics.median(plain / folded for plain, folded in taken)
    benchmark.extra_info["times_faster_than_with_embeddings"] = ratio
    benchmark.pedantic(without, rounds=3)
    median = benchmark.stats.stats.median
    print(f"\n{kind.__name__}, {shape}: {median:.2f} s, {ratio:.1f} times faster than with its embeddings")
