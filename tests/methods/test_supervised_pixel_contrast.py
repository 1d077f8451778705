import math

import pytest
import torch

from methods.supervised_pixel_contrast import SupervisedPixelContrast

DIM, CLASSES = 6, 4


def batch(ignored=0.15):
    """An embedding float64 [3, 6, 5, 4] and its labels; the second image has one class, so no negatives of its own."""
    torch.manual_seed(0)
    labels = torch.randint(0, CLASSES, (3, 5, 4))
    labels[1] = 2
    labels[torch.rand(labels.shape) < ignored] = 255
    return torch.randn(3, DIM, 5, 4, dtype=torch.float64), labels


def cosine(a, b):
    return sum(p * q for p, q in zip(a, b, strict=True)) / math.sqrt(sum(p * p for p in a) * sum(q * q for q in b))


def mean(values):
    return sum(values) / len(values)


def by_pixel(embedding, labels, temperature, across):
    """L, and the chance level, over lists of (vector, label, image) of every image with its partner."""
    by_image = zip(embedding.flatten(2).mT.tolist(), labels.flatten(1).tolist(), strict=True)
    images = [
        [(v, c, number) for v, c in zip(vectors, y, strict=True) if c != 255]
        for number, (vectors, y) in enumerate(by_image)
    ]
    losses, levels = [], []
    for number, image in enumerate(images):
        pixels = image + (images[(number + 1) % len(images)] if across else [])
        terms, level = [], []
        for p, c, origin in pixels:
            negatives = [math.exp(cosine(p, q) / temperature) for q, d, where in pixels if d != c and where == origin]
            positives = [math.exp(cosine(p, q) / temperature) for q, d, _ in pixels if d == c]
            terms.append(mean([-math.log(each / (each + sum(negatives))) for each in positives]))
            level.append(math.log(1 + len(negatives)))
        losses.append(mean(terms))
        levels.append(mean(level))
    return mean(losses), mean(levels)


@pytest.mark.parametrize("across", ["within_image", "two_images"])
def test_the_loss_and_its_chance_level_are_means_over_pixels(across):
    embedding, labels = batch()
    method = SupervisedPixelContrast([DIM], CLASSES, dim=DIM, across=across, weight=0.5, temperature=0.2)
    (term,) = method.loss([embedding], torch.zeros(1), labels, 0).values()
    loss, level = by_pixel(embedding, labels, 0.2, across == "two_images")
    assert term.item() == pytest.approx(0.5 * loss, rel=1e-10)
    assert method.diagnostics["chance/supervised_pixel_contrast"].item() == pytest.approx(0.5 * level, rel=1e-10)


def test_fewer_pixels_are_drawn_from_the_valid_ones():
    embedding, labels = batch(ignored=0.5)
    method = SupervisedPixelContrast([DIM], CLASSES, dim=DIM, pixels_per_image=5)
    found = set()
    for seed in range(4):
        torch.manual_seed(seed)
        (term,) = method.loss([embedding], torch.zeros(1), labels, 0).values()
        assert method.diagnostics["anchors"] == 15
        found.add(term.item())
    assert len(found) > 1


def test_two_stages_are_an_arm_of_it():
    method = SupervisedPixelContrast([DIM], CLASSES, weight=1, cross_entropy_weight=0)
    assert method.cross_entropy_weight == 0
