import pytest
import torch
import torch.nn.functional as F

from methods.contrast_diagnostics import drawn_chance, drawn_diagnostics, label_chance, label_diagnostics
from methods.info_nce import Contrast, masked_info_nce, supervised_info_nce


def example(anchors=7, keys=11):
    generator = torch.Generator().manual_seed(0)
    a, k = (F.normalize(torch.randn(n, 4, generator=generator, dtype=torch.float64)) for n in (anchors, keys))
    labels = (torch.randint(0, 3, (n,), generator=generator) for n in (anchors, keys))
    return a, next(labels), k, next(labels)


def pairwise(anchors, anchor_labels, keys, key_labels, exclude_self):
    pairs = [
        (anchor_labels[i] == key_labels[j], (anchors[i] @ keys[j]).item())
        for i in range(len(anchors))
        for j in range(len(keys))
        if not (exclude_self and i == j)
    ]
    kinds = {True: [s for same, s in pairs if same], False: [s for same, s in pairs if not same]}
    return {
        "anchors": len(anchors),
        "positives": pytest.approx(len(kinds[True]) / len(anchors)),
        "negatives": pytest.approx(len(kinds[False]) / len(anchors)),
        "positive_similarity": pytest.approx(sum(kinds[True]) / len(kinds[True])),
        "negative_similarity": pytest.approx(sum(kinds[False]) / len(kinds[False])),
    }


@pytest.mark.parametrize("exclude_self", [True, False])
def test_diagnostics_are_means_over_all_pairs(exclude_self):
    anchors, labels, keys, key_labels = example()
    if exclude_self:
        keys, key_labels = anchors, labels
    expected = pairwise(anchors, labels, keys, key_labels, exclude_self)
    found = label_diagnostics(anchors, labels, keys, key_labels, 5, exclude_self)
    assert {name: value.item() for name, value in found.items()} == expected

    scores, same = anchors @ keys.T / 0.1, labels[:, None] == key_labels
    positive = same & ~torch.eye(len(anchors), len(keys), dtype=torch.bool) if exclude_self else same
    found = drawn_diagnostics(Contrast(scores, positive, scores, ~same), 0.1)
    assert {name: value.item() for name, value in found.items()} == expected


@pytest.mark.parametrize(("anchors", "keys"), [(0, 0), (0, 3), (3, 0)])
def test_nothing_to_contrast_gives_zeros(anchors, keys):
    found = label_diagnostics(*example(anchors, keys), 5)
    assert [value.item() for value in found.values()] == [anchors, 0, 0, 0, 0]


def test_masked_loss_with_all_keys_is_the_loss_by_label():
    anchors, labels, keys, key_labels = example()
    labels[0] = 4  # without positives
    scores, same = anchors @ keys.T / 0.1, labels[:, None] == key_labels
    contrast = Contrast(scores.flip(1), same.flip(1), scores, ~same)
    expected = supervised_info_nce(anchors, labels, keys, key_labels, 5, 0.1)
    assert masked_info_nce(contrast).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("exclude_self", [True, False])
@pytest.mark.parametrize("missing", ["skip", "zero"])
def test_chance_is_the_loss_of_embeddings_that_are_all_alike(exclude_self, missing):
    _, labels, _, key_labels = example()
    labels[:3] = torch.tensor([3, 4, 5])  # alone, without positives in the keys; 5 takes no part
    key_labels = labels if exclude_self else key_labels
    a, k = torch.ones(len(labels), 1, dtype=torch.float64), torch.ones(len(key_labels), 1, dtype=torch.float64)
    expected = supervised_info_nce(
        a, labels, k, key_labels, temperature=0.1, exclude_self=exclude_self, missing_positives=missing, num_classes=5
    )
    found = label_chance(labels, key_labels, 5, exclude_self, skip=missing == "skip")
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)

    same, inside = labels[:, None] == key_labels, (labels < 5)[:, None] & (key_labels < 5)
    positive = same & inside & ~torch.eye(len(labels), len(key_labels), dtype=torch.bool) if exclude_self else same
    contrast = Contrast(torch.ones(same.shape), positive & inside, torch.ones(same.shape), ~same & inside)
    assert drawn_chance(contrast).item() == pytest.approx(masked_info_nce(contrast).item(), rel=1e-6)
