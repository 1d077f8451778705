import math

import pytest
import torch

from methods.conditional_boundary import ConditionalBoundary

CLASSES, HEIGHT, WIDTH, DIM = 5, 10, 12, 6


def batch(ignored=0.05, seed=0):
    """x float64 [2, 6, 10, 12] on the labels' grid, logits right at about two of three pixels, and labels."""
    torch.manual_seed(seed)
    labels = torch.randint(0, CLASSES - 1, (2, 5, 4)).repeat_interleave(2, 1).repeat_interleave(3, 2)
    logits = torch.randn(2, CLASSES, HEIGHT, WIDTH, dtype=torch.float64)
    logits = logits + 2 * torch.nn.functional.one_hot(labels, CLASSES).movedim(-1, 1)
    labels[torch.rand(labels.shape) < ignored] = 255
    return torch.randn(2, DIM, HEIGHT, WIDTH, dtype=torch.float64), logits, labels


def cosine(a, b):
    return sum(p * q for p, q in zip(a, b, strict=True)) / math.sqrt(sum(p * p for p in a) * sum(q * q for q in b))


def entropy(method, vector, label):
    scores = method.classifier.weight.double() @ torch.tensor(vector, dtype=torch.float64) + method.classifier.bias
    return (scores.logsumexp(0) - scores[label]).item()


def average(rows):
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def mean(values):
    return sum(values) / len(values)


def by_pixel(method, x, logits, labels, official, reach=2):
    """The three terms without their weights, pixel by pixel."""
    vectors, y, said = x.movedim(1, -1).tolist(), labels.tolist(), logits.argmax(1).tolist()
    pairs, every, correct = [], {}, {}
    for image in range(len(y)):
        own_pairs = []
        for r in range(HEIGHT):
            for c in range(WIDTH):
                label = y[image][r][c]
                window = [(r + a, c + b) for a in range(-reach, reach + 1) for b in range(-reach, reach + 1) if a or b]
                near = [(a, b) for a, b in window if 0 <= a < HEIGHT and 0 <= b < WIDTH]
                if label == 255 or all(y[image][a][b] in (label, 255) for a, b in near):
                    continue
                own = vectors[image][r][c]
                right = [(a, b) for a, b in near if y[image][a][b] == said[image][a][b] != 255]
                used = ([] if label == 0 or len(near) < len(window) else near) if official else right
                own_pairs += [(cosine(own, vectors[image][a][b]) - (y[image][a][b] == label)) ** 2 for a, b in used]
                alike = [vectors[image][a][b] for a, b in near if y[image][a][b] == label]
                kept = [vectors[image][a][b] for a, b in right if y[image][a][b] == label]
                if alike:
                    every.setdefault(label, []).append(entropy(method, average(alike), label))
                if kept and said[image][r][c] == label:
                    center = average(kept)
                    apart = mean([(p - q) ** 2 for p, q in zip(own, center, strict=True)])
                    correct.setdefault(label, []).append((entropy(method, center, label), apart))
        pairs.append(own_pairs)
    there = every.keys() & correct.keys()
    centers = mean([mean([apart for _, apart in correct[c]]) for c in there])
    classes = mean([mean(every[c]) + mean([value for value, _ in correct[c]]) for c in there])
    whole = [mean(own) for own in pairs if own] if official else [mean([each for own in pairs for each in own])]
    return mean(whole), centers, classes


@pytest.mark.parametrize("variant", ["paper", "official"])
def test_the_terms_are_sums_over_boundary_pixels_and_their_neighbors(variant):
    x, logits, labels = batch()
    given = {"pair_weight": 0.5, "center_weight": 3.0, "class_weight": 0.25, "pixels_per_image": 1000}
    method = ConditionalBoundary([DIM], CLASSES, variant=variant, dim=DIM, **given).double()
    terms = method.loss([x], logits, labels, 0)
    pairs, centers, classes = by_pixel(method, x, logits, labels, variant == "official")
    assert terms["boundary_pairs"].item() == pytest.approx(0.5 * pairs, rel=1e-9)
    assert terms["boundary_centers"].item() == pytest.approx(3 * centers, rel=1e-9)
    assert terms["boundary_classes"].item() == pytest.approx(0.25 * classes, rel=1e-6)


def test_the_classifier_learns_from_the_features_and_not_they_from_it():
    x, logits, labels = batch()
    x.requires_grad_()
    method = ConditionalBoundary([DIM], CLASSES, dim=DIM).double()
    terms = method.loss([x], logits, labels, 0)
    valid = labels != 255
    scores = method.classifier(x.detach().movedim(1, -1)[valid])
    expected = torch.nn.functional.cross_entropy(scores, labels[valid])
    assert terms["classifier"].item() == pytest.approx(expected.item(), rel=1e-9)
    parameters = list(method.classifier.parameters())
    (own,) = torch.autograd.grad(terms["classifier"], [x], retain_graph=True, allow_unused=True)
    rest = sum(term for name, term in terms.items() if name != "classifier")
    others = torch.autograd.grad(rest, parameters, allow_unused=True)
    assert own is None
    assert others == (None, None)


def test_a_budget_draws_boundary_pixels_alone():
    x, logits, labels = batch(ignored=0.0)
    labels[:] = 1
    labels[:, :2] = 2  # of 10 rows: those within two of the border between the second and the third are on a boundary
    method = ConditionalBoundary([DIM], CLASSES, dim=DIM, pixels_per_image=30).double()
    for _ in range(5):
        drawn = method.draw(x, labels, logits.argmax(1))
        assert (drawn.labels < CLASSES).all()
    method = ConditionalBoundary([DIM], CLASSES, dim=DIM, pixels_per_image=60).double()
    drawn = method.draw(x, labels, logits.argmax(1))
    assert (drawn.labels < CLASSES).sum() == 2 * 4 * WIDTH


def test_the_chance_level_is_the_best_of_one_similarity_for_all_pairs():
    x, logits, labels = batch()
    method = ConditionalBoundary([DIM], CLASSES, dim=DIM, pair_weight=0.5, pixels_per_image=1000).double()
    method.loss([x], logits, labels, 0)
    level = method.diagnostics["chance/boundary_pairs"].item()
    drawn = method.draw(x, torch.where(labels == 255, CLASSES, labels), logits.argmax(1))
    counted = (drawn.labels < CLASSES)[:, None] & drawn.near_right & (drawn.near_labels < CLASSES)
    same = (drawn.labels[:, None] == drawn.near_labels)[counted].double()
    losses = [0.5 * (same - constant).square().mean().item() for constant in torch.linspace(0, 1, 1001).tolist()]
    assert level == pytest.approx(min(losses), rel=1e-4)
