import pytest
import torch
import torch.nn.functional as F

from methods.contrast_diagnostics import drawn_diagnostics, label_diagnostics
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
    expected = supervised_info_nce(anchors, labels, keys, key_labels, 0.1)
    assert masked_info_nce(contrast).item() == pytest.approx(expected.item(), rel=1e-12)
