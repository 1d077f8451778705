import math

import numpy as np
import pytest
import torch

import methods.multiscale_contrast
from methods import ranking
from methods.multiscale_contrast import MultiscaleContrast

CLASSES, DIM = 6, 8
SIZES = [(16, 20), (8, 10), (4, 5), (2, 3)]


def random_case(seed, dtype=torch.float64, scales=4):
    """Blocky labels with ignored pixels and a rare class that the coarse scales lose."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (2, 4, 5), generator=generator).repeat_interleave(16, 1).repeat_interleave(16, 2)
    labels[torch.rand(labels.shape, generator=generator) < 0.05] = 255
    labels[0, 4:9, 3:21] = 5
    embeddings = [torch.randn(2, DIM, *size, generator=generator, dtype=torch.float64) for size in SIZES[:scales]]
    return [z.to(dtype).requires_grad_() for z in embeddings], labels


def first_pixels(labels, size, budget, max_views, min_pixels, per_image):
    """The sampling rule with the draws in raster order: [(image, row, column, class), ...]."""
    rows = [i * labels.shape[1] // size[0] for i in range(size[0])]
    columns = [j * labels.shape[2] // size[1] for j in range(size[1])]
    grid = labels.numpy()[:, rows][:, :, columns]
    pairs = {
        (b, n): [(b, int(i), int(j), n) for i, j in np.argwhere(grid[b] == n)]
        for b in range(len(grid))
        for n in range(CLASSES)
        if (grid[b] == n).sum() >= min_pixels
    }
    drawn = []
    for b, n in pairs:
        sharing = [len(pixels) for (image, _), pixels in pairs.items() if image == b or not per_image]
        drawn += pairs[b, n][: min(*sharing, max_views, budget // len(sharing))]
    return drawn


def info_nce(anchors, keys, temperature, same_scale):
    """Mean over the anchors (those with positives, if the keys are the anchors) one pair at a time."""
    losses = []
    for i, (a, label) in enumerate(anchors):
        scores = [math.exp(a @ k / temperature) for k, _ in keys]
        negatives = sum(s for s, (_, other) in zip(scores, keys, strict=True) if other != label)
        terms = [
            math.log(1 + negatives / s)
            for j, (s, (_, other)) in enumerate(zip(scores, keys, strict=True))
            if other == label and not (same_scale and i == j)
        ]
        if terms or not same_scale:
            losses.append(sum(terms) / max(len(terms), 1))
    return sum(losses) / max(len(losses), 1)


def closed_form(
    embeddings,
    labels,
    variant="paper",
    temperature=0.1,
    weight=0.1,
    scale_weights=(1.0, 0.7, 0.4, 0.1),
    cross_scale=True,
    samples=None,
    max_views=2500,
    min_pixels=5,
):
    budget = samples or {"paper": 5000, "official": 10000}[variant]
    scales = []
    for z in embeddings:
        z = z.detach().double().numpy()
        z = z / np.linalg.norm(z, axis=1, keepdims=True)
        pixels = first_pixels(labels, z.shape[2:], budget, max_views, min_pixels, variant == "paper")
        scales.append([(z[b, :, i, j], n) for b, i, j, n in pixels])
    within = [info_nce(s, s, temperature, same_scale=True) for s in scales]
    terms = {"multi_scale": weight * sum(w * x for w, x in zip(scale_weights, within, strict=False))}
    if cross_scale and len(scales) > 1:
        others = scales[1:][-2:]
        terms["cross_scale"] = weight * sum(info_nce(scales[0], s, temperature, same_scale=False) for s in others)
    return terms


@pytest.fixture
def raster_draws(monkeypatch):
    monkeypatch.setattr(ranking, "random_numbers", lambda chances, groups: torch.zeros_like(groups))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"variant": "official"},
        {"temperature": 0.3, "weight": 0.5, "scale_weights": (0.1, 0.2, 0.7, 1.0), "max_views": 4},
        {"samples": 30},
        {"samples": 30, "variant": "official"},
        {"cross_scale": False, "min_pixels": 2},
        {"min_pixels": 11},
    ],
    ids=str,
)
@pytest.mark.parametrize("scales", [4, 2])
def test_loss_equals_the_closed_form(options, scales, raster_draws):
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        embeddings, labels = random_case(0, dtype, scales)
        method = MultiscaleContrast([4] * scales, CLASSES, dim=DIM, **options)
        terms = method.loss(embeddings, torch.zeros(2, CLASSES, 16, 20), labels, 0)
        expected = closed_form(embeddings, labels, **options)
        assert expected["multi_scale"] > 1e-3
        assert {k: v.item() for k, v in terms.items()} == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize(("scales", "pairs"), [(4, ["1-4", "1-3"]), (3, ["1-3", "1-2"]), (2, ["1-2"]), (1, [])])
def test_finest_scale_is_contrasted_with_the_two_coarsest(scales, pairs):
    embeddings, labels = random_case(1, scales=scales)
    method = MultiscaleContrast([4] * scales, CLASSES, dim=DIM)
    terms = method.loss(embeddings, torch.zeros(2, CLASSES, 4, 4), labels, 0)
    assert [key for key in method.diagnostics if key.startswith("cross_scale")] == [f"cross_scale/{p}" for p in pairs]
    assert ("cross_scale" in terms) == bool(pairs)
    across = sum(method.diagnostics[f"cross_scale/{p}"].item() for p in pairs)
    assert not pairs or terms["cross_scale"].item() == pytest.approx(0.1 * across)


def test_both_sides_of_the_cross_scale_term_get_gradient():
    embeddings, labels = random_case(2)
    method = MultiscaleContrast([4] * 4, CLASSES, dim=DIM)
    method.loss(embeddings, torch.zeros(2, CLASSES, 4, 4), labels, 0)["cross_scale"].backward()
    assert embeddings[0].grad.any()
    assert embeddings[1].grad is None or not embeddings[1].grad.any()
    assert embeddings[2].grad.any()


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_gradient_equals_finite_differences(variant, raster_draws):
    embeddings, labels = random_case(3, scales=3)
    method = MultiscaleContrast([4] * 3, CLASSES, dim=DIM, variant=variant, temperature=0.5)
    direction = [torch.randn_like(z) for z in embeddings]
    logits = torch.zeros(2, CLASSES, 4, 4)

    def at(step):
        moved = [(z + step * d).detach() for z, d in zip(embeddings, direction, strict=True)]
        return sum(method.loss(moved, logits, labels, 0).values()).item()

    gradients = torch.autograd.grad(sum(method.loss(embeddings, logits, labels, 0).values()), embeddings)
    slope = sum((g * d).sum().item() for g, d in zip(gradients, direction, strict=True))
    assert slope == pytest.approx((at(1e-5) - at(-1e-5)) / 2e-5, rel=1e-5)


def test_number_of_pixels_of_an_image_depends_on_that_image_alone():
    (z,), labels = random_case(4, scales=1)
    counts = {}
    for variant in ("paper", "official"):
        method = MultiscaleContrast([4], CLASSES, dim=DIM, variant=variant)
        counts[variant] = [len(method.sample([z[part]], labels[part])[0].classes) for part in ([0], [1], [0, 1])]
    assert counts["paper"][2] == counts["paper"][0] + counts["paper"][1]
    assert counts["official"][2] < counts["official"][0] + counts["official"][1]  # the rare class of image 0 decides


def test_budget_bounds_the_pixels_of_a_scale():
    labels = (torch.arange(120) // 40).expand(2, 100, 120)  # three classes of 4,000 pixels
    z = torch.randn(2, 2, 100, 120)
    for variant, expected in (("paper", 2 * 3 * (5000 // 3)), ("official", 2 * 3 * (10000 // 6))):
        assert len(MultiscaleContrast([4], 3, dim=2, variant=variant).sample([z], labels)[0].classes) == expected
    labels = torch.zeros(1, 100, 120, dtype=torch.long)
    assert len(MultiscaleContrast([4], 3, dim=2).sample([z[:1]], labels)[0].classes) == 2500


def test_blocks_of_anchors_change_nothing_but_the_memory(monkeypatch):
    embeddings, labels = random_case(5)
    results, held = [], []
    for entries in (2**24, 1000):
        monkeypatch.setattr(methods.multiscale_contrast, "SIMILARITIES_AT_A_TIME", entries)
        torch.manual_seed(0)
        method = MultiscaleContrast([4] * 4, CLASSES, dim=DIM)
        largest = []

        def pack(tensor, largest=largest):
            largest.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = sum(method.loss(embeddings, torch.zeros(2, CLASSES, 4, 4), labels, 0).values())
        results.append([loss.detach(), *torch.autograd.grad(loss, embeddings)])
        held.append(max(largest))
    for whole, blocks in zip(*results, strict=True):
        torch.testing.assert_close(blocks, whole, rtol=1e-10, atol=1e-13)
    anchors = int(method.diagnostics["anchors"])
    assert max(held) < anchors**2  # the matrix of similarities is never held for the backward pass


def test_hrnet_w48_heads_add_the_published_number_of_parameters():
    method = MultiscaleContrast([48, 96, 192, 384], 19)
    assert sum(p.numel() for p in method.parameters()) == 382_624  # 66.24 M - 65.86 M


def test_diagnostics_describe_the_samples():
    labels = torch.full((1, 1, 16), 255)
    labels[0, 0, :6], labels[0, 0, 6:11] = 0, 2
    z = torch.zeros(1, 2, 1, 16, dtype=torch.float64)
    z[0, 0, 0, :6] = 3.0  # class 0 along the first axis, class 2 along the second
    z[0, 1, 0, 6:] = 2.0
    method = MultiscaleContrast([4, 4], 4, dim=2)
    method.loss([z, z], torch.zeros(1, 4, 1, 16), labels, 0)
    found = {name: value.tolist() for name, value in method.diagnostics.items()}
    loss = math.log1p(5 * math.exp(-10))
    assert found == {
        "anchors": 10,
        "positives": pytest.approx(4),
        "negatives": pytest.approx(5),
        "positive_similarity": pytest.approx(1),
        "negative_similarity": pytest.approx(0),
        "samples/scale1": 10,
        "samples/scale2": 10,
        "multi_scale/scale1": pytest.approx(loss),
        "multi_scale/scale2": pytest.approx(loss),
        "cross_scale/1-2": pytest.approx(loss),
        "chance/multi_scale": pytest.approx(0.1 * 1.7 * math.log(6)),
        "chance/cross_scale": pytest.approx(0.1 * math.log(6)),
    }


def test_maps_keep_their_grids():
    features = [torch.randn(2, 3, 8, 12), torch.randn(2, 5, 4, 6)]
    method = MultiscaleContrast([3, 5], 4, dim=7)
    assert [z.shape for z in method.embed(features)] == [(2, 7, 8, 12), (2, 7, 4, 6)]
