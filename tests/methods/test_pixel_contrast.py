import math

import pytest
import torch
import torch.nn.functional as F
from memory_rows import rows
from observer import Observer

from methods import pixel_contrast
from methods.pixel_contrast import PixelContrast, draw_some, hardest


def pairwise_loss(vectors, labels, temperature):
    """Mean over anchors with positives of the mean over positives, one pair at a time."""
    vectors = F.normalize(vectors.double())
    scores = (vectors @ vectors.T / temperature).exp().tolist()
    losses = []
    for i, label in enumerate(labels):
        negatives = sum(s for s, other in zip(scores[i], labels, strict=True) if other != label)
        terms = [math.log(1 + negatives / scores[i][j]) for j, other in enumerate(labels) if other == label and i != j]
        losses += [sum(terms) / len(terms)] if terms else []
    return sum(losses) / len(losses)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_loss_of_all_pixels_equals_the_closed_form(dtype, tolerance):
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 8, 4, 6, generator=generator, dtype=dtype).requires_grad_()
    labels = torch.randint(0, 5, (2, 4, 6), generator=generator)
    labels[0, 0] = 255
    logits = torch.randn(2, 5, 4, 6, generator=generator, dtype=dtype)
    method = PixelContrast([4], 5, dim=8, temperature=0.2, weight=0.3)  # 512 anchors an image: every pixel is drawn
    terms = method.loss([z], logits, labels, 0)
    rows = labels != 255
    expected = 0.3 * pairwise_loss(z.detach().movedim(1, -1)[rows], labels[rows].tolist(), 0.2)
    assert list(terms) == ["pixel_contrast"]
    assert terms["pixel_contrast"].item() == pytest.approx(expected, rel=tolerance)


def test_labels_and_predictions_are_taken_at_the_grid_of_the_embeddings():
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 3, (1, 8, 12), generator=generator)
    z = torch.randn(1, 4, 4, 6, generator=generator)
    logits = torch.randn(1, 3, 2, 3, generator=generator)
    method = PixelContrast([4], 3, dim=4)
    loss = method.loss([z], logits, labels, 0)["pixel_contrast"]
    small = labels[:, ::2, ::2]
    expected = 0.1 * pairwise_loss(z.movedim(1, -1).reshape(-1, 4), small.flatten().tolist(), 0.1)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    prediction = logits.argmax(1).repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert method.diagnostics["anchors"] == 24
    assert method.diagnostics["hard_share"].item() == pytest.approx((prediction != small).double().mean().item())


def test_budget_of_anchors_bounds_each_image():
    labels = torch.zeros(2, 40, 40, dtype=torch.long)
    labels[1, :20] = 1
    method = PixelContrast([4], 2, dim=4, anchors_per_image=64, max_views=50)
    method.loss([torch.randn(2, 4, 40, 40)], torch.randn(2, 2, 40, 40), labels, 0)
    assert method.diagnostics["anchors"] == 50 + 64  # one class, capped by max_views; two classes, 32 each


def test_with_a_memory_eight_images_give_the_papers_fifty_anchors_a_class():
    labels = torch.arange(2).repeat_interleave(32).view(1, 8, 8).repeat(8, 1, 1)
    method = PixelContrast([4], 2, dim=4, memory=True, region_memory_size=8, pixel_memory_size=8)
    method([torch.randn(8, 4, 8, 8)], torch.randn(8, 2, 8, 8), labels, 0)
    assert 50 <= method.diagnostics["anchors"] / 2 < 50 + 8  # no image gives a part of a pixel


