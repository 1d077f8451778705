import pytest
import torch

from methods.contextrast import Contextrast
from methods.deep_supervision import DeepSupervision

CHANNELS, STRIDES = (6, 8, 10, 12), (4, 8, 16, 32)


def batch(ignored=0.1):
    torch.manual_seed(0)
    labels = torch.randint(0, 5, (2, 64, 96))
    labels[torch.rand(labels.shape) < ignored] = 255
    return [torch.randn(2, c, 64 // s, 96 // s) for c, s in zip(CHANNELS, STRIDES, strict=True)], labels


def by_pixel(method, maps, labels):
    """L, pixel by pixel in float64, from the heads' weights."""
    total = 0.0
    for feature, head, weight, stride in zip(maps, method.heads, method.layer_weights, STRIDES, strict=True):
        matrix, bias = head.weight[:, :, 0, 0].double(), head.bias.double()
        terms = []
        for image in range(len(labels)):
            for y in range(feature.shape[2]):
                for x in range(feature.shape[3]):
                    label = int(labels[image, y * stride, x * stride])
                    if label != 255:
                        scores = matrix @ feature[image, :, y, x].double() + bias
                        terms.append(scores.exp().sum().log() - scores[label])
        total += weight * torch.stack(terms).mean().item()
    return total


def test_the_loss_is_the_cross_entropy_of_every_maps_head():
    maps, labels = batch()
    method = DeepSupervision(CHANNELS, 5, weight=0.4)
    (term,) = method(maps, torch.zeros(2, 5, 16, 24), labels, 0).values()
    assert term.item() == pytest.approx(0.4 * by_pixel(method, maps, labels), rel=1e-6)


def test_by_default_it_weighs_as_contextrast():
    mine, theirs = DeepSupervision.Options(), Contextrast.Options()
    assert (mine.weight, mine.layer_weights) == (theirs.weight, theirs.layer_weights)
    for number in range(1, 5):
        channels = CHANNELS[:number]
        assert DeepSupervision(channels, 5).layer_weights == Contextrast(channels, 5).layer_weights


def test_without_a_valid_pixel_the_loss_is_zero():
    maps, labels = batch(ignored=2.0)
    (term,) = DeepSupervision(CHANNELS, 5)(maps, torch.zeros(2, 5, 16, 24), labels, 0).values()
    assert term.item() == 0
    assert term.requires_grad


def test_the_diagnostics_are_each_heads_loss_and_accuracy():
    maps, labels = batch()
    method = DeepSupervision(CHANNELS, 5, weight=1.0)
    (term,) = method(maps, torch.zeros(2, 5, 16, 24), labels, 0).values()
    noted = [method.diagnostics[f"deep_supervision/layer{i}"] for i in range(1, 5)]
    assert term.item() == pytest.approx(float(torch.stack(noted) @ torch.tensor(method.layer_weights)), rel=1e-6)
    grid, scores = labels[:, ::4, ::4], method.embed(maps)[0]
    valid = grid != 255
    share = (scores.argmax(1) == grid)[valid].double().mean()
    assert method.diagnostics["by_layer/pixel_accuracy"][0].item() == pytest.approx(share.item(), rel=1e-6)
    method.observing = False
    method(maps, torch.zeros(2, 5, 16, 24), labels, 0)
    assert method.diagnostics == {}


def test_too_few_weights_are_refused():
    with pytest.raises(ValueError, match="layer_weights has 2 values, but must have one for each of the 4"):
        DeepSupervision(CHANNELS, 5, layer_weights=[0.5, 1.0])
