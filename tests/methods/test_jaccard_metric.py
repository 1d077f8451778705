import itertools

import pytest
import torch
import torch.nn.functional as F

from methods.jaccard_metric import JaccardMetric

CLASSES = 5


def batch(ignored=0.1):
    """Logits float64 [3, 5, 6, 8] and labels, of which the last class has none and the last image one class alone."""
    torch.manual_seed(0)
    labels = torch.randint(0, CLASSES - 1, (3, 6, 8))
    labels[2] = 1
    labels[torch.rand(labels.shape) < ignored] = 255
    return torch.randn(3, CLASSES, 6, 8, dtype=torch.float64), labels


def tversky(pixels, c, given):
    """The loss of class c over (softmax, label) pairs, by sums over pixels; None where the class does not count."""
    eps = given["label_smoothing"]
    valid = [(p, y) for p, y in pixels if y != 255]
    if not valid or (not eps and all(y != c for _, y in valid)):
        return None
    target = [(1 - eps) * (y == c) + eps / CLASSES for _, y in valid]
    soft = [p[c] for p, _ in valid]
    hit = (sum(soft) + sum(target) - sum(abs(f - y) for f, y in zip(soft, target, strict=True))) / 2
    share = {"jaccard": 1, "dice": 0.5}[given["index"]]
    union = hit + share * (sum(soft) - hit) + share * (sum(target) - hit)
    return 1 - (hit + given["smooth"]) / (union + given["smooth"])


def mean(values):
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None


def by_pixel(logits, labels, given):
    softmax = logits.softmax(1).movedim(1, -1)
    images = [
        list(zip(p.reshape(-1, CLASSES).tolist(), y.flatten().tolist(), strict=True))
        for p, y in zip(softmax, labels, strict=True)
    ]
    if given["over"] == "batch":
        return mean([tversky([pixel for image in images for pixel in image], c, given) for c in range(CLASSES)])
    table = [[tversky(image, c, given) for c in range(CLASSES)] for image in images]
    return (mean([mean(row) for row in table]) + mean([mean(column) for column in zip(*table, strict=True)])) / 2


@pytest.mark.parametrize(
    ("index", "over", "smoothing", "smooth"),
    [*itertools.product(("jaccard", "dice"), ("batch", "images"), (0.0, 0.2), (1.0,)), ("jaccard", "batch", 0.0, 0.0)],
)
def test_the_loss_is_the_sum_over_pixels(index, over, smoothing, smooth):
    logits, labels = batch()
    given = {"index": index, "over": over, "label_smoothing": smoothing, "smooth": smooth}
    logits.requires_grad_()
    (term,) = JaccardMetric([4], CLASSES, weight=0.5, **given).loss([], logits, labels, 0).values()
    assert term.item() == pytest.approx(0.5 * by_pixel(logits.detach(), labels, given), rel=1e-12)
    term.backward()
    assert logits.grad.isfinite().all()


def test_of_certain_predictions_it_is_one_minus_the_mean_iou():
    _, labels = batch()
    prediction = torch.randint(0, CLASSES, labels.shape)
    sure = 1e3 * F.one_hot(prediction, CLASSES).movedim(-1, 1).double()
    method = JaccardMetric([4], CLASSES, weight=1.0, smooth=0.0)
    (term,) = method.loss([], sure, labels, 0).values()
    valid, ious = labels != 255, []
    for c in range(CLASSES - 1):
        true, said = (labels == c) & valid, (prediction == c) & valid
        ious.append(((true & said).sum() / (true | said).sum()).item())
    assert term.item() == pytest.approx(1 - sum(ious) / len(ious), rel=1e-6)
    assert (1 - method.diagnostics["soft_jaccard_loss"][:-1]).tolist() == pytest.approx(ious, rel=1e-6)


def test_with_smoothed_labels_a_prediction_equal_to_them_has_no_loss():
    _, labels = batch(ignored=0.0)
    target = 0.9 * F.one_hot(labels, CLASSES).movedim(-1, 1).double() + 0.1 / CLASSES
    method = JaccardMetric([4], CLASSES, label_smoothing=0.1)
    (term,) = method.loss([], target.log(), labels, 0).values()
    assert term.item() == pytest.approx(0, abs=1e-12)
    (term,) = method.loss([], 3 * target.log(), labels, 0).values()  # surer than the labels
    assert term.item() > 0.01


def test_the_network_keeps_a_quarter_of_its_cross_entropy():
    assert JaccardMetric([4], CLASSES).cross_entropy_weight == 0.25
