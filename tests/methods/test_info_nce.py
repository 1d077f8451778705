import math

import pytest
import torch
import torch.nn.functional as F
from observer import Observer

from methods.info_nce import masked_logsumexp, supervised_info_nce


def closed_form(anchors, anchor_labels, keys, key_labels, temperature, exclude_self, missing_positives):
    """The mean one anchor and one positive at a time, with Python's floats."""
    losses = []
    for i, label in enumerate(anchor_labels.tolist()):
        scores = [
            sum(x * y for x, y in zip(anchors[i].tolist(), key, strict=True)) / temperature for key in keys.tolist()
        ]
        same = [other == label for other in key_labels.tolist()]
        negatives = sum(math.exp(s) for s, p in zip(scores, same, strict=True) if not p)
        terms = [
            -math.log(math.exp(s) / (math.exp(s) + negatives))
            for j, (s, p) in enumerate(zip(scores, same, strict=True))
            if p and not (exclude_self and i == j)
        ]
        if terms:
            losses.append(sum(terms) / len(terms))
        elif missing_positives == "zero":
            losses.append(0.0)
    return sum(losses) / len(losses)


def unit(count, generator):
    return F.normalize(torch.randn(count, 6, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize("missing_positives", ["skip", "zero"])
@pytest.mark.parametrize("exclude_self", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.05])
def test_loss_equals_the_closed_form(temperature, exclude_self, missing_positives):
    generator = torch.Generator().manual_seed(0)
    anchors = unit(15, generator)
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 4, 4, 0, 1, 5])  # 3 and 5 have one pixel each
    if exclude_self:
        keys, key_labels = anchors, labels
    else:
        keys, key_labels = unit(20, generator), torch.randint(0, 4, (20,), generator=generator)  # no keys of 4 and 5
    options = (temperature, exclude_self, missing_positives)
    expected = closed_form(anchors, labels, keys, key_labels, *options)
    found = supervised_info_nce(anchors, labels, keys, key_labels, 6, *options)
    assert found.item() == pytest.approx(expected, rel=1e-10)
    single = supervised_info_nce(anchors.float(), labels, keys.float(), key_labels, 6, *options)
    assert single.item() == pytest.approx(expected, rel=1e-5)


def test_gradient_is_right():
    generator = torch.Generator().manual_seed(1)
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3])
    anchors = unit(7, generator).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda z: supervised_info_nce(z, labels, z, labels, 4, 0.2, exclude_self=True), anchors
    )


@pytest.mark.parametrize("missing_positives", ["skip", "zero"])
def test_gradient_equals_that_of_the_plain_formula(missing_positives):
    generator = torch.Generator().manual_seed(3)
    labels, key_labels = torch.tensor([0, 0, 1, 2, 3]), torch.tensor([0, 1, 1, 0, 2, 2, 2])
    anchors, keys = unit(5, generator).requires_grad_(), unit(7, generator).requires_grad_()
    exponentials = (anchors @ keys.T / 0.1).exp()
    losses = []
    for i, label in enumerate(labels):
        negatives = exponentials[i][key_labels != label].sum()
        terms = [(1 + negatives / s).log() for s in exponentials[i][key_labels == label]]
        losses += [sum(terms) / len(terms)] if terms else []
    expected = sum(losses) / (4 if missing_positives == "skip" else 5)
    loss = supervised_info_nce(anchors, labels, keys, key_labels, 4, 0.1, missing_positives=missing_positives)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    found = torch.autograd.grad(3 * loss, (anchors, keys))
    for gradient, own in zip(found, torch.autograd.grad(3 * expected, (anchors, keys)), strict=True):
        torch.testing.assert_close(gradient, own, rtol=1e-12, atol=1e-15)


def test_a_tiny_temperature_stays_finite_and_right():
    # Opposite unit vectors at temperature 0.001: s = -1000 for the positive, +1000 for the negative.
    anchors = torch.tensor([[1.0, 0.0]], requires_grad=True)
    keys = torch.tensor([[-1.0, 0.0], [1.0, 0.0]])
    loss = supervised_info_nce(anchors, torch.tensor([0]), keys, torch.tensor([0, 1]), 2, 0.001)
    loss.backward()
    assert loss.item() == pytest.approx(2000)
    assert anchors.grad.isfinite().all()


def test_without_negatives_the_loss_is_zero_with_a_zero_gradient():
    anchors = F.normalize(torch.randn(4, 3)).requires_grad_()
    labels = torch.zeros(4, dtype=torch.long)
    loss = supervised_info_nce(anchors, labels, anchors, labels, 1, 0.1, exclude_self=True)
    loss.backward()
    assert loss.item() == 0
    assert not anchors.grad.any()


