import math

import pytest
import torch
import torch.nn.functional as F
from memory_rows import rows
from observer import Observer

from methods import pixel_contrast
from methods.pixel_contrast import PixelContrast
from methods.pixel_contrast_synthetic import PixelContrastSynthetic

CLASSES, TEMPERATURE, WEIGHT = 4, 0.2, 0.1


def known_random(shape, dtype=None, device=None):
    """Numbers from 0 to 1, the same at every call of a shape."""
    return (torch.arange(math.prod(shape), dtype=torch.double).view(shape) * 0.618 % 1).to(dtype or torch.float)


def case(seed, batch=2):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(batch, 8, 4, 6, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.randint(0, CLASSES, (batch, 4, 6), generator=generator)
    labels[0, 0] = 255
    return z, torch.randn(batch, CLASSES, 4, 6, generator=generator, dtype=torch.float64), labels


def build(**options):
    """A method that takes every pixel as an anchor and the whole memory as keys, with one mini-batch stored."""
    method = PixelContrastSynthetic(
        [4],
        CLASSES,
        dim=8,
        temperature=TEMPERATURE,
        semi_hard=1.0,
        pixels_enqueued=3,
        anchors_per_image=10**4,
        max_views=10**4,
        **options,
    ).double()
    method.loss(list(case(0)[:1]), *case(0)[1:], 0)
    return method


def closed_form(anchors, constants, labels, keys, key_labels, hardest, pair_mixes, anchor_mixes, anchor_share):
    """The loss with every mixture made as a vector; `constants` are the anchors that are mixed into others."""
    pair_draws = known_random((len(anchors), pair_mixes), torch.double)
    anchor_draws = known_random((len(anchors), anchor_mixes), torch.double)
    losses = []
    for i, (anchor, constant, label) in enumerate(zip(anchors, constants, labels, strict=True)):
        others = [key for key, other in zip(keys, key_labels, strict=True) if other != label]
        ranked = sorted(others, key=lambda key: -(key @ constant).item())[:hardest]
        mixed = []
        for draw in pair_draws[i].tolist():
            first = int(draw * len(ranked))
            second = (first + 1 + int(draw * (len(ranked) - 1))) % len(ranked)
            mixed.append(draw * ranked[first] + (1 - draw) * ranked[second])
        for draw in anchor_draws[i].tolist():
            share = anchor_share * draw
            mixed.append(share * constant + (1 - share) * ranked[int(draw * len(ranked))])
        negatives = others + [vector / vector.norm() for vector in mixed]
        repulsion = sum(math.exp(anchor @ n / TEMPERATURE) for n in negatives)
        positives = [key for key, other in zip(keys, key_labels, strict=True) if other == label]
        terms = [math.log(1 + repulsion / math.exp(anchor @ p / TEMPERATURE)) for p in positives]
        losses += [sum(terms) / len(terms)] if terms else []
    return WEIGHT * sum(losses) / len(losses)


@pytest.mark.parametrize(
    "mixes",
    [
        {"hardest": 3, "pair_mixes": 5, "anchor_mixes": 4, "anchor_share": 0.5},
        {"hardest": 1, "pair_mixes": 2, "anchor_mixes": 3, "anchor_share": 0.2},
        {"hardest": 1000, "pair_mixes": 7, "anchor_mixes": 1, "anchor_share": 0.5},
    ],
    ids=str,
)
def test_loss_and_gradient_equal_those_of_explicit_mixtures(mixes, monkeypatch):
    method = build(**mixes)
    keys, key_labels = (torch.cat(parts) for parts in zip(rows(method.regions), rows(method.pixels), strict=True))
    z, logits, labels = case(1)
    monkeypatch.setattr(torch, "rand", known_random)
    loss = method.loss([z], logits, labels, 1)["pixel_contrast"]
    valid = labels != 255
    direction = torch.randn(z.shape, dtype=torch.double, generator=torch.Generator().manual_seed(2))

    def at(step):
        anchors = [F.normalize((z.detach() + s * direction).movedim(1, -1)[valid]) for s in (step, 0)]
        return closed_form(*anchors, labels[valid].tolist(), keys, key_labels.tolist(), **mixes)

    assert loss.item() == pytest.approx(at(0), rel=1e-10)
    loss.backward()
    assert (z.grad * direction).sum().item() == pytest.approx((at(1e-6) - at(-1e-6)) / 2e-6, rel=1e-5)


def test_the_mixtures_are_added_to_what_the_memory_gives():
    z, logits, labels = case(3)
    plain = PixelContrast([4], CLASSES, dim=8, memory=True).double()
    mixing = PixelContrastSynthetic([4], CLASSES, dim=8, pair_mixes=20, anchor_mixes=6).double()
    assert plain.loss([z], logits, labels, 0)["pixel_contrast"] == 0
    assert mixing.loss([z], logits, labels, 0)["pixel_contrast"] == 0
    assert mixing.diagnostics["negatives"] == 0
    mixing.load_state_dict(plain.state_dict())
    plain_loss, mixing_loss = (method.loss([z], logits, labels, 1)["pixel_contrast"] for method in (plain, mixing))
    assert mixing.diagnostics["negatives"] == plain.diagnostics["negatives"] + 26
    assert mixing.diagnostics["negative_similarity"] > plain.diagnostics["negative_similarity"]
    assert mixing_loss > plain_loss


def test_without_negatives_in_the_memory_nothing_is_mixed():
    z, logits, labels = case(4)
    method = PixelContrastSynthetic([4], CLASSES, dim=8).double()
    for iteration in range(2):
        loss = method.loss([z], logits, torch.zeros_like(labels), iteration)["pixel_contrast"]
    assert method.diagnostics["positives"] > 0
    assert method.diagnostics["negatives"] == 0
    assert loss == 0
    loss.backward()
    assert not z.grad.any()


def test_opposite_negatives_give_finite_mixtures(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda shape, dtype=None, device=None: torch.full(shape, 0.5, dtype=dtype))
    method = PixelContrastSynthetic([4], 2, dim=2)
    method.pixels.push(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.6, 0.8]]), torch.tensor([1, 1, 0]))
    z = torch.tensor([-1.0, 0.0]).reshape(1, 2, 1, 1).requires_grad_()
    loss = method.loss([z], torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long), 0)["pixel_contrast"]
    loss.backward()
    assert loss.isfinite() and z.grad.isfinite().all()


