import math
from fractions import Fraction
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from processes import run_group

from methods import ranking
from methods.boundary_aware import NONE, boundary_aware
from methods.contextrast import Contextrast
from methods.contextrast_pp import ContextrastPP
from methods.pixel_embeddings import PixelVectors

CLASSES = 6
NEGATIVES, TIES = (get_args(Contextrast.Options.__annotations__[option]) for option in ("negatives", "ties"))
SIZES = [(16, 20), (8, 10), (4, 5), (2, 3)]
DIM = 8
RANDOM_SCORES = torch.rand(2 * 16 * 20, CLASSES, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


def random_case(seed, dtype=torch.float64, layers=4):
    """Blocky labels with ignored pixels and a class that the coarse layers lose; logits right half the time."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (2, 8, 10), generator=generator).repeat_interleave(8, 1).repeat_interleave(8, 2)
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = 255
    labels[labels == 5] = 0
    labels[0, 4:9, 3:21] = 5  # small: gone at the coarsest layer
    grid = F.interpolate(labels[:, None].double(), size=SIZES[0])[:, 0].long().clamp(max=CLASSES - 1)
    logits = torch.rand(2, CLASSES, *SIZES[0], generator=generator, dtype=torch.float64)
    logits += 0.5 * F.one_hot(grid, CLASSES).permute(0, 3, 1, 2)
    embeddings = [torch.randn(2, DIM, *size, generator=generator, dtype=torch.float64) for size in SIZES[:layers]]
    return [z.to(dtype).requires_grad_() for z in embeddings], logits.to(dtype), labels


def grid_of(values, size):
    """Nearest neighbour: row i of the small map is row floor(i * H / h) of the large one."""
    rows = [i * values.shape[1] // size[0] for i in range(size[0])]
    columns = [j * values.shape[2] // size[1] for j in range(size[1])]
    return values[:, rows][:, :, columns]


def brute_force_selection(labels, prediction, keep, ties, region_of):
    """Chosen pixels of each region as {class: [(b, y, x), ...]}, every distance found by looking at all pixels."""
    chosen = {n: [] for n in range(CLASSES)}
    wrong = (labels != 255) & (labels != prediction)
    marks = np.where(wrong, labels if region_of == "missed" else prediction, -1)
    for b in range(len(marks)):
        for n in range(CLASSES):
            region = [tuple(p) for p in np.argwhere(marks[b] == n)]
            outside = np.argwhere(marks[b] != n)
            distances = [
                min((((outside - p) ** 2).sum(1)).tolist(), default=math.inf) if len(outside) else math.inf
                for p in region
            ]
            ranked = sorted(range(len(region)), key=lambda k: distances[k])  # stable: ties in raster order
            quota = math.ceil(round(keep * len(region), 6))
            if ties == "percentile" and region:
                limit = distances[ranked[quota - 1]]
                ranked = [k for k in ranked if distances[k] <= limit]
            else:
                ranked = ranked[:quota]
            chosen[n] += [(b, *map(int, region[k])) for k in ranked]
    return chosen


def closed_form(
    embeddings,
    logits,
    labels,
    temperature=0.1,
    weight=0.1,
    layer_weights=(0.1, 0.3, 0.7, 1.0),
    low_weight=0.5,
    negatives="missed_of_other_classes",
    keep=0.5,
    ties="exact",
    normalize=True,
    max_positives=None,
    detach_anchors=False,
    sync_anchors=False,
):
    """Equations (1), (2), (5), (6), (13), (14) one pixel at a time, in float64."""
    prediction = logits.argmax(1).numpy()
    labels = labels.numpy()
    pixels, anchors = [], []
    for z in embeddings:
        z = z.detach().double().numpy()
        z = z / np.linalg.norm(z, axis=1, keepdims=True) if normalize else z
        y = grid_of(labels, z.shape[2:])
        pixels.append({n: [(b, i, j) for b, i, j in np.argwhere(y == n)] for n in range(CLASSES)})
        vector = {n: [z[b, :, i, j] for b, i, j in pixels[-1][n]] for n in range(CLASSES)}
        anchors.append({n: sum(v) / len(v) for n, v in vector.items() if v})

    total = 0.0
    for layer, z in enumerate(embeddings):
        z = z.detach().double().numpy()
        z = z / np.linalg.norm(z, axis=1, keepdims=True) if normalize else z
        y, p = grid_of(labels, z.shape[2:]), grid_of(prediction, z.shape[2:])
        missed = brute_force_selection(y, p, keep, ties, "missed")
        false = brute_force_selection(y, p, keep, ties, "predicted")
        raster = [tuple(q) for q in np.argwhere(np.ones_like(y))]
        losses = []
        for n, anchor in anchors[layer].items():
            if n in anchors[-1]:
                anchor = low_weight * anchor + (1 - low_weight) * anchors[-1][n]
            anchor = anchor / np.linalg.norm(anchor) if normalize else anchor
            of_others = [q for m in range(CLASSES) if m != n for q in missed[m]]
            others = [k for k, q in enumerate(raster) if y[q] not in (n, 255)]
            if negatives == "missed_of_other_classes":
                chosen = of_others
            elif negatives == "false_positives":
                chosen = false[n]
            elif negatives == "as_printed":
                chosen = missed[n]
            else:
                score = (
                    RANDOM_SCORES[:, n] if negatives == "random" else [anchor @ z[q[0], :, q[1], q[2]] for q in raster]
                )
                chosen = [raster[k] for k in sorted(others, key=lambda k: -score[k])[: len(of_others)]]
            repulsion = sum(math.exp(anchor @ z[b, :, i, j] / temperature) for b, i, j in chosen)
            terms = []
            for b, i, j in pixels[layer][n][:max_positives]:
                attraction = math.exp(anchor @ z[b, :, i, j] / temperature)
                terms.append(math.log1p(repulsion / attraction))
            losses.append(sum(terms) / len(terms))
        layer_weight = layer_weights[len(layer_weights) - len(embeddings) + layer]
        total += layer_weight * sum(losses) / len(losses)
    return weight * total


@pytest.fixture
def known_draws(monkeypatch):
    """Random order becomes raster order and random scores a known table, so that the draws can be followed by hand."""
    monkeypatch.setattr(ranking, "random_numbers", lambda chances, groups: torch.zeros_like(groups))
    monkeypatch.setattr(torch, "rand_like", lambda t: RANDOM_SCORES[: len(t)].to(t.dtype))


OPTIONS = [
    {},
    {"temperature": 0.07, "weight": 0.3, "low_weight": 0.3, "layer_weights": (0.1, 0.4, 0.7, 1.0)},
    {"ties": "percentile"},
    {"keep": 1.0},
    {"keep": 0.07, "ties": "percentile"},
    {"keep": 0.2, "negatives": "false_positives"},
    {"negatives": "false_positives", "ties": "percentile"},
    {"negatives": "as_printed"},
    {"negatives": "random"},
    {"negatives": "semi_hard"},
    {"normalize": False, "temperature": 1.0},
    {"normalize": False, "negatives": "semi_hard", "temperature": 1.0},
    {"max_positives": 3},
    {"max_positives": 10**6},
    {"detach_anchors": True},
    {"sync_anchors": True},
    {"low_weight": 1.0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_loss_equals_the_closed_form(options, seed, known_draws):
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        embeddings, logits, labels = random_case(seed, dtype)
        method = Contextrast([4, 4, 4, 4], CLASSES, dim=DIM, **options)
        terms = method.loss(embeddings, logits, labels, 0)
        assert list(terms) == ["pixel_anchor"]
        assert terms["pixel_anchor"].dtype == dtype
        expected = closed_form(embeddings, logits, labels, **options)
        assert expected > 1e-3
        assert terms["pixel_anchor"].item() == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize("kind", [Contextrast, ContextrastPP])
@pytest.mark.parametrize("options", [{}, {"normalize": False, "temperature": 1.0}], ids=str)
def test_a_step_without_the_embeddings_is_the_step_with_them(kind, options, known_draws):
    _, logits, labels = random_case(0)
    channels = [3, 5, DIM, 2 * DIM]  # the last two heads make their embeddings
    torch.manual_seed(0)
    method = kind(channels, CLASSES, dim=DIM, **options).double()
    sizes = [(2, c, *size) for c, size in zip(channels, SIZES, strict=True)]
    maps = [torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes]
    parameters = [*maps, *method.parameters()]
    state = {name: value.clone() for name, value in method.state_dict().items()}
    found = []
    for way in (method, lambda features, *rest: method.loss(method.embed(features), *rest)):
        method.load_state_dict(state)
        for iteration in range(2):  # the memory of ContextrastPP is empty at first
            terms = way(maps, logits, labels, iteration)
        found.append((terms, torch.autograd.grad(sum(terms.values()), parameters), method.diagnostics))
    (folded, folded_gradients, folded_diagnostics), (plain, gradients, diagnostics) = found
    assert folded.keys() == plain.keys()
    assert all(folded[name].item() == pytest.approx(plain[name].item(), rel=1e-12) for name in plain)
    for one, other in zip(folded_gradients, gradients, strict=True):
        assert (one - other).norm() <= 1e-12 * max(g.norm() for g in gradients)
    for name, value in diagnostics.items():
        torch.testing.assert_close(folded_diagnostics[name], value, rtol=1e-10, atol=1e-12, equal_nan=True)


def test_embeddings_of_narrow_heads_are_never_made():
    method = Contextrast([3, 5], CLASSES, dim=64)
    maps = [torch.randn(2, c, 16, 20, requires_grad=True) for c in (3, 5)]
    logits, labels = torch.randn(2, CLASSES, 16, 20), torch.randint(0, CLASSES, (2, 64, 80))
    largest = [0]
    with torch.autograd.graph.saved_tensors_hooks(lambda t: largest.append(t.numel()) or t, lambda t: t):
        method(maps, logits, labels, 0)
    assert max(largest) < 64 * 2 * 16 * 20


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_fewer_maps_use_the_last_weights_and_the_last_map_as_the_coarsest(layers, known_draws):
    embeddings, logits, labels = random_case(3, layers=layers)
    loss = Contextrast([4] * layers, CLASSES, dim=DIM).loss(embeddings, logits, labels, 0)["pixel_anchor"]
    assert loss.item() == pytest.approx(closed_form(embeddings, logits, labels), rel=1e-10)


def test_logits_may_be_coarser_than_the_finest_map(known_draws):
    embeddings, logits, labels = random_case(2)
    logits = logits[:, :, ::4, ::3]
    loss = Contextrast([4] * 4, CLASSES, dim=DIM).loss(embeddings, logits, labels, 0)["pixel_anchor"]
    assert loss.item() == pytest.approx(closed_form(embeddings, logits, labels), rel=1e-10)


@pytest.mark.parametrize("negatives", ["missed_of_other_classes", "as_printed", "semi_hard"])
def test_gradient_equals_finite_differences(negatives, known_draws):
    embeddings, logits, labels = random_case(4, layers=2)
    method = Contextrast([4, 4], CLASSES, dim=DIM, negatives=negatives, keep=1.0)
    direction = [torch.randn_like(z) for z in embeddings]

    def at(step):
        moved = [(z + step * d).detach() for z, d in zip(embeddings, direction, strict=True)]
        return method.loss(moved, logits, labels, 0)["pixel_anchor"].item()

    gradients = torch.autograd.grad(method.loss(embeddings, logits, labels, 0)["pixel_anchor"], embeddings)
    slope = sum((g * d).sum().item() for g, d in zip(gradients, direction, strict=True))
    assert slope == pytest.approx((at(1e-5) - at(-1e-5)) / 2e-5, rel=1e-5)


def test_detached_anchors_get_no_gradient():
    # Pixels p of class 0 and q, r of class 1, where only r is misclassified. Class 1 has no negatives; class 0 has the
    # anchor p, the positive p and the negative r, so its loss is softplus(p'.r - p'.p) with p' the anchor.
    z = torch.tensor([[1.0, 0.2], [0.3, 1.0], [0.5, 0.5]], dtype=torch.float64).T.reshape(1, 2, 1, 3)
    labels = torch.tensor([[[0, 1, 1]]])
    logits = F.one_hot(torch.tensor([[[0, 1, 0]]]), 2).permute(0, 3, 1, 2).double()
    for detach in (True, False):
        z = z.detach().requires_grad_()
        method = Contextrast([4], 2, dim=2, detach_anchors=detach, normalize=False, temperature=1.0, weight=1.0)
        method.loss([z], logits, labels, 0)["pixel_anchor"].backward()
        a0, negative = z.detach()[0, :, 0, 0], z.detach()[0, :, 0, 2]
        share = torch.sigmoid(a0 @ negative - a0 @ a0)  # d loss / d (b - s); class 1 has no negatives, so mean over 2
        through_positive = -share * a0 / 2
        through_anchor = share * (negative - a0) / 2
        expected = through_positive if detach else through_positive + through_anchor
        torch.testing.assert_close(z.grad[0, :, 0, 0], expected)
        torch.testing.assert_close(z.grad[0, :, 0, 2], share * a0 / 2)
        torch.testing.assert_close(z.grad[0, :, 0, 1], torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("negatives", "region_of"), [("as_printed", "missed"), ("false_positives", "predicted")])
def test_bane_chooses_the_pixels_that_brute_force_chooses(seed, negatives, region_of):
    _, logits, labels = random_case(seed)
    y, p = grid_of(labels.numpy(), SIZES[0]), logits.argmax(1).numpy()
    for keep in (0.07, 0.3, 0.5, 1.0):
        expected = brute_force_selection(y, p, keep, "percentile", region_of)
        method = Contextrast([4], CLASSES, dim=DIM, negatives=negatives, keep=keep, ties="percentile")
        (layer,) = method.layers([PixelVectors.of_map(torch.randn(2, DIM, *SIZES[0]))], logits.argmax(1), labels)
        raster = np.argwhere(np.ones_like(y))
        for n in range(CLASSES):
            found = {tuple(q) for q in raster[(layer.hard & (layer.marks == n)).numpy()].tolist()}
            assert found == set(expected[n])


def test_without_distance_any_pixel_of_a_region_is_as_likely():
    labels = torch.zeros(1, 6, 6, dtype=torch.long)
    marks = labels.clone()
    marks[:, :, 0] = NONE
    nearest, _ = boundary_aware([marks], 1, 0.2, "exact")[0]
    assert nearest[0, :, 1].all() and nearest.sum() == 6  # of 30: the column along the edge
    for ties in TIES:
        times = sum(boundary_aware([marks], 1, 0.2, ties, by_distance=False)[0][0].long() for _ in range(500))[0]
        assert times.sum() == 500 * 6 and not times[:, 0].any()
        assert (abs(times[:, 1:] - 100) < 4.5 * math.sqrt(500 * 0.2 * 0.8)).all()


def test_the_control_of_boundary_awareness_takes_as_many_negatives_from_the_same_regions():
    embeddings, logits, labels = random_case(4)
    wrong = (labels + 1) % CLASSES  # everywhere, so that regions have an inside
    logits = F.one_hot(wrong, CLASSES).movedim(-1, 1).double()
    found = {}
    for by_distance in (True, False):
        torch.manual_seed(0)
        method = Contextrast([4] * 4, CLASSES, dim=DIM, by_distance=by_distance)
        loss = method.loss(embeddings, logits, labels, 0)["pixel_anchor"]
        found[by_distance] = loss.item(), method.diagnostics["negatives"].tolist(), method.diagnostics["by_layer/kept"]
    assert found[True][0] != found[False][0]
    assert found[True][1] == found[False][1]
    assert found[True][2].tolist() == found[False][2].tolist()


@pytest.mark.parametrize("keep", [0.01, 0.07, 0.3, 0.5, 1.0])
def test_exact_ties_choose_the_nearest_share_of_every_region(keep):
    generator = torch.Generator().manual_seed(0)
    marks = torch.randint(NONE, 3, (3, 6, 8), generator=generator).repeat_interleave(4, 1).repeat_interleave(4, 2)
    ((chosen, _),) = boundary_aware([marks], 3, keep, "exact")
    assert not chosen[marks == NONE].any()
    for b in range(3):
        for n in range(3):
            region, outside = (marks[b] == n).nonzero(), (marks[b] != n).nonzero()
            distance = (region[:, None] - outside).square().sum(-1).min(1).values
            kept = chosen[b][marks[b] == n]
            assert kept.sum() == math.ceil(round(keep * len(region), 6))
            if not kept.all():
                assert distance[kept].max() <= distance[~kept].min()


@pytest.mark.parametrize("share", [Fraction(1, 10), Fraction(7, 100), Fraction(3, 10), Fraction(57, 100)])
def test_the_share_is_not_rounded_up_by_floating_point(share):
    for size in range(100, 5000, 100):  # the exact quota is a whole number
        marks = torch.zeros(1, 1, size, dtype=torch.long)
        ((chosen, _),) = boundary_aware([marks], 1, float(share), "exact")
        assert chosen.sum().item() == share * size


def test_exact_ties_are_broken_at_random():
    marks = torch.zeros(1, 8, 8, dtype=torch.long)  # one region without an edge: all distances tie
    torch.manual_seed(0)
    times = sum(boundary_aware([marks], 1, 0.25, "exact")[0][0].long() for _ in range(400))[0]
    assert times.sum() == 400 * 16
    assert 60 <= times.min() <= times.max() <= 140  # 100 expected, standard deviation 8.7


def test_random_negatives_are_distinct_pixels_of_other_classes_drawn_evenly():
    method = Contextrast([4], 2, dim=1, negatives="random", keep=1.0)
    labels = torch.tensor([[[0] * 4 + [1] * 12]])
    prediction = torch.tensor([[[0] * 4 + [0] * 3 + [1] * 9]])  # three missed pixels of class 1
    (layer,) = method.layers([PixelVectors.of_map(torch.ones(1, 1, 1, 16))], prediction, labels)
    place = torch.arange(16.0)[:, None].expand(16, 2)  # in place of similarities, so that the draws can be read
    torch.manual_seed(0)
    times = torch.zeros(16)
    for _ in range(400):
        mask = method.negatives_of(place, layer)
        drawn = place[mask[:, 0], 0]
        assert len(drawn) == len(drawn.unique()) == 3
        assert mask[:, 1].sum() == 0
        times[drawn.long()] += 1
    assert times[:4].sum() == 0
    assert 60 <= times[4:].min() <= times[4:].max() <= 140  # 100 expected, standard deviation 8.7


def test_hrnet_w48_heads_add_the_published_number_of_parameters():
    method = Contextrast([48, 96, 192, 384], 19)
    assert sum(p.numel() for p in method.parameters()) == 382_624  # 66.24 M - 65.86 M


@pytest.mark.parametrize("negatives", NEGATIVES)
def test_memory_is_linear_in_the_number_of_pixels(negatives):
    saved = []
    for scale in (1, 2):
        labels = (torch.arange(64 * scale)[:, None] + torch.arange(64)).expand(2, -1, -1) // 8 % CLASSES
        logits = F.one_hot((labels + 1) % CLASSES, CLASSES).movedim(-1, 1).double()
        z = torch.randn(2, DIM, 64 * scale, 64, requires_grad=True)
        bytes_saved = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, b=bytes_saved: b.append(t.nbytes) or t, lambda t: t):
            Contextrast([4], CLASSES, dim=DIM, negatives=negatives).loss([z], logits, labels, 0)
        saved.append(sum(bytes_saved))
    assert saved[1] == pytest.approx(2 * saved[0], rel=0.05)


def test_diagnostics_describe_the_finest_layer():
    labels = torch.tensor([[[0, 0, 0, 0, 1, 1, 255, 255]]])
    prediction = torch.tensor([[[0, 0, 1, 1, 1, 0, 0, 0]]])
    z = torch.zeros(1, 2, 1, 8, dtype=torch.float64)
    z[0, 0, 0, :4] = 3.0  # class 0 along the first axis, class 1 along the second
    z[0, 1, 0, 4:] = 2.0
    method = Contextrast([4, 4], 4, dim=2)
    method.loss([z, z], F.one_hot(prediction, 4).permute(0, 3, 1, 2).double(), labels, 0)
    found = {name: value.tolist() for name, value in method.diagnostics.items() if "distance_bins" not in name}
    loss = (math.log1p(math.exp(-10)) + math.log1p(math.exp(-10))) / 2
    assert found == {
        "pixel_anchor/layer1": pytest.approx(loss),
        "pixel_anchor/layer2": pytest.approx(loss),
        "chance/pixel_anchor": pytest.approx(0.1 * (0.7 + 1.0) * math.log(2)),  # one negative for each of both classes
        "by_layer/kept": pytest.approx([2 / 3, 2 / 3]),
        "by_layer/next_to_edge": [1, 1],
        "kept_share": pytest.approx(2 / 3),  # one of the two missed pixels of class 0, the one of class 1
        "misclassified_share": pytest.approx(3 / 6),
        "anchors": 2,
        "positives": 6,
        "negatives": [1, 1, 0, 0],
        "positive_similarity": pytest.approx(1.0),
        "negative_similarity": pytest.approx(0.0),
    }
    assert not any(value.requires_grad for value in method.diagnostics.values())


SYNCHRONISED = [
    {"ties": "percentile"},
    {"keep": 1.0, "detach_anchors": True},
    {"ties": "percentile", "negatives": "false_positives"},
    {"ties": "percentile", "negatives": "as_printed"},
    {"ties": "percentile", "negatives": "semi_hard"},
    {"ties": "percentile", "negatives": "random"},
]


def uneven_cases():
    """(embeddings, logits, labels) of two images: both alike; one without errors; one without valid pixels."""
    for kind in ("alike", "without errors", "without pixels"):
        embeddings, logits, labels = random_case(8, layers=2)
        if kind == "without errors":
            grid = F.interpolate(labels[1:, None].double(), size=SIZES[0])[0, 0].long().clamp(max=CLASSES - 1)
            logits[1] = F.one_hot(grid, CLASSES).movedim(-1, 0).double()
        elif kind == "without pixels":
            labels[1] = 255
        yield embeddings, logits, labels


def known_random_scores(image):
    """In place of torch's random scores: those of an image's pixels in raster order, 0 for the first image."""
    return lambda similarity: torch.sin(torch.arange(similarity.numel()).view_as(similarity) * 12.9898 + 7.0 * image)


def _losses_of_process(rank, folder):
    torch.distributed.init_process_group("gloo")
    torch.rand_like = known_random_scores(rank)
    found = []
    for embeddings, logits, labels in uneven_cases():
        for options in SYNCHRONISED:
            own = [z.detach()[rank : rank + 1].requires_grad_() for z in embeddings]
            method = Contextrast([4, 4], CLASSES, dim=DIM, sync_anchors=True, **options)
            loss = method.loss(own, logits[rank : rank + 1], labels[rank : rank + 1], 0)["pixel_anchor"]
            loss.backward()
            diagnostics = {name: value.tolist() for name, value in method.diagnostics.items()}
            found.append((loss.item(), [z.grad[0] for z in own], diagnostics))
    torch.save(found, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_with_synchronised_anchors_have_the_loss_and_the_gradients_of_the_whole_batch(
    tmp_path, monkeypatch
):
    assert run_group(2, _losses_of_process, str(tmp_path)) == [0, 0]
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    cases = [(*case, options) for case in uneven_cases() for options in SYNCHRONISED]
    for number, (embeddings, logits, labels, options) in enumerate(cases):

        def of_both(similarity):  # the first image's pixels, then the second's
            return torch.cat([known_random_scores(image)(part) for image, part in enumerate(similarity.chunk(2))])

        monkeypatch.setattr(torch, "rand_like", of_both)
        method = Contextrast([4, 4], CLASSES, dim=DIM, **options)
        loss = method.loss(embeddings, logits, labels, 0)["pixel_anchor"]
        assert loss > 1e-3
        gradients = torch.autograd.grad(loss, embeddings)
        for rank in range(2):
            found, own_gradients, diagnostics = results[rank][number]
            assert found == pytest.approx(loss.item(), rel=1e-10)
            for own, expected in zip(own_gradients, gradients, strict=True):
                # Data parallelism averages over the two processes.
                np.testing.assert_allclose(own / 2, expected[rank].numpy(), rtol=1e-8, atol=1e-14)
            for name, value in method.diagnostics.items():
                assert diagnostics[name] == pytest.approx(value.tolist(), rel=1e-6, nan_ok=True), name
