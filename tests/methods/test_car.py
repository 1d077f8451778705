import math

import pytest
import torch
import torch.nn.functional as F

from methods.car import CAR

CLASSES, DIM = 5, 6


def random_case(seed, dtype=torch.float64):
    """Embeddings [2, 6, 4, 5] and labels with ignored pixels and without class 3."""
    generator = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(2, DIM, 4, 5, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 4, 255])[torch.randint(0, 5, (2, 4, 5), generator=generator)]
    return z.to(dtype).requires_grad_(), labels


def closed_form(z, labels, official=False, weights=(1.0, 1.0, 1.0), margins=(0.5, 0.25)):
    """The three terms, one pixel and one class at a time."""
    every = [
        (z[b, :, i, j], labels[b, i, j].item())
        for b in range(len(z))
        for i in range(z.shape[2])
        for j in range(z.shape[3])
    ]
    pixels = [(x, y) for x, y in every if y != 255]
    centres = {}
    for c in range(CLASSES):
        own = [x for x, y in pixels if y == c]
        if own or official:
            centres[c] = sum(own) / len(own) if own else torch.zeros(DIM, dtype=z.dtype)
    fixed = {c: centre.detach() for c, centre in centres.items()}
    root, others = math.sqrt(DIM), max(len(centres) - 1, 1)

    distances = [(fixed[y] - x).abs().mean() for x, y in pixels]
    intra = sum(distances) / (len(every) if official else len(pixels))

    def above(scores, own, margin):
        share = {c: s.exp() / sum(v.exp() for v in scores.values()) for c, s in scores.items()}
        return sum((p - margin / others).clamp(min=0) for c, p in share.items() if c != own)

    between = [above({c: centres[i] @ fixed[c] / root for c in fixed}, i, margins[0]) for i in centres]
    to_pixels = []
    for x, y in every if official else pixels:
        scores = {c: (fixed[c] @ fixed[c] if c == y else x @ fixed[c]) / root for c in fixed}
        to_pixels.append(above(scores, y, margins[1]))
    terms = (intra, sum(between) / len(between), sum(to_pixels) / len(to_pixels))
    return [w * term**2 for w, term in zip(weights, terms, strict=True)]


NAMES = ["intra", "centre_to_centre", "centre_to_pixel"]


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("options", [{}, {"weights": (0.3, 0.5, 0.7), "margins": (0.1, 0.9)}], ids=["default", "other"])
@pytest.mark.parametrize("seed", [0, 1])
def test_terms_and_gradients_equal_the_closed_form(official, options, seed):
    chosen = {"variant": "official" if official else "paper"}
    if options:
        chosen |= dict(zip([f"{name}_weight" for name in NAMES], options["weights"], strict=True))
        chosen |= dict(zip(("centre_margin", "pixel_margin"), options["margins"], strict=True))
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        z, labels = random_case(seed, dtype)
        terms = CAR([8], CLASSES, dim=DIM, **chosen).loss([z], torch.zeros(2, CLASSES, 4, 5), labels, 0)
        assert list(terms) == NAMES
        reference = z.detach().double().requires_grad_()
        expected = closed_form(reference, labels, official, **options)
        assert min(expected) > 1e-4
        for name, value in zip(NAMES, expected, strict=True):
            assert terms[name].item() == pytest.approx(value.item(), rel=tolerance)
            (found,) = torch.autograd.grad(terms[name], z, retain_graph=True)
            (gradient,) = torch.autograd.grad(value, reference, retain_graph=True)
            torch.testing.assert_close(found.double(), gradient, rtol=10 * tolerance, atol=tolerance)


def test_features_at_their_centres_cost_nothing_where_the_centres_are_far_apart():
    labels = torch.tensor([[[0, 0, 1, 1, 2]]])
    z = 20 * F.one_hot(labels, DIM).movedim(-1, 1).double()
    terms = CAR([8], CLASSES, dim=DIM).loss([z.requires_grad_()], torch.zeros(1, CLASSES, 1, 5), labels, 0)
    assert [term.item() for term in terms.values()] == [0, 0, 0]


def test_a_step_down_the_gradient_draws_pixels_to_their_centres_and_apart_from_others():
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (1, 6, 6))
    z = torch.randn(1, DIM, 6, 6, requires_grad=True)
    method = CAR([8], 3, dim=DIM)
    found = []
    for _ in range(30):
        terms = method.loss([z], torch.zeros(1, 3, 6, 6), labels, 0)
        found.append({name: term.item() for name, term in terms.items()} | method.diagnostics)
        (gradient,) = torch.autograd.grad(sum(terms.values()), z)
        z = (z - 20 * gradient).detach().requires_grad_()
    assert all(found[-1][name] < 0.5 * found[0][name] for name in NAMES)
    assert found[-1]["own_centre_similarity"] > found[0]["own_centre_similarity"]
    assert found[-1]["centre_similarity"] < found[0]["centre_similarity"]


@pytest.mark.parametrize("variant", ["paper", "official"])
@pytest.mark.parametrize("present", [0, 1, 2])
def test_few_classes_give_finite_terms_and_gradients(variant, present):
    labels = torch.full((1, 2, 4), 255)
    labels[0, 0, :2] = torch.tensor([1, 1] if present == 1 else [1, 2]) if present else 255
    z = torch.randn(1, DIM, 2, 4, requires_grad=True)
    terms = CAR([8], CLASSES, dim=DIM, variant=variant).loss([z], torch.zeros(1, CLASSES, 2, 4), labels, 0)
    sum(terms.values()).backward()
    assert all(term.isfinite() for term in terms.values())
    assert z.grad.isfinite().all()
    if variant == "paper" and present < 2:
        assert terms["centre_to_centre"] == terms["centre_to_pixel"] == 0


def test_projection_is_linear_over_the_upsampled_maps_and_has_512_channels_at_most():
    torch.manual_seed(0)
    features = [torch.randn(2, 3, 8, 12), torch.randn(2, 5, 4, 6)]
    method = CAR([3, 5], 4)
    (x,) = method.embed(features)
    fused = torch.cat([F.interpolate(f, (8, 12), mode="bilinear", align_corners=True) for f in features], 1)
    weight = method.head.weight[:, :, 0, 0]
    expected = torch.einsum("oc,bchw->bohw", weight, fused) + method.head.bias[:, None, None]
    torch.testing.assert_close(x, expected)
    assert x.shape == (2, 8, 8, 12)
    assert CAR([48, 96, 192, 384], 19).head.out_channels == 512
    assert CAR([3, 5], 4, layers=[1]).embed(features)[0].shape == (2, 5, 4, 6)


def test_diagnostics_describe_pixels_and_centres():
    labels = torch.tensor([[[0, 0, 2, 255]]])
    z = torch.tensor([[3.0, 1.0, 0.0, 9.0], [0.0, 0.0, 2.0, 9.0]]).view(1, 2, 1, 4)
    method = CAR([8], 4, dim=2)
    terms = method.loss([z], torch.zeros(1, 4, 1, 4), labels, 0)
    found = {name: value.tolist() for name, value in method.diagnostics.items()}
    assert found["pixels"] == [2, 0, 1, 0]
    assert found["centres"] == 2
    assert found["own_centre_similarity"] == pytest.approx(1)
    assert found["centre_similarity"] == pytest.approx(0)
    assert found["intra/mean"] == pytest.approx(2 / 6)  # |3 - 2| and |1 - 2| of three pixels with two channels
    assert terms["intra"].item() == pytest.approx(1 / 9)
