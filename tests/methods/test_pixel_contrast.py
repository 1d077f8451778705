import math

import pytest
import torch
import torch.nn.functional as F

from methods.pixel_contrast import PixelContrast


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


def test_maps_are_upsampled_to_the_finest_and_concatenated():
    torch.manual_seed(0)
    features = [torch.randn(2, 3, 8, 12), torch.randn(2, 5, 4, 6), torch.randn(2, 2, 2, 3)]
    method = PixelContrast([3, 5, 2], 4, dim=7)
    fused = torch.cat([F.interpolate(f, (8, 12), mode="bilinear", align_corners=True) for f in features], 1)
    (embedding,) = method.embed(features)
    torch.testing.assert_close(embedding, method.head(fused))
    assert embedding.shape == (2, 7, 8, 12)

    last = PixelContrast([3, 5, 2], 4, dim=7, layers=[-1])
    assert last.embed(features)[0].shape == (2, 7, 2, 3)
    assert last.head[0].in_channels == 2


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0},
        {"weight": -0.1},
        {"dim": 0},
        {"anchors_per_image": 0},
        {"max_views": 2.5},
        {"min_pixels": -1},
        {"layers": []},
        {"layers": [2]},
        {"layers": ["last"]},
    ],
    ids=str,
)
def test_a_wrong_option_is_named_in_a_value_error(options):
    with pytest.raises(ValueError, match=f"^{next(iter(options))} is .*"):
        PixelContrast([3, 5], 4, **options)