@pytest.mark.parametrize(("anchors", "keys"), [(0, 0), (0, 3), (3, 0), (1, 1)])
@pytest.mark.parametrize("missing_positives", ["skip", "zero"])
def test_nothing_to_contrast_is_zero_with_a_graph(anchors, keys, missing_positives):
    a, k = torch.randn(anchors, 4, requires_grad=True), torch.randn(keys, 4)
    labels = torch.zeros(anchors, dtype=torch.long), torch.ones(keys, dtype=torch.long)
    loss = supervised_info_nce(a, labels[0], k, labels[1], 2, 0.1, missing_positives=missing_positives)
    loss.backward()
    assert loss.item() == 0
    assert not a.grad.any()


@pytest.mark.parametrize("missing_positives", ["skip", "zero"])
@pytest.mark.parametrize("exclude_self", [True, False])
def test_padding_changes_nothing_and_gets_no_gradient(exclude_self, missing_positives):
    generator = torch.Generator().manual_seed(4)
    labels, key_labels = torch.tensor([3, 0, 0, 3, 1, 2]), torch.tensor([0, 3, 1, 1, 3, 3, 0])
    z, keys = unit(6, generator).requires_grad_(), unit(7, generator).requires_grad_()
    arguments = (z, labels, z, labels) if exclude_self else (z, labels, keys, key_labels)
    inside = [each[label < 3] for each, label in zip(arguments, (labels, labels, *arguments[3:] * 2), strict=True)]
    results = []
    for given in (arguments, inside):
        loss = supervised_info_nce(*given, 3, 0.1, exclude_self, missing_positives)
        gradients = torch.autograd.grad(loss, [z] if exclude_self else [z, keys])
        results.append([loss.detach(), *gradients])
    for padded, plain in zip(*results, strict=True):
        torch.testing.assert_close(padded, plain, rtol=1e-12, atol=1e-15)


def test_a_wrong_rule_for_missing_positives_is_refused():
    z, labels = torch.randn(2, 3), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="missing_positives is 'drop'"):
        supervised_info_nce(z, labels, z, labels, 2, 0.1, missing_positives="drop")


def test_masked_logsumexp_leaves_out_what_the_mask_leaves_out():
    scores = torch.tensor([[1.0, 5.0], [2.0, 6.0], [800.0, 7.0]], dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, False], [True, False], [False, False]])
    found = masked_logsumexp(scores, mask, dim=0)
    assert found[0].item() == pytest.approx(math.log(math.exp(1) + math.exp(2)))
    assert found[1].item() == -math.inf
    torch.autograd.backward(found, torch.tensor([1.0, 0.0], dtype=torch.float64))
    share = 1 / (1 + math.e)
    torch.testing.assert_close(scores.grad[:, 0], torch.tensor([share, 1 - share, 0.0], dtype=torch.float64))
    assert not scores.grad[:, 1].any()


@pytest.mark.parametrize("missing_positives", ["skip", "zero"])
@pytest.mark.parametrize("exclude_self", [True, False])
@pytest.mark.parametrize("max_entries", [1, 40, 100, 10**6])
def test_blocks_of_anchors_give_the_same_loss_and_gradient(max_entries, exclude_self, missing_positives):
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(0, 4, (17,), generator=generator)
    labels[3] = 4  # alone
    results = []
    anchors = unit(17, generator)
    others, other_labels = unit(13, generator), torch.randint(0, 4, (13,), generator=generator)
    for entries in (None, max_entries):
        z, keys = anchors.clone().requires_grad_(), others.clone().requires_grad_()
        arguments = (z, labels) if exclude_self else (keys, other_labels)
        loss = supervised_info_nce(z, labels, *arguments, 5, 0.1, exclude_self, missing_positives, entries)
        loss.backward()
        results.append([loss.detach(), z.grad] + ([] if exclude_self else [keys.grad]))
    for whole, blocks in zip(*results, strict=True):
        torch.testing.assert_close(blocks, whole, rtol=1e-12, atol=1e-14)


def test_memory_is_bounded_by_the_blocks_and_nothing_of_them_is_held_for_the_backward_pass():
    anchors = torch.randn(400, 4, requires_grad=True)
    labels = torch.arange(400) % 5
    largest = []
    for max_entries in (None, 8000):
        held = []
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda t, h=held: h.append(t.numel()) or t, lambda t: t)
        with Observer() as tensors, hooks:
            supervised_info_nce(anchors, labels, anchors, labels, 5, 0.1, exclude_self=True, max_entries=max_entries)
        largest.append(tensors.elements)
        assert sum(held) == 2 * 400 * 4  # the gradients
    assert largest[0] >= 400 * 400
    assert largest[1] <= 8000
