"""The losses compared with plain loops over layers, images and classes.

Batch 2, 256 channels, 128x256 at the finest layer, 19 classes, forward and backward. The loops compute the same loss.
"""

import math
import time

import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import distance_transform_edt

from methods.contextrast import Contextrast
from methods.pixel_contrast import PixelContrast

CLASSES, CHANNELS, HEIGHT, WIDTH = 19, 256, 128, 256


def inputs(layers):
    """Embeddings, logits and labels: blocks of 16 pixels at the finest layer, 85 % correctly classified."""
    generator = torch.Generator().manual_seed(0)
    shape = (2, HEIGHT, WIDTH)
    coarse = torch.randint(0, CLASSES, (2, HEIGHT // 16, WIDTH // 16), generator=generator)
    labels = coarse.repeat_interleave(16, 1).repeat_interleave(16, 2)
    wrong = F.interpolate(torch.rand(2, 1, HEIGHT // 8, WIDTH // 8, generator=generator), shape[1:], mode="bilinear")[
        :, 0
    ]
    prediction = torch.where(wrong > 0.68, (labels + 1) % CLASSES, labels)
    logits = F.one_hot(prediction, CLASSES).movedim(-1, 1).float()
    labels = labels.repeat_interleave(4, 1).repeat_interleave(4, 2)
    sizes = [(2, CHANNELS, HEIGHT >> i, WIDTH >> i) for i in range(layers)]
    return [torch.randn(size, generator=generator).requires_grad_() for size in sizes], logits, labels


def contextrast_by_loops(embeddings, logits, labels):
    """Contextrast with default options: one distance transform per region on the CPU, and one gather per class."""
    prediction = logits.argmax(1)
    units = [F.normalize(z) for z in embeddings]
    grids = [labels[:, :: labels.shape[1] // z.shape[2], :: labels.shape[2] // z.shape[3]] for z in units]
    guesses = [prediction[:, :: HEIGHT // z.shape[2], :: WIDTH // z.shape[3]] for z in units]
    anchors = [
        {n: z.movedim(1, -1)[y == n].mean(0) for n in range(CLASSES) if (y == n).any()}
        for z, y in zip(units, grids, strict=True)
    ]
    total = torch.zeros(())
    for layer, (z, y, p) in enumerate(zip(units, grids, guesses, strict=True)):
        harder = {}
        for n in anchors[layer]:
            chosen = []
            for b in range(2):
                region = (y[b] == n) & (p[b] != n)
                distance = torch.from_numpy(distance_transform_edt(region.numpy()))[region]
                order = distance.argsort()[: math.ceil(0.5 * len(distance))]
                chosen.append(z[b][:, region][:, order].T)
            harder[n] = torch.cat(chosen)
        losses = []
        for n, own in anchors[layer].items():
            anchor = F.normalize(0.5 * own + 0.5 * anchors[-1][n] if n in anchors[-1] else own, dim=0)
            negatives = torch.cat([harder[m] for m in harder if m != n]) @ anchor / 0.1
            positives = z.movedim(1, -1)[y == n] @ anchor / 0.1
            losses.append(F.softplus(negatives.logsumexp(0) - positives).mean())
        total = total + (0.1, 0.3, 0.7, 1.0)[layer] * torch.stack(losses).mean()
    return 0.1 * total


def pixel_contrast_by_loops(embedding, logits, labels):
    """PixelContrast with default options: one gather per (image, class) pair, and one loss per anchor."""
    z, y, p = F.normalize(embedding), labels[:, ::4, ::4], logits.argmax(1)
    vectors, classes = [], []
    for b in range(2):
        present = [n for n in range(CLASSES) if (y[b] == n).any()]
        views = min(512 // len(present), 100)
        for n in present:
            for region, count in (
                ((y[b] == n) & (p[b] != n), views // 2),
                ((y[b] == n) & (p[b] == n), views - views // 2),
            ):
                places = region.nonzero()
                places = places[torch.randperm(len(places))[:count]]
                vectors.append(z[b][:, places[:, 0], places[:, 1]].T)
                classes += [n] * len(places)
    vectors, classes = torch.cat(vectors), torch.tensor(classes)
    losses = []
    for i in range(len(vectors)):
        scores = vectors @ vectors[i] / 0.1
        same = classes == classes[i]
        negatives = scores[~same].logsumexp(0)
        same[i] = False
        losses.append(F.softplus(negatives - scores[same]).mean())
    return 0.1 * torch.stack(losses).mean()


def seconds(function, *arguments):
    started = time.perf_counter()
    loss = function(*arguments)
    loss.backward()
    return loss.item(), time.perf_counter() - started


def compare(benchmark, name, vectorised, loops, embeddings):
    """Time both; print and record the ratio. Both draw randomly, so the losses agree only approximately."""
    loops_loss, loops_seconds = min((seconds(loops) for _ in range(2)), key=lambda result: result[1])
    for z in embeddings:
        z.grad = None
    loss, _ = benchmark.pedantic(seconds, (vectorised,), rounds=5, warmup_rounds=1)
    assert loss == pytest.approx(loops_loss, rel=0.02)
    ratio = loops_seconds / benchmark.stats.stats.median
    benchmark.extra_info["times_faster_than_loops"] = ratio
    print(f"\n{name}: {benchmark.stats.stats.median:.2f} s, loops {loops_seconds:.2f} s, {ratio:.1f} times faster")


def test_contextrast_with_boundary_aware_negatives(benchmark):
    embeddings, logits, labels = inputs(layers=4)
    method = Contextrast([4] * 4, CLASSES)
    compare(
        benchmark,
        "contextrast, four layers",
        lambda: method.loss(embeddings, logits, labels, 0)["pixel_anchor"],
        lambda: contextrast_by_loops(embeddings, logits, labels),
        embeddings,
    )


def test_pixel_contrast(benchmark):
    embeddings, logits, labels = inputs(layers=1)
    method = PixelContrast([4], CLASSES)
    compare(
        benchmark,
        "pixel contrast",
        lambda: method.loss(embeddings, logits, labels, 0)["pixel_contrast"],
        lambda: pixel_contrast_by_loops(embeddings[0], logits, labels),
        embeddings,
    )


def test_contextrast_beside_the_network(benchmark):
    """HRNet-W48, one crop of 512x1024: the method with its heads over the network with its cross entropy."""
    from harness import models

    network = models.build("hrnet_w48", CLASSES, "none").train()
    method = Contextrast(network.channels, CLASSES)
    images = torch.randint(0, 256, (1, 3, 512, 1024), dtype=torch.uint8)
    _, logits, labels = inputs(layers=1)
    logits, labels = logits[:1], labels[:1]
    features = [map_.detach().requires_grad_() for map_ in network.features(images)]

    def network_loss():
        return torch.stack(list(network.losses(*network.decode(network.features(images)), labels).values())).sum()

    _, whole = seconds(network_loss)
    benchmark.pedantic(seconds, (lambda: method(features, logits, labels, 0)["pixel_anchor"],), rounds=3)
    ratio = benchmark.stats.stats.median / whole
    benchmark.extra_info["share_of_the_network"] = ratio
    print(f"\ncontextrast: {benchmark.stats.stats.median:.2f} s, HRNet-W48 {whole:.1f} s, a share of {ratio:.3f}")
