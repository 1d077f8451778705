import math

import pytest
import torch

from methods.active_boundary import ActiveBoundary
from methods.lovasz_softmax import lovasz_softmax

CLASSES, HEIGHT, WIDTH = 4, 20, 24
STEPS = [(1, 0), (-1, 0), (0, -1), (0, 1), (-1, 1), (1, 1), (-1, -1), (1, -1), (0, 0)]


def batch(ignored, seed=0):
    """Logits float64 whose boundaries lie three pixels beside those of the labels."""
    torch.manual_seed(seed)
    coarse = torch.randint(0, CLASSES, (2, 3, 3))
    labels = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :HEIGHT, :WIDTH].contiguous()
    logits = 3.0 * torch.nn.functional.one_hot(labels.roll((3, 2), (1, 2)), CLASSES).movedim(-1, 1).double()
    logits = logits + 0.3 * torch.randn(logits.shape, dtype=torch.float64)
    labels[torch.rand(labels.shape) < ignored] = 255
    return logits, labels


def divergence(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def predicted(p, y, share, official):
    """The pixels of one image above the limit with their number, dilated; in "official" of all images together."""
    change = {}
    for image in range(len(p)):
        for r in range(HEIGHT):
            for c in range(WIDTH):
                change[image, r, c] = 0.0
                for dr, dc in ((1, 0), (0, 1)):
                    if r + dr < HEIGHT and c + dc < WIDTH:
                        pair = y[image][r][c], y[image][r + dr][c + dc]
                        if official or 255 not in pair:
                            change[image, r, c] += divergence(p[image][r][c], p[image][r + dr][c + dc])
    found = set()
    for group in [range(len(p))] if official else [[image] for image in range(len(p))]:
        own, limit = [key for key in change if key[0] in group], 1e-5
        while sum(change[key] > limit for key in own) > share * HEIGHT * WIDTH:
            limit *= 1.2
        for image, r, c in own:
            if change[image, r, c] > limit:
                found |= {(image, r + a, c + b) for a in (-1, 0, 1) for b in (-1, 0, 1)}
    return [key for key in sorted(found) if 0 <= key[1] < HEIGHT and 0 <= key[2] < WIDTH]


def distances(y, official):
    """M of one image, or None where it has no boundary."""
    edge = [
        (r, c)
        for r in range(HEIGHT)
        for c in range(WIDTH)
        if y[r][c] == 255 or (r + 1 < HEIGHT and y[r + 1][c] != y[r][c]) or (c + 1 < WIDTH and y[r][c + 1] != y[r][c])
    ]
    if not edge:
        return None
    exact = [[min(math.hypot(r - a, c - b) for a, b in edge) for c in range(WIDTH)] for r in range(HEIGHT)]
    return [[max(math.floor(d - 1), 0) for d in row] for row in exact] if official else exact


def by_pixel(logits, labels, share, official):
    p = logits.softmax(1).movedim(1, -1).tolist()
    y = labels.tolist()
    maps = [distances(each, official) for each in y]
    terms = []
    for image, r, c in predicted(p, y, share, official):
        if maps[image] is None:
            continue
        around = [(r + dr, c + dc) for dr, dc in STEPS]
        there = [0 <= a < HEIGHT and 0 <= b < WIDTH for a, b in around]
        if not official and any(y[image][a][b] == 255 for (a, b), inside in zip(around, there, strict=True) if inside):
            continue
        m = [maps[image][a][b] if inside else math.inf for (a, b), inside in zip(around, there, strict=True)]
        direction = m.index(min(m))
        if direction == 8:
            continue
        near = [p[image][min(max(a, 0), HEIGHT - 1)][min(max(b, 0), WIDTH - 1)] for a, b in around[:8]]
        scores = [divergence(each, p[image][r][c]) for each in near]
        total = math.log(sum(map(math.exp, scores)))
        target = [0.8 if n == direction else 0.2 / (8 if official else 7) for n in range(8)]
        entropy = -sum(t * (s - total) for t, s in zip(target, scores, strict=True))
        terms.append(entropy * min(m[8], 20) / 20)
    return sum(terms) / len(terms)


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize(("ignored", "share"), [(0.0, 0.01), (0.02, 0.05), (0.0, 1.0)])
def test_the_loss_is_the_sum_over_the_pixels_of_predicted_boundaries(variant, ignored, share):
    logits, labels = batch(ignored)
    method = ActiveBoundary([4], CLASSES, variant=variant, boundary_share=share, lovasz_weight=0, weight=0.5)
    (term,) = method.loss([], logits, labels, 0).values()
    expected = by_pixel(logits, labels, share, variant == "official")
    assert expected > 0
    assert term.item() == pytest.approx(0.5 * expected, rel=1e-12)


def test_lovasz_softmax_stands_beside_it():
    logits, labels = batch(0.02)
    terms = ActiveBoundary([4], CLASSES, lovasz_weight=0.5).loss([], logits, labels, 0)
    assert terms["lovasz_softmax"].item() == pytest.approx(
        0.5 * lovasz_softmax(logits.softmax(1), labels, 255)[0].item()
    )
    alone = ActiveBoundary([4], CLASSES, lovasz_weight=0).loss([], logits, labels, 0)
    assert alone == {"active_boundary": terms["active_boundary"]}


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_an_image_without_a_boundary_adds_nothing(variant):
    logits, labels = batch(0.0)
    method = ActiveBoundary([4], CLASSES, variant=variant, lovasz_weight=0)
    (term,) = method.loss([], logits, torch.ones_like(labels), 0).values()
    assert term.item() == 0
    (term,) = method.loss([], torch.zeros_like(logits), labels, 0).values()  # no predicted boundary
    assert term.item() == 0


@pytest.mark.slow
def test_a_step_moves_the_predicted_boundary_toward_the_labels():
    """Gradient descent on a logit map of two halves, whose border lies four pixels beside the labels'."""
    labels = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.long)
    labels[..., 12:] = 1
    logits = torch.zeros(1, 2, HEIGHT, WIDTH, dtype=torch.float64)
    logits[:, 0, :, :8], logits[:, 1, :, 8:] = 2.0, 2.0
    before = logits.argmax(1)
    method = ActiveBoundary([4], 2, lovasz_weight=0, boundary_share=0.1)
    for _ in range(400):
        logits = logits.detach().requires_grad_()
        method.loss([], logits, labels, 0)["active_boundary"].backward()
        logits = logits - 20 * logits.grad
    wrong = [(each != labels).double().mean().item() for each in (before, logits.argmax(1))]
    assert wrong[0] == pytest.approx(4 / WIDTH)
    assert wrong[1] < wrong[0]