def observed(batch, present):
    labels = (torch.arange(96) // 4 % present).expand(batch, 16, 96)
    method = PixelContrastSynthetic([4], 24, dim=8, hardest=5, pair_mixes=4, anchor_mixes=3)
    z, logits = torch.randn(batch, 8, 16, 96), torch.randn(batch, 24, 16, 96)
    method.loss([z], logits, labels, 0)
    with Observer() as observer:
        method.loss([z], logits, labels, 1)
    return observer


def test_no_loop_over_images_classes_or_anchors():
    assert observed(batch=2, present=3).operations == observed(batch=4, present=24).operations


def test_no_tensor_of_mixtures_is_above_the_limit(monkeypatch):
    monkeypatch.setattr(pixel_contrast, "MAX_SCORES", 2000)
    method = PixelContrastSynthetic([4], 3, dim=8, pair_mixes=100, pixel_memory_size=50, region_memory_size=50)
    z, logits, labels = torch.randn(2, 8, 10, 9), torch.randn(2, 3, 10, 9), torch.arange(9).expand(2, 10, 9) % 3
    method.loss([z], logits, labels, 0)
    with Observer() as observer:
        method.loss([z], logits, labels, 1)
    anchors = method.diagnostics["anchors"].item()
    assert observer.elements <= anchors * (66 + 100 + 64)  # what is drawn, and no vectors of it