def test_diagnostics_describe_what_the_anchors_are_contrasted_with():
    z = torch.tensor([[1.0, 0.0], [0.0, 3.0], [0.6, 0.8], [1.0, 0.0]]).T.reshape(1, 2, 1, 4)
    method = PixelContrast([4], 3, dim=2)
    method.loss([z], torch.eye(3)[[0, 0, 1, 2]].T.reshape(1, 3, 1, 4), torch.tensor([[[0, 0, 1, 255]]]), 0)
    assert {name: value.item() for name, value in method.diagnostics.items()} == {
        "anchors": 3,
        "hard_share": 0,
        "positives": pytest.approx(2 / 3),  # either anchor of class 0 has the other
        "negatives": pytest.approx(4 / 3),
        "positive_similarity": pytest.approx(0.0, abs=1e-6),
        "negative_similarity": pytest.approx((0.6 + 0.8) / 2),
        "chance/pixel_contrast": pytest.approx(0.1 * math.log(2)),  # of the two with a positive, each with one negative
    }


@pytest.mark.parametrize("tau", [0.1, 0.2])
def test_the_official_variant_leaves_out_small_classes_and_scales_the_loss(tau):
    generator = torch.Generator().manual_seed(2)
    labels = torch.full((2, 20, 30), 255)
    labels[0, :5, :20] = 0  # 100 pixels: too few
    labels[0, 5:12] = 1
    labels[1, :6, :17] = 1  # 102 pixels
    labels[1, 10:] = 2
    z = torch.randn(2, 4, 20, 30, generator=generator, dtype=torch.float64)
    # At few pixels a pair the draw would matter: make the pixels of a pair all alike.
    z = z[:, :, :1, :1] + 2.0 * torch.nn.functional.one_hot(labels % 4, 4).movedim(-1, 1)
    method = PixelContrast([4], 3, dim=4, variant="official", temperature=tau)
    loss = method.loss([z], torch.randn(2, 3, 20, 30), labels, 0)["pixel_contrast"]
    vectors = torch.stack([z[0, :, 5, 0], z[1, :, 0, 0], z[1, :, 10, 0]]).repeat_interleave(100, 0)
    expected = 0.1 * tau / 0.07 * pairwise_loss(vectors, [1] * 200 + [2] * 100, tau)
    assert method.diagnostics["anchors"] == 300  # 1024 // 3 a pair, and 100 at most
    assert loss.item() == pytest.approx(expected, rel=1e-10)


