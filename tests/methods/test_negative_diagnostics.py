import math
from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from methods.contextrast import Contextrast
from methods.contextrast_pp import ContextrastPP
from methods.labels import nearest
from methods.negative_diagnostics import DISTANCES
from methods.pixel_embeddings import PixelVectors

CLASSES, DIM, SIZE = 5, 4, (44, 50)
NEGATIVES = get_args(Contextrast.Options.__annotations__["negatives"])
MEASURED = {"misclassified", "kept", "kept_similarity", "left_similarity"}


def case(seed):
    """Large blocks of labels and of predictions, so that some misclassified pixels lie deep inside their region."""
    generator = torch.Generator().manual_seed(seed)

    def blocks(rows, columns):
        coarse = torch.randint(0, CLASSES - 1, (2, rows, columns), generator=generator)  # the last class is nowhere
        grown = coarse.repeat_interleave(44 // rows + 1, 1).repeat_interleave(50 // columns + 1, 2)
        return grown[:, : SIZE[0], : SIZE[1]]

    labels, prediction = blocks(1, 2), blocks(2, 3)
    labels[torch.rand(labels.shape, generator=generator) < 0.001] = 255
    z = torch.randn(2, DIM, *SIZE, generator=generator, dtype=torch.float64)
    return z, labels, prediction


def plain(z, labels, prediction, hard, negatives):
    """The same one pixel at a time; `hard` bool [B, h, w] is what the method chose."""
    z, labels, prediction = (each.numpy() for each in (z, labels, prediction))
    wrong = (labels != 255) & (labels != prediction)
    marks = np.where(wrong, prediction if negatives == "false_positives" else labels, -1)
    u = z / np.linalg.norm(z, axis=1, keepdims=True)
    anchors = {}
    for n in range(CLASSES):
        if (labels == n).any():
            mean = np.mean([u[b, :, y, x] for b, y, x in np.argwhere(labels == n)], axis=0)
            anchors[n] = mean / np.linalg.norm(mean)
    found = {name: [[] for _ in range(6)] for name in ("kept", "left")}
    for b, y, x in np.argwhere(wrong):
        others = np.argwhere(marks[b] != marks[b, y, x])
        distance = np.sqrt(((others - (y, x)) ** 2).sum(1).min()) if len(others) else np.inf
        place = next((i for i, limit in enumerate((1, 2, 4, 8, 16)) if distance <= limit), 5)
        same = negatives in ("as_printed", "false_positives")
        opposed = [n for n in anchors if (n == marks[b, y, x]) == same]
        nearest = max((float(anchors[n] @ u[b, :, y, x]) for n in opposed), default=np.nan)
        found["kept" if hard[b, y, x] else "left"][place].append(nearest)
    return found


def test_shares_of_every_layer_equal_those_of_one_pixel_at_a_time():
    z, labels, prediction = case(5)
    maps = [z, z[..., ::4, ::4], z[..., ::9, ::9]]
    method = Contextrast([4] * 3, CLASSES, dim=DIM, keep=0.3)
    method.loss(maps, F.one_hot(prediction, CLASSES).movedim(-1, 1).double(), labels, 0)
    for layer, found in enumerate(maps):
        y, p = (nearest(each, found.shape[2:]).numpy() for each in (labels, prediction))
        marks = np.where((y != 255) & (y != p), y, -1)
        kept = edge = 0
        for b in range(len(y)):
            for n in range(CLASSES):
                region = np.argwhere(marks[b] == n)
                outside = np.argwhere(marks[b] != n)
                kept += math.ceil(round(0.3 * len(region), 6))
                edge += sum(((outside - pixel) ** 2).sum(1).min() == 1 for pixel in region)
        missed = (marks >= 0).sum()
        assert method.diagnostics["by_layer/kept"][layer].item() == pytest.approx(kept / missed)
        assert method.diagnostics["by_layer/next_to_edge"][layer].item() == pytest.approx(edge / missed)


@pytest.mark.slow
@pytest.mark.parametrize("negatives", NEGATIVES)
@pytest.mark.parametrize("kind", [Contextrast, ContextrastPP])
def test_bins_of_the_distance_equal_those_of_one_pixel_at_a_time(negatives, kind):
    deepest = 0
    for seed in range(3):
        z, labels, prediction = case(seed)
        method = kind([4], CLASSES, dim=DIM, negatives=negatives, keep=0.6).double()
        torch.manual_seed(seed)
        hard = method.layers([PixelVectors.of_map(z)], prediction, labels)[0].hard.view(labels.shape)
        torch.manual_seed(seed)
        method.loss([z.requires_grad_()], F.one_hot(prediction, CLASSES).movedim(-1, 1).double(), labels, 0)
        expected = plain(z.detach(), labels, prediction, hard, negatives)
        found = {name.partition("/")[2]: value.numpy() for name, value in method.diagnostics.items() if "bins" in name}
        assert set(found) == MEASURED
        kept, left = ([len(each) for each in expected[name]] for name in ("kept", "left"))
        assert found["kept"].tolist() == kept
        assert found["misclassified"].tolist() == [a + b for a, b in zip(kept, left, strict=True)]
        for name in ("kept", "left"):
            means = [np.nan if np.isnan(each).all() else np.nanmean(each) for each in map(np.array, expected[name])]
            np.testing.assert_allclose(found[f"{name}_similarity"], means, rtol=1e-12)
        deepest += found["misclassified"][-1]
    assert deepest > 0
    assert DISTANCES == (1, 2, 4, 8, 16)


def test_without_another_class_there_is_no_anchor_to_compare_with():
    z, labels, _ = case(0)
    method = Contextrast([4], CLASSES, dim=DIM)
    prediction = torch.ones_like(labels)
    method.loss([z], F.one_hot(prediction, CLASSES).movedim(-1, 1).double(), torch.zeros_like(labels), 0)
    assert method.diagnostics["distance_bins/misclassified"].tolist() == [0, 0, 0, 0, 0, labels.numel()]
    assert method.diagnostics["distance_bins/kept"].sum() == labels.numel() / 2
    assert method.diagnostics["distance_bins/kept_similarity"].isnan().all()


def test_the_mean_leaves_out_iterations_without_any_pixel(tmp_path):
    from harness.training.history import History

    history = History()
    for value in (float("nan"), 0.5):
        history.add({"distance_bins/kept_similarity": torch.tensor([0.25, value, float("nan")])})
    history.close_row(2, 0.1, 1.0)
    history.write(tmp_path)
    with np.load(tmp_path / "diagnostics.npz") as file:
        np.testing.assert_array_equal(file["distance_bins/kept_similarity"], [[0.25, 0.5, np.nan]])
