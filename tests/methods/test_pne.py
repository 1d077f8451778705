import math

import pytest
import torch
import torch.nn.functional as F

import methods.pne
from methods import ranking
from methods.pne import PNE

CLASSES, DIM = 4, 6


def random_case(seed, dtype=torch.float64):
    """Embeddings [2, 6, 8, 10], logits right half the time, labels without class 3 in the second image."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(2, DIM, 8, 10, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, CLASSES, (2, 8, 10), generator=generator)
    labels[1] = labels[1].clamp(max=2)
    labels[torch.rand(labels.shape, generator=generator) < 0.1] = 255
    logits = torch.randn(2, CLASSES, 8, 10, generator=generator, dtype=torch.float64)
    logits += 1.5 * F.one_hot(labels.clamp(max=CLASSES - 1), CLASSES).movedim(-1, 1)
    return z.to(dtype).requires_grad_(), logits.to(dtype), labels


def closed_form(z, logits, labels, official=False, temperature=1.0, weight=1.3, size=100, max_pixels=199):
    """The loss one confusion, one anchor and one pair at a time, the sets in raster order."""
    probability = logits.double().softmax(1)
    prediction = logits.argmax(1)
    losses, used = [], 0
    for b in range(len(z)):
        raster = [(i, j) for i in range(z.shape[2]) for j in range(z.shape[3])]

        def pixels(true, predicted, b=b, raster=raster):
            return [q for q in raster if labels[b][q] == true and prediction[b][q] == predicted]

        for k in range(CLASSES):
            for j in range(CLASSES):
                anchors, positives, negatives = pixels(k, j), pixels(k, k), pixels(j, j)
                if j == k or not 1 <= len(anchors) <= max_pixels or not positives:
                    continue
                if official and not (labels[b] == j).any():
                    continue
                negatives = negatives or anchors
                used += len(anchors)
                sets = [[own[s % len(own)] for s in range(size)] for own in (anchors, positives, negatives)]
                for a in sets[0]:
                    vector = z[b][:, *a] / z[b][:, *a].detach().norm()

                    def similarity(q, b=b, vector=vector):
                        other = z[b][:, *q].detach()
                        return (vector @ other / other.norm() / temperature).exp()

                    attraction = sum(probability[b][:, *p].max() * similarity(p) for p in sets[1])
                    losses.append((1 + sum(map(similarity, sets[2])) / attraction).log())
    return weight * sum(losses) * used / len(losses) ** 2


@pytest.fixture
def raster_draws(monkeypatch):
    monkeypatch.setattr(ranking, "random_numbers", lambda chances, groups: torch.zeros_like(groups))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("official", "options"),
    [
        (False, {"size": 5}),
        (True, {"size": 5}),
        (False, {"size": 3, "max_pixels": 4, "temperature": 0.3, "weight": 0.7}),
        (True, {"size": 12, "max_pixels": 6}),
    ],
)
def test_loss_and_gradient_equal_the_closed_form(official, options, raster_draws):
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        z, logits, labels = random_case(0, dtype)
        method = PNE([8], CLASSES, dim=DIM, variant="official" if official else "paper", **options)
        terms = method.loss([z], logits, labels, 0)
        reference = z.detach().double().requires_grad_()
        expected = closed_form(reference, logits, labels, official, **options)
        assert list(terms) == ["pne"]
        assert expected > 1e-2
        assert terms["pne"].item() == pytest.approx(expected.item(), rel=tolerance)
        (found,), (gradient,) = torch.autograd.grad(terms["pne"], z), torch.autograd.grad(expected, reference)
        torch.testing.assert_close(found.double(), gradient, rtol=10 * tolerance, atol=tolerance)


def test_released_sets_are_in_raster_order():
    z, logits, labels = random_case(1)
    torch.manual_seed(0)
    loss = PNE([8], CLASSES, dim=DIM, variant="official", size=4).loss([z], logits, labels, 0)["pne"]
    assert loss.item() == pytest.approx(closed_form(z, logits, labels, official=True, size=4).item(), rel=1e-10)


def confusions_of(method, labels, logits):
    image = torch.arange(len(labels))[:, None, None].expand_as(labels)
    p = logits.argmax(1)
    return method.confusions(labels, p), image.flatten(), labels.flatten(), p.flatten()


def test_sets_hold_what_they_are_named_for():
    _, logits, labels = random_case(2)
    labels[0][labels[0] == 1] = 2  # nothing is correct of class 1 in the first image
    torch.manual_seed(0)
    found, image, y, p = confusions_of(PNE([8], CLASSES, size=7), labels, logits)
    pairs = set()
    for anchors, positives, negatives, number in zip(*(part.tolist() for part in found), strict=True):
        b, true, predicted = image[anchors[0]], y[anchors[0]], p[anchors[0]]
        inside = (image == b) & (y == true) & (p == predicted)
        assert set(anchors) <= set(inside.nonzero().flatten().tolist())
        assert len(set(anchors)) == min(7, number)
        assert number == inside.sum()
        assert set(positives) <= set(((image == b) & (y == true) & (p == true)).nonzero().flatten().tolist())
        correct = ((image == b) & (y == predicted) & (p == predicted)).nonzero().flatten().tolist()
        assert set(negatives) <= set(correct or anchors)
        pairs.add((int(b), int(true), int(predicted)))
    expected = set()
    for b in range(2):
        for k, j in ((k, j) for k in range(CLASSES) for j in range(CLASSES) if j != k):
            has_positives = ((image == b) & (y == k) & (p == k)).any()
            if has_positives and ((image == b) & (y == k) & (p == j)).any():
                expected.add((b, k, j))
    assert pairs == expected
    assert any(j == 1 and b == 0 for b, _, j in pairs)  # its negatives are its anchors
    released, *_ = confusions_of(PNE([8], CLASSES, size=7, variant="official"), labels, logits)
    assert len(released.anchors) == len([1 for b, _, j in pairs if ((image == b) & (y == j)).any()]) < len(pairs)


def test_pixels_of_a_set_are_drawn_equally_often():
    labels = torch.zeros(1, 1, 20, dtype=torch.long)
    labels[0, 0, 15:] = 1
    prediction = torch.zeros(1, 1, 20, dtype=torch.long)
    prediction[0, 0, 10:15] = 1  # five missed pixels of class 0; ten correct ones
    logits = F.one_hot(prediction, 2).movedim(-1, 1).float()
    logits[0, 1, 0, 15:] = 9.0
    torch.manual_seed(0)
    method, times = PNE([8], 2, size=2), torch.zeros(20)
    for _ in range(400):
        found, *_ = confusions_of(method, labels, logits)
        times += torch.bincount(torch.cat([part.flatten() for part in found[:3]]), minlength=20)
    assert times.sum() == 400 * 6
    assert 50 <= times[:10].min() <= times[:10].max() <= 110  # 80 expected, standard deviation 8
    assert 115 <= times[10:].min() <= times[10:].max() <= 205  # 160 expected, standard deviation 10


def test_blocks_of_confusions_change_nothing(monkeypatch):
    z, logits, labels = random_case(3)
    results = []
    for elements in (2**24, 1):
        monkeypatch.setattr(methods.pne, "ELEMENTS_AT_A_TIME", elements)
        torch.manual_seed(0)
        loss = PNE([8], CLASSES, dim=DIM, size=10).loss([z], logits, labels, 0)["pne"]
        results.append((loss.detach(), *torch.autograd.grad(loss, z)))
    for whole, blocks in zip(*results, strict=True):
        torch.testing.assert_close(blocks, whole, rtol=1e-10, atol=1e-13)


def test_logits_and_labels_are_taken_at_the_grid_of_the_embeddings(raster_draws):
    z, logits, labels = random_case(4)
    large = labels.repeat_interleave(4, 1).repeat_interleave(4, 2)
    method = PNE([8], CLASSES, dim=DIM, size=5)
    loss = method.loss([z], logits.repeat_interleave(2, 2).repeat_interleave(2, 3), large, 0)["pne"]
    assert loss.item() == pytest.approx(closed_form(z, logits, labels, size=5).item(), rel=1e-10)


def test_diagnostics_describe_the_confusions():
    labels = torch.tensor([[[0, 0, 0, 1, 1, 1, 255]]])
    prediction = torch.tensor([[[0, 1, 1, 1, 1, 0, 0]]])
    angles = torch.tensor([0.0, 0.0, 0.0, math.pi / 2, math.pi / 2, math.pi / 2, 1.0])
    z = torch.stack([angles.cos(), angles.sin()]).view(1, 2, 1, 7)
    method = PNE([8], 2, dim=2)
    loss = method.loss([z], 50.0 * F.one_hot(prediction, 2).movedim(-1, 1), labels, 0)["pne"]
    found = {name: value.item() for name, value in method.diagnostics.items()}
    expected = {"confusions": 2, "anchors": 3, "positive_similarity": 1, "negative_similarity": 0}
    expected["chance/pne"] = 1.3 * math.log(2) * 3 / 200  # w_p is 1
    assert found == pytest.approx(expected, abs=1e-6)
    assert loss.item() == pytest.approx(1.3 * math.log(1 + 1 / math.e) * 3 / 200, rel=1e-5)
