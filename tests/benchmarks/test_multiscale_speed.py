"""Multi-scale contrast against a loop over (image, class) pairs; run with `--benchmark-enable -s`.

Batch 2, 256 channels, 128x256 at the finest of four scales, 19 classes, forward and backward. The loop computes the
same loss from samples drawn by the same rule: it indexes one pair at a time, which makes a gradient of the size of the
whole map for each, and holds every similarity for the backward pass.
"""

import time

import pytest
import torch
import torch.nn.functional as F

from methods.multiscale_contrast import MultiscaleContrast

CLASSES, CHANNELS, HEIGHT, WIDTH = 19, 256, 128, 256
WEIGHTS = (1.0, 0.7, 0.4, 0.1)


def inputs(rare):
    """Embeddings, and labels in blocks of 16 pixels of the finest scale; `rare`: one class has 6x6 pixels an image."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES - rare, (2, HEIGHT // 16, WIDTH // 16), generator=generator)
    labels = labels.repeat_interleave(64, 1).repeat_interleave(64, 2)
    if rare:
        labels[:, 80:104, 80:104] = CLASSES - 1
    sizes = [(2, CHANNELS, HEIGHT >> i, WIDTH >> i) for i in range(4)]
    return [torch.randn(size, generator=generator).requires_grad_() for size in sizes], labels


def samples_by_loops(embedding, labels):
    """For each (image, class) pair of five pixels or more its V unit vectors and its class."""
    stride = labels.shape[1] // embedding.shape[2]
    y = labels[:, ::stride, ::stride]
    sampled = []
    for b in range(len(y)):
        places = {n: (y[b] == n).nonzero() for n in range(CLASSES)}
        places = {n: where for n, where in places.items() if len(where) >= 5}
        views = min(*map(len, places.values()), 2500, 5000 // len(places))
        for n, where in places.items():
            where = where[torch.randperm(len(where))[:views]]
            sampled.append((F.normalize(embedding[b][:, where[:, 0], where[:, 1]].T), n))
    return sampled


def info_nce_by_loops(anchors, keys, same_scale):
    """InfoNCE, the anchors of one pair at a time."""
    vectors = torch.cat([v for v, _ in keys])
    classes = torch.cat([torch.full((len(v),), n) for v, n in keys])
    start, total, counted = 0, 0.0, 0
    for own, n in anchors:
        scores = own @ vectors.T / 0.1
        negatives = scores.masked_fill(classes == n, -torch.inf).logsumexp(1, keepdim=True)
        positive = (classes == n).repeat(len(own), 1)
        if same_scale:
            positive[torch.arange(len(own)), torch.arange(start, start + len(own))] = False
        start += len(own)
        counted += len(own)
        if positive.any():
            terms = F.softplus(negatives - scores) * positive
            total = total + (terms.sum(1) / positive.sum(1)).sum()
    return total / counted


def multiscale_by_loops(embeddings, labels):
    """MultiscaleContrast with its default options."""
    scales = [samples_by_loops(z, labels) for z in embeddings]
    within = sum(w * info_nce_by_loops(s, s, True) for w, s in zip(WEIGHTS, scales, strict=True))
    return 0.1 * (within + sum(info_nce_by_loops(scales[0], s, False) for s in scales[2:]))


def seconds(function):
    started = time.perf_counter()
    loss = function()
    loss.backward()
    return loss.item(), time.perf_counter() - started


@pytest.mark.parametrize("rare", [True, False], ids=["a_rare_class", "the_whole_budget"])
def test_multiscale_contrast(benchmark, rare):
    if benchmark.disabled:
        pytest.skip("run with --benchmark-enable -s")
    embeddings, labels = inputs(rare)
    logits = torch.zeros(2, CLASSES, HEIGHT, WIDTH)
    method = MultiscaleContrast([4] * 4, CLASSES)
    loops_loss, loops_seconds = seconds(lambda: multiscale_by_loops(embeddings, labels))
    for z in embeddings:
        z.grad = None

    def vectorised():
        return seconds(lambda: sum(method.loss(embeddings, logits, labels, 0).values()))

    loss, _ = benchmark.pedantic(vectorised, rounds=3, warmup_rounds=1)
    assert loss == pytest.approx(loops_loss, rel=0.02)  # both draw at random
    ratio = loops_seconds / benchmark.stats.stats.median
    benchmark.extra_info["times_faster_than_loops"] = ratio
    number = int(method.diagnostics["anchors"])
    print(f"\nmulti-scale, {number} pixels at the finest scale: {benchmark.stats.stats.median:.2f} s, ", end="")
    print(f"loops {loops_seconds:.2f} s, {ratio:.1f} times faster")
