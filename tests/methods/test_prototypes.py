import math

import pytest
import torch

from methods.class_means import one_hot
from methods.prototypes import Prototypes, sinkhorn

CLASSES, NUMBER, DIM = 4, 3, 8


def batch(ignored=0.1, seed=0):
    """An embedding float64 [2, 8, 6, 8] with some class structure, and its labels; the last class has none."""
    torch.manual_seed(seed)
    labels = torch.randint(0, CLASSES - 1, (2, 6, 8))
    centers = torch.randn(CLASSES, DIM, dtype=torch.float64)
    embedding = torch.randn(2, DIM, 6, 8, dtype=torch.float64) + centers[labels].movedim(-1, 1)
    labels[torch.rand(labels.shape) < ignored] = 255
    return embedding, labels


def build(**options):
    torch.manual_seed(1)
    method = Prototypes([DIM], CLASSES, dim=DIM, prototypes=NUMBER, **options).double().train()
    method.prototypes.copy_(torch.nn.functional.normalize(torch.randn(CLASSES, NUMBER, DIM), dim=2))
    return method


def normalized(values):
    length = math.sqrt(sum(each * each for each in values))
    return [each / length for each in values]


def dot(a, b):
    return sum(p * q for p, q in zip(a, b, strict=True))


def unit_embeddings(embedding):
    """L2, layer norm (new, so without effect of its own), L2: a list for every pixel."""
    found = []
    for vector in embedding.movedim(1, -1).reshape(-1, DIM).tolist():
        vector = normalized(vector)
        middle = sum(vector) / DIM
        spread = math.sqrt(sum((each - middle) ** 2 for each in vector) / DIM + 1e-5)
        found.append(normalized([(each - middle) / spread for each in vector]))
    return found


def even_shares(similarities):
    """Sinkhorn among the pixels of one class, their similarities [n][M]."""
    shares = [[math.exp(each / 0.05) for each in row] for row in similarities]
    for _ in range(3):
        columns = [sum(column) for column in zip(*shares, strict=True)]
        shares = [[each / column for each, column in zip(row, columns, strict=True)] for row in shares]
        shares = [[each / sum(row) for each in row] for row in shares]
    return shares


def by_pixel(method, embedding, labels, momentum):
    """Contrast, distance, and the prototypes afterwards."""
    pixels, y = unit_embeddings(embedding), labels.flatten().tolist()
    prototypes = method.prototypes.tolist()
    nearness = [[[dot(z, p) for p in of_class] for of_class in prototypes] for z in pixels]
    contrast, distance = [], []
    sums = [[[0.0] * DIM for _ in range(NUMBER)] for _ in range(CLASSES)]
    for c in set(y) - {255}:
        members = [i for i, label in enumerate(y) if label == c]
        for i, row in zip(members, even_shares([nearness[i][c] for i in members]), strict=True):
            m = row.index(max(row))
            scores = [each / method.temperature for of_class in nearness[i] for each in of_class]
            contrast.append(math.log(sum(map(math.exp, scores))) - nearness[i][c][m] / method.temperature)
            distance.append((1 - nearness[i][c][m]) ** 2)
            if max(range(CLASSES), key=lambda k: max(nearness[i][k])) == c:
                sums[c][m] = [a + b for a, b in zip(sums[c][m], pixels[i], strict=True)]
    for c in range(CLASSES):
        for m in range(NUMBER):
            if any(sums[c][m]):
                goal = normalized(sums[c][m])
                moved = [momentum * a + (1 - momentum) * b for a, b in zip(prototypes[c][m], goal, strict=True)]
                prototypes[c][m] = normalized(moved)
    return sum(contrast) / len(contrast), sum(distance) / len(distance), prototypes


def test_losses_and_moves_are_those_of_loops_over_pixels():
    embedding, labels = batch()
    method = build(momentum=0.5, contrast_weight=2.0, distance_weight=0.5)
    before = method.prototypes.clone()
    for iteration in range(3):
        contrast, distance, prototypes = by_pixel(method, embedding, labels, 0.5)
        terms = method.loss([embedding], torch.zeros(1), labels, iteration)
        assert terms["prototype_contrast"].item() == pytest.approx(2 * contrast, rel=1e-6)
        assert terms["prototype_distance"].item() == pytest.approx(0.5 * distance, rel=1e-6)
        torch.testing.assert_close(method.prototypes, torch.tensor(prototypes).double(), rtol=1e-5, atol=1e-6)
    assert torch.equal(method.prototypes[-1], before[-1])  # of the class without a pixel
    assert not torch.equal(method.prototypes[0], before[0])


def test_sinkhorn_spreads_a_class_evenly_over_its_prototypes():
    torch.manual_seed(0)
    of_class = one_hot(torch.randint(0, 3, (600,)), 3, torch.float64)
    similarity = 0.2 * torch.randn(600, 4, dtype=torch.float64) + torch.tensor([0.5, 0.0, 0.0, 0.0])
    shares = sinkhorn(similarity, of_class)
    torch.testing.assert_close(shares.sum(1), torch.ones(600, dtype=torch.float64))
    columns = of_class.T @ shares
    even = of_class.sum(0)[:, None] / 4
    assert ((columns / even - 1).abs() < 0.25).all()
    alone = (similarity / 0.05).softmax(1)
    assert (of_class.T @ alone)[:, 0].min() > 2 * even.max()  # without it the first prototype takes nearly all


def test_the_variants_differ_in_temperature_weight_and_noise():
    paper, official = Prototypes([DIM], CLASSES), Prototypes([DIM], CLASSES, variant="official")
    assert (paper.temperature, official.temperature) == (0.1, 1)
    assert (paper.distance_weight, official.distance_weight) == (0.01, 0.001)
    embedding, labels = batch()
    states = []
    for seed in (0, 1):
        method = build(variant="official", momentum=0.5)
        torch.manual_seed(seed)
        method.loss([embedding], torch.zeros(1), labels, 0)
        states.append(method.prototypes.clone())
    assert not torch.equal(*states)


def test_prototypes_get_no_gradient_and_stand_still_in_eval_mode():
    embedding, labels = batch()
    method = build().eval()
    before = method.prototypes.clone()
    sum(method.loss([embedding.requires_grad_()], torch.zeros(1), labels, 0).values()).backward()
    assert torch.equal(method.prototypes, before)
    assert not method.prototypes.requires_grad
    assert embedding.grad.abs().sum() > 0


def test_the_chance_level_is_that_of_prototypes_that_are_all_alike():
    embedding, labels = batch()
    method = build(contrast_weight=2.0)
    method.prototypes.copy_(method.prototypes[:1, :1].expand_as(method.prototypes))
    terms = method.loss([embedding], torch.zeros(1), labels, 0)
    level = method.diagnostics["chance/prototype_contrast"]
    assert level.item() == pytest.approx(terms["prototype_contrast"].item(), rel=1e-6)
