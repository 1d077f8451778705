import math

import pytest
import torch
import torch.nn.functional as F
from memory_rows import rows

from methods import region_contrast
from methods.region_contrast import RegionContrast

CLASSES = 5


def case(seed):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(3, 8, 4, 6, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.randint(0, CLASSES, (3, 4, 6), generator=generator).repeat_interleave(2, 1).repeat_interleave(2, 2)
    labels[0, :2] = 255
    labels[1][labels[1] == 2] = 0
    return z, torch.randn(3, CLASSES, 2, 3, generator=generator, dtype=torch.float64), labels


def centres_of(z, regions):
    """[(class, unit centre)], class by class in each image."""
    found = []
    for b in range(len(z)):
        for k in sorted(set(regions[b].flatten().tolist()) - {255}):
            centre = z[b].movedim(0, -1)[regions[b] == k].mean(0)
            found.append((k, centre / centre.norm()))
    return found


def closed_form(centres, memory, temperature=0.2, weight=0.1):
    losses = []
    for label, centre in centres:
        scores = [(other == label, math.exp(centre @ key / temperature)) for other, key in memory]
        negatives = sum(score for same, score in scores if not same)
        terms = [-math.log(score / (score + negatives)) for same, score in scores if same]
        losses += [sum(terms) / len(terms)] if terms else []
    return weight * sum(losses) / len(losses)


@pytest.mark.parametrize("options", [{}, {"centres": "predicted"}, {"temperature": 0.07, "weight": 1.0}], ids=str)
@pytest.mark.parametrize("max_scores", [2**25, 40])
def test_loss_and_gradient_equal_the_closed_form(options, max_scores, monkeypatch):
    monkeypatch.setattr(region_contrast, "MAX_SCORES", max_scores)  # 40: one centre at a time
    method = RegionContrast([4], CLASSES, dim=8, **options).double()
    memory = []
    for seed in range(3):
        z, logits, labels = case(seed)
        regions = labels[:, ::2, ::2]
        if "centres" in options:
            prediction = logits.argmax(1).repeat_interleave(2, 1).repeat_interleave(2, 2)
            regions = torch.where(regions == 255, 255, prediction)
        terms = method.loss([z], logits, labels, seed)
        assert list(terms) == ["region_contrast"]
        constants = {key: options[key] for key in ("temperature", "weight") if key in options}
        if memory:
            expected = closed_form(centres_of(z.detach(), regions), memory, **constants)
            assert terms["region_contrast"].item() == pytest.approx(expected, rel=1e-10)
            terms["region_contrast"].backward()
            direction = torch.randn(z.shape, dtype=torch.double, generator=torch.Generator().manual_seed(9))
            low, high = (
                closed_form(centres_of(z.detach() + step * direction, regions), memory, **constants)
                for step in (-1e-6, 1e-6)
            )
            assert (z.grad * direction).sum().item() == pytest.approx((high - low) / 2e-6, rel=1e-4)
        else:
            assert terms["region_contrast"] == 0
        memory += centres_of(z.detach(), regions)


def test_the_memory_keeps_the_last_centres_of_each_class_and_is_pure():
    method = RegionContrast([4], CLASSES, dim=CLASSES, memory_size=4).double()
    expected = {k: [] for k in range(CLASSES)}
    for seed in range(4):
        _, logits, labels = case(seed)
        grid = labels[:, ::2, ::2]
        noise = torch.rand(3, CLASSES, 4, 6, dtype=torch.double, generator=torch.Generator().manual_seed(seed))
        z = F.one_hot(grid % CLASSES, CLASSES).movedim(-1, 1) + 0.1 * noise
        method.loss([z], logits, labels, seed)
        for k, centre in centres_of(z, grid):
            expected[k] = [*expected[k], centre][-4:]
        vectors, classes = rows(method.memory)
        assert vectors.argmax(1).equal(classes)
        for k, centres in expected.items():
            own = vectors[classes == k]
            found = [(own - centre).norm(dim=1).min().item() for centre in centres]
            assert len(own) == len(centres)
            assert found == pytest.approx([0.0] * len(centres), abs=1e-12)
    assert method.diagnostics["queue_fill"].tolist() == [1.0] * CLASSES


def test_diagnostics_describe_what_the_centres_are_contrasted_with():
    z = torch.tensor([[1.0, 0.0], [3.0, 4.0]]).T.reshape(1, 2, 1, 2)
    method = RegionContrast([4], 3, dim=2, memory_size=4)
    labels, logits = torch.tensor([[[0, 1]]]), torch.zeros(1, 3, 1, 2)
    for iteration in range(3):
        method.loss([z], logits, labels, iteration)
    assert {name: value.tolist() for name, value in method.diagnostics.items()} == {
        "anchors": 2,
        "positives": 2,
        "negatives": 2,
        "positive_similarity": pytest.approx(1.0),
        "negative_similarity": pytest.approx(0.6),
        "chance/region_contrast": pytest.approx(0.1 * math.log(3)),
        "memory_age": 1.5,  # one mini-batch old and two
        "memory_purity": 0.5,  # class 1 is predicted as class 0
        "queue_fill": [0.75, 0.75, 0],
    }
