import math

import pytest
import torch

from methods.ohem import OHEM

CLASSES = 4


def batch(sharpness, ignored=0.1):
    torch.manual_seed(0)
    labels = torch.randint(0, CLASSES, (3, 10, 8))
    logits = torch.randn(3, CLASSES, 10, 8, dtype=torch.float64)
    logits = logits + sharpness * torch.nn.functional.one_hot(labels, CLASSES).movedim(-1, 1)
    labels[torch.rand(labels.shape) < ignored] = 255
    return logits, labels


def by_pixel(logits, labels, threshold, keep):
    """The mean of -log p over the chosen pixels: those up to the threshold, or else the hardest ones."""
    p = logits.softmax(1).movedim(1, -1)[labels != 255].gather(1, labels[labels != 255][:, None]).flatten()
    p = sorted(p.tolist())
    number = max(sum(each <= (threshold or 0) for each in p), min(round(keep * labels.numel()), len(p)))
    return -sum(math.log(each) for each in p[:number]) / number


@pytest.mark.parametrize("sharpness", [0, 4, 10])
@pytest.mark.parametrize(("threshold", "keep"), [(0.7, 0.0625), (0.7, 0.5), (0.3, 0.1), (None, 0.25), (0.7, 1.0)])
def test_it_is_the_mean_over_the_hardest_pixels(sharpness, threshold, keep):
    logits, labels = batch(sharpness)
    (term,) = OHEM([4], CLASSES, threshold=threshold, keep=keep).loss([], logits, labels, 0).values()
    assert term.item() == pytest.approx(by_pixel(logits, labels, threshold, keep), rel=1e-12)


def test_the_kept_share_is_of_the_valid_pixels():
    logits, labels = batch(10)
    method = OHEM([4], CLASSES, keep=0.25)
    method.loss([], logits, labels, 0)
    assert method.diagnostics["kept_share"].item() == pytest.approx(60 / (labels != 255).sum().item())


def test_easy_pixels_have_no_gradient_and_the_networks_cross_entropy_none_at_all():
    logits, labels = batch(10)
    logits.requires_grad_()
    method = OHEM([4], CLASSES, keep=0.25)
    method.loss([], logits, labels, 0)["ohem"].backward()
    assert (logits.grad.abs().sum(1) > 0).sum() == 60
    assert method.cross_entropy_weight == 0
