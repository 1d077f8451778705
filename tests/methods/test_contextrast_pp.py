import math
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from memory_rows import rows

from methods import ranking
from methods.contextrast import Contextrast
from methods.contextrast_pp import ContextrastPP
from methods.pixel_embeddings import PixelVectors

CLASSES, DIM = 5, 8
STORED, (_, *FUSIONS) = (get_args(ContextrastPP.Options.__annotations__[option]) for option in ("stored", "fusion"))
SIZES = [(16, 20), (8, 10), (4, 5)]


def random_case(seed, classes=4, dtype=torch.float64):
    """Blocky labels of the first `classes` classes and a small patch of the last, which the coarse layers lose."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (2, 4, 5), generator=generator)
    labels = labels.repeat_interleave(16, 1).repeat_interleave(16, 2)
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = 255
    labels[0, 4:9, 4:9] = 4
    logits = torch.randn(2, CLASSES, *SIZES[0], generator=generator, dtype=torch.float64)
    logits += F.one_hot(labels[:, ::4, ::4].clamp(max=4), CLASSES).movedim(-1, 1)
    embeddings = [torch.randn(2, DIM, *size, generator=generator, dtype=torch.float64) for size in SIZES]
    return [z.to(dtype).requires_grad_() for z in embeddings], logits, labels


def class_anchors(embeddings, labels, low_weight=0.5):
    """Equations (1) and (2) with unit vectors, a dict {class: vector} for each layer."""
    means = []
    for z in embeddings:
        stride = labels.shape[1] // z.shape[2]
        y = labels[:, ::stride, ::stride]
        u = F.normalize(z.detach().double()).movedim(1, -1)
        means.append({n: u[y == n].mean(0) for n in range(CLASSES) if (y == n).any()})
    fused = []
    for own in means:
        mixed = {n: low_weight * a + (1 - low_weight) * means[-1][n] if n in means[-1] else a for n, a in own.items()}
        fused.append({n: (a / a.norm()).numpy() for n, a in mixed.items()})
    return fused


def taking_part(anchors, stored):
    """[(class, vector), ...] of what the AA loss contrasts and stores, layer by layer, classes in order."""
    if stored == "class_prioritized":
        deepest = {n: max(i for i, layer in enumerate(anchors) if n in layer) for n in anchors[0]}
        return [(n, anchors[i][n]) for i in range(len(anchors)) for n in sorted(deepest) if deepest[n] == i]
    layers = {"earliest_layer": anchors[:1], "deepest_layer": anchors[-1:], "all_layers": anchors}[stored]
    return [(n, layer[n]) for layer in layers for n in sorted(layer) if n in anchors[0]]


def anchor_anchor(current, memory, temperature):
    """Equations (7) to (11), where `memory` holds the stored anchors of each class; as many are used of each."""
    number = min(len(stored) for stored in memory.values()) if memory else 0
    losses = []
    for n, anchor in current:
        if n in memory:
            negatives = sum(
                math.exp(anchor @ other / temperature) for m in memory if m != n for other in memory[m][:number]
            )
            terms = [math.log(1 + negatives / math.exp(anchor @ a / temperature)) for a in memory[n][:number]]
            losses.append(sum(terms) / len(terms))
    return sum(losses) / max(len(losses), 1)


@pytest.mark.parametrize("stored", STORED)
def test_anchor_anchor_loss_equals_the_closed_form_over_iterations(stored, monkeypatch):
    monkeypatch.setattr(ranking, "random_numbers", lambda chances, groups: torch.zeros_like(groups))
    length, temperature = 3, 0.2
    options = {"dim": DIM, "fusion": "static", "memory_size": length, "stored": stored, "temperature": temperature}
    method = ContextrastPP([4] * 3, CLASSES, weight=0.7, **options).double()
    memory, written, losses = {}, {}, []
    for iteration in range(6):
        embeddings, logits, labels = random_case(iteration, classes=2 + iteration % 3)
        loss = method.loss(embeddings, logits, labels, iteration)["anchor_anchor"]
        current = taking_part(class_anchors(embeddings, labels), stored)
        expected = 0.7 * anchor_anchor(current, memory, temperature)
        losses.append(expected)
        assert loss.item() == pytest.approx(expected, rel=1e-10)
        for n, anchor in current:  # a ring: the oldest is overwritten
            slots, position = memory.setdefault(n, []), written.get(n, 0) % length
            slots[position : position + 1] = [anchor]
            written[n] = written.get(n, 0) + 1
    assert losses[0] == 0
    assert min(losses[1:]) > 1e-3
    assert max(written.values()) > length


def test_float32_gives_the_same_loss():
    method = {dtype: ContextrastPP([4] * 3, CLASSES, dim=DIM).to(dtype) for dtype in (torch.float32, torch.float64)}
    method[torch.float64].load_state_dict(method[torch.float32].state_dict())
    for iteration in range(3):
        losses = []
        for dtype, each in method.items():
            embeddings, logits, labels = random_case(iteration, dtype=dtype)
            torch.manual_seed(iteration)
            losses.append({k: v.item() for k, v in each.loss(embeddings, logits, labels, iteration).items()})
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_pixel_anchor_loss_with_static_fusion_is_contextrasts():
    embeddings, logits, labels = random_case(0)
    losses = []
    for kind, options in ((Contextrast, {}), (ContextrastPP, {"fusion": "static"})):
        torch.manual_seed(3)
        method = kind([4] * 3, CLASSES, dim=DIM, **options)
        losses.append(method.loss(embeddings, logits, labels, 0)["pixel_anchor"])
    assert losses[0].item() == losses[1].item()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_fused_anchors_are_those_of_classes_present_at_both_layers(fusion):
    embeddings, logits, labels = random_case(1)
    method = ContextrastPP([4] * 3, CLASSES, dim=DIM, fusion=fusion, normalize=False).double()
    layers = method.layers([PixelVectors.of_map(z) for z in embeddings], logits.argmax(1), labels)
    means = [
        {n: layer.vectors.x[layer.labels == n].mean(0) for n in range(CLASSES) if (layer.labels == n).any()}
        for layer in layers
    ]
    assert 4 in means[0]
    assert 4 not in means[2]
    for i, anchors in enumerate(method.anchors(layers)):
        for n in range(CLASSES):
            if n not in means[i]:
                expected = torch.zeros(DIM, dtype=torch.float64)
            elif i < 2 and n in means[2]:
                expected = method.fusions[i](means[i][n][None], means[2][n][None])[0]
            else:
                expected = means[i][n]
            torch.testing.assert_close(anchors[n], expected)


def test_fusion_learns_and_the_memory_holds_no_gradient():
    method = ContextrastPP([4] * 3, CLASSES, dim=DIM).double()
    for iteration in range(2):
        embeddings, logits, labels = random_case(iteration)
        terms = method.loss(embeddings, logits, labels, iteration)
        assert not method.memory.vectors.requires_grad
        method.zero_grad()
        terms["pixel_anchor"].backward(retain_graph=True)
        assert all(p.grad.any() for p in method.fusions.parameters() if p.dim() == 2)
    gradients = torch.autograd.grad(terms["anchor_anchor"], embeddings, allow_unused=True)
    assert gradients[2].any()  # most classes exist at the deepest layer,
    touched = gradients[1].abs().sum(1) > 0  # class 4 not: at the second layer at most
    assert touched[labels[:, ::8, ::8] == 4].all()
    assert not touched[labels[:, ::8, ::8] != 4].any()


def test_as_many_stored_anchors_are_drawn_of_every_class():
    torch.manual_seed(0)
    method = ContextrastPP([4], 3, dim=2, memory_size=10)
    method.memory.push(F.normalize(torch.randn(14, 2)), torch.tensor([0] * 9 + [1] * 3 + [2] * 2))
    z = torch.randn(1, 2, 1, 3)
    method.loss([z], torch.zeros(1, 3, 1, 3), torch.tensor([[[0, 1, 2]]]), 0)
    assert method.diagnostics["anchor_anchor/positives"] == 2
    assert method.diagnostics["anchor_anchor/negatives"] == 4
    assert method.diagnostics["anchor_anchor/memory_fill"].tolist() == pytest.approx([1.0, 0.4, 0.3])


def test_memory_keeps_the_last_anchors_of_each_class():
    method = ContextrastPP([4], 2, dim=2, memory_size=2)
    for value in (1.0, 2.0, 3.0):
        angle = torch.tensor([math.cos(value), math.sin(value)])
        method.loss([angle.view(1, 2, 1, 1)], torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long), 0)
    stored, classes = rows(method.memory)
    assert classes.tolist() == [0, 0]
    assert sorted(np.arctan2(*stored.T.flip(0).numpy()).tolist()) == pytest.approx([2.0, 3.0], abs=1e-5)


def test_detached_anchors_leave_the_anchor_anchor_loss_its_gradient():
    method = ContextrastPP([4] * 3, CLASSES, dim=DIM, fusion="static", detach_anchors=True).double()
    for iteration in range(2):
        embeddings, logits, labels = random_case(iteration)
        loss = method.loss(embeddings, logits, labels, iteration)["anchor_anchor"]
    assert any(g is not None and g.any() for g in torch.autograd.grad(loss, embeddings, allow_unused=True))


def test_hrnet_w48_adds_the_published_number_of_parameters():
    method = ContextrastPP([48, 96, 192, 384], 19)
    assert sum(p.numel() for p in method.parameters()) == 382_624 + 1_578_240  # 67.82 M - 65.86 M
    assert sum(p.numel() for p in method.fusions.parameters()) == 1_578_240
    static = ContextrastPP([48, 96, 192, 384], 19, fusion="static")
    assert sum(p.numel() for p in static.parameters()) == 382_624