def test_the_official_variant_shares_one_budget_among_the_pairs_of_the_mini_batch():
    labels = torch.arange(20)[:, None].expand(20, 101).expand(4, 20, 101)
    method = PixelContrast([4], 20, dim=4, variant="official")
    method.loss([torch.randn(4, 4, 20, 101)], torch.randn(4, 20, 20, 101), labels, 0)
    assert method.diagnostics["anchors"] == 80 * (1024 // 80)


def semi_hard_loss(anchors, labels, keys, key_labels, temperature, share, extra=None):
    """Each anchor against the share of least similar positives and most similar negatives, one anchor at a time."""
    losses = []
    for i, (anchor, label) in enumerate(zip(anchors, labels, strict=True)):
        scores = (keys @ anchor / temperature).tolist()
        positives = sorted(s for s, other in zip(scores, key_labels, strict=True) if other == label)
        negatives = sorted((s for s, other in zip(scores, key_labels, strict=True) if other != label), reverse=True)
        positives = positives[: math.ceil(round(share * len(positives), 6))]
        negatives = negatives[: math.ceil(round(share * len(negatives), 6))] + (extra[i] if extra else [])
        terms = [math.log(1 + sum(math.exp(n) for n in negatives) / math.exp(p)) for p in positives]
        losses += [sum(terms) / len(terms)] if terms else []
    return sum(losses) / len(losses)


ALL_PIXELS = {"anchors_per_image": 10**4, "max_views": 10**4}


def memory_case(seed, classes=5):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(2, 8, 4, 6, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.randint(0, classes, (2, 4, 6), generator=generator)
    labels[0, 0] = 255
    return z, torch.randn(2, classes, 4, 6, generator=generator, dtype=torch.float64), labels


def stored(method):
    regions, pixels = rows(method.regions), rows(method.pixels)
    return torch.cat([regions[0], pixels[0]]), regions[1].tolist() + pixels[1].tolist()


@pytest.mark.parametrize("share", [0.07, 0.3, 1.0])
@pytest.mark.parametrize("max_scores", [2**25, 100])
def test_loss_against_the_memory_equals_the_closed_form(share, max_scores, monkeypatch):
    monkeypatch.setattr(pixel_contrast, "MAX_SCORES", max_scores)  # 100: one or two anchors at a time
    method = PixelContrast([4], 5, dim=8, memory=True, semi_hard=share, pixels_enqueued=3, **ALL_PIXELS).double()
    z, logits, labels = memory_case(0)
    assert method.loss([z], logits, labels.where(labels != 4, 255), 0)["pixel_contrast"] == 0  # nothing stored yet
    for seed in (1, 2):
        method.loss([memory_case(seed)[0]], logits, labels.where(labels != 4, 255), 0)
    keys, key_labels = stored(method)
    loss = method.loss([z], logits, labels, 0)["pixel_contrast"]  # class 4 has no positives in the memory
    anchors, classes = F.normalize(z.movedim(1, -1)[labels != 255]), labels[labels != 255].tolist()
    expected = 0.1 * semi_hard_loss(anchors.detach(), classes, keys, key_labels, 0.1, share)
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    loss.backward()

    direction = torch.randn_like(z)
    moved = [F.normalize((z.detach() + step * direction).movedim(1, -1)[labels != 255]) for step in (-1e-6, 1e-6)]
    low, high = (0.1 * semi_hard_loss(a, classes, keys, key_labels, 0.1, share) for a in moved)
    assert (z.grad * direction).sum().item() == pytest.approx((high - low) / 2e-6, rel=1e-4)


def test_what_is_stored_is_the_mean_and_random_pixels_of_each_class_in_each_image():
    z, logits, labels = memory_case(3, classes=3)
    method = PixelContrast([4], 4, dim=8, memory=True, pixels_enqueued=5).double()
    method.loss([z], logits, labels, 0)
    units = F.normalize(z.detach()).movedim(1, -1)
    means = [F.normalize(units[b][labels[b] == k].mean(0), dim=0) for k in range(3) for b in range(2)]
    vectors, classes = rows(method.regions)
    torch.testing.assert_close(vectors, torch.stack(means))
    assert classes.tolist() == [0, 0, 1, 1, 2, 2]
    vectors, classes = rows(method.pixels)
    for k in range(3):
        own = [units[b][labels[b] == k] for b in range(2)]
        numbers = [(p[:, None] - vectors[classes == k]).norm(dim=-1).lt(1e-12).any(1).sum().item() for p in own]
        assert numbers == [min(5, len(p)) for p in own]
    assert not (classes == 3).any()


@pytest.mark.slow
def test_every_pixel_of_a_class_is_stored_equally_often():
    units = F.normalize(torch.randn(12, 3))
    method = PixelContrast([4], 2, dim=3, memory=True, pixels_enqueued=4, pixel_memory_size=1600)
    torch.manual_seed(0)
    for _ in range(400):
        method.remember(units.T.reshape(1, 3, 3, 4), torch.zeros(1, 3, 4, dtype=torch.long), torch.ones(1, 3, 4).bool())
    times = (rows(method.pixels)[0][:, None] - units).norm(dim=-1).lt(1e-5).sum(0)
    assert times.sum() == 1600
    assert 95 <= times.min() <= times.max() <= 171  # 133 expected, standard deviation 9.4


def test_purity_of_the_memory_is_one_after_wrapping_around():
    method = PixelContrast([4], 6, dim=6, memory=True, region_memory_size=3, pixel_memory_size=7)
    torch.manual_seed(0)
    for iteration in range(6):
        labels = torch.randint(0, 6, (2, 8, 12))
        z = F.one_hot(labels[:, ::2, ::2], 6).movedim(-1, 1) + 0.1 * torch.rand(2, 6, 4, 6)
        labels[torch.rand(labels.shape) < 0.2] = 255
        method.loss([z], torch.randn(2, 6, 4, 6), labels, iteration)
        vectors, classes = stored(method)
        assert vectors.argmax(1).tolist() == classes
    assert method.diagnostics["region_queue_fill"].tolist() == [1.0] * 6
    assert method.diagnostics["pixel_queue_fill"].tolist() == [1.0] * 6


def test_a_memory_draws_as_many_keys_as_it_is_told():
    labels = torch.zeros(1, 40, 40, dtype=torch.long)
    labels[:, 20:] = 1
    z, logits = torch.randn(1, 4, 40, 40), torch.randn(1, 2, 40, 40)
    drawn = {"drawn_positives": 3, "drawn_negatives": 4}
    method = PixelContrast([4], 2, dim=4, memory=True, max_views=50, pixels_enqueued=49, **drawn)
    method.loss([z], logits, labels, 0)
    method.loss([z], logits, labels, 1)
    found = method.diagnostics
    assert (found["anchors"], found["positives"], found["negatives"]) == (100, 3, 4)  # of ten per cent of 50
    assert -1 <= found["positive_similarity"] < found["negative_similarity"] <= 1


@pytest.mark.parametrize("grow", [1, 4])
def test_no_tensor_grows_with_anchors_times_memory(grow, monkeypatch):
    monkeypatch.setattr(pixel_contrast, "MAX_SCORES", 4096)
    lengths = {"pixels_enqueued": 50 * grow, "pixel_memory_size": 400, "region_memory_size": 400}
    method = PixelContrast([4], 4, dim=8, memory=True, max_views=50, drawn_positives=8, drawn_negatives=8, **lengths)
    labels = (torch.arange(40) // 10).expand(2, 40, 40)
    z, logits = torch.randn(2, 8, 40, 40, requires_grad=True), torch.randn(2, 4, 40, 40)
    for iteration in range(2):
        with Observer() as largest:
            method.loss([z], logits, labels, iteration)["pixel_contrast"].backward()
    assert method.diagnostics["anchors"] * len(stored(method)[1]) > 50 * 4096
    assert largest.elements <= 2 * 8 * 40 * 40  # the embedding itself


def test_keys_are_drawn_from_the_hardest_share_each_equally_often():
    hardness = torch.tensor([[5.0, 9.0, 1.0, 7.0, 8.0, 6.0], [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]])
    candidates = torch.tensor([[True, False, True, True, True, True], [False, False, True, False, False, False]])
    torch.manual_seed(0)
    times = torch.zeros(2, 6)
    for _ in range(400):
        columns, drawn = draw_some(*hardest(hardness, candidates, 0.6), 2)  # the hardest 3 of 5, and the 1 of 1
        assert drawn.sum(1).tolist() == [2, 1]
        assert columns[0, 0] != columns[0, 1]
        times.scatter_add_(1, columns, drawn.float())
    assert times[1].tolist() == [0, 0, 400, 0, 0, 0]
    assert times[0][[0, 1, 2]].tolist() == [0, 0, 0]
    assert 220 <= times[0].where(times[0] > 0, 300).min() <= times[0].max() <= 313  # 267 expected, deviation 9.4


@pytest.mark.parametrize(("share", "purity"), [(1.0, (0.5 + 1 + 0 + 1 + 1) / 5), (0.3, 4 / 6)])
def test_age_and_purity_are_those_of_the_keys_drawn(share, purity):
    """Pixels a and b of class 0 and c of class 1, of which the network takes b for class 1.

    Of the hardest third each anchor draws one positive and one negative: a draws b and c, b a and c, c itself and b.
    """
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]).T.reshape(1, 2, 1, 3)
    method = PixelContrast([4], 2, dim=2, memory=True, semi_hard=share)
    logits = torch.eye(2)[[0, 1, 1]].T.reshape(1, 2, 1, 3)
    found = []
    for iteration in range(4):
        method.loss([z], logits, torch.tensor([[[0, 0, 1]]]), iteration)
        found.append([method.diagnostics[f"memory_{name}"].item() for name in ("age", "purity")])
    assert found[0] == [0, 0]  # nothing is stored yet
    assert found[1] == pytest.approx([1, purity])
    if share == 1:
        assert found[3] == pytest.approx([2, purity])  # of one, two and three mini-batches ago
