import itertools

import pytest
import torch
import torch.nn.functional as F

from methods.lovasz_softmax import LovaszSoftmax, lovasz_softmax

CLASSES = 5


def batch(ignored=0.1, seed=0):
    """Logits float64 [3, 5, 6, 8] and labels, of which the last class has none."""
    torch.manual_seed(seed)
    labels = torch.randint(0, CLASSES - 1, (3, 6, 8))
    labels[torch.rand(labels.shape) < ignored] = 255
    return torch.randn(3, CLASSES, 6, 8, dtype=torch.float64), labels


def jaccard_loss(wrong, truth):
    """1 - IoU of a class with these pixels (a set of indices), where the prediction errs at the pixels `wrong`."""
    false_positives = len(wrong - truth)
    return len(wrong) / (len(truth) + false_positives)


def extension(errors, truth):
    """The Lovasz extension as an integral: over every level t, the loss of erring where the error is t or more."""
    levels = [0.0, *sorted(set(errors))]
    parts = itertools.pairwise(levels)
    return sum(
        (high - low) * jaccard_loss({i for i, e in enumerate(errors) if e >= high}, truth) for low, high in parts
    )


def by_class(probabilities, labels):
    """The mean over the classes present in these pixels [n, K], [n], each by the integral."""
    keep = labels != 255
    probabilities, labels = probabilities[keep], labels[keep]
    losses = []
    for c in labels.unique().tolist():
        of_class = labels == c
        errors = torch.where(of_class, 1 - probabilities[:, c], probabilities[:, c]).tolist()
        losses.append(extension(errors, set(of_class.nonzero().flatten().tolist())))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("per_image", [False, True])
def test_it_is_the_extension_by_integration_over_levels(per_image):
    logits, labels = batch()
    p = logits.softmax(1)
    found, _ = lovasz_softmax(p, labels, 255, per_image)
    pixels = p.movedim(1, -1)
    if per_image:
        expected = sum(by_class(a.reshape(-1, CLASSES), b.flatten()) for a, b in zip(pixels, labels, strict=True)) / 3
    else:
        expected = by_class(pixels.reshape(-1, CLASSES), labels.flatten())
    assert found.item() == pytest.approx(expected, rel=1e-12)


def test_of_certain_predictions_it_is_one_minus_the_mean_iou():
    _, labels = batch()
    prediction = torch.randint(0, CLASSES, labels.shape)
    sure = F.one_hot(prediction, CLASSES).movedim(-1, 1).double()
    found, per_class = lovasz_softmax(sure, labels, 255)
    valid = labels != 255
    ious = []
    for c in range(CLASSES - 1):
        true, said = (labels == c) & valid, (prediction == c) & valid
        ious.append(((true & said).sum() / (true | said).sum()).item())
    assert found.item() == pytest.approx(1 - sum(ious) / len(ious), rel=1e-6)
    assert (1 - per_class[:-1]).tolist() == pytest.approx(ious, rel=1e-6)
    assert per_class[-1] == 0  # the class without a pixel


def test_its_gradient_is_that_of_finite_differences():
    logits, labels = batch()
    assert torch.autograd.gradcheck(lambda x: lovasz_softmax(x.softmax(1), labels, 255)[0], logits.requires_grad_())


def test_the_method_resizes_logits_as_the_network_does():
    logits, labels = batch()
    labels = labels.repeat_interleave(4, 1).repeat_interleave(4, 2)
    for align_corners in (False, True):
        method = LovaszSoftmax([4], CLASSES, weight=0.5, cross_entropy_weight=0.25)
        method.align_corners = align_corners
        (term,) = method.loss([], logits, labels, 0).values()
        fine = F.interpolate(logits, (24, 32), mode="bilinear", align_corners=align_corners)
        assert term.item() == pytest.approx(0.5 * lovasz_softmax(fine.softmax(1), labels, 255)[0].item(), rel=1e-12)
        assert method.cross_entropy_weight == 0.25
