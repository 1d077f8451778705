"""What health measures, against closed forms and brute force."""

import numpy as np
import pytest
import torch
from torch import nn

from harness.training.health import SAMPLE, EncoderGradients, embedding_health


def labels_of(batch=2, size=16, classes=4, seed=0):
    return torch.randint(0, classes, (batch, size, size), generator=torch.Generator().manual_seed(seed))


def test_constant_embeddings_have_rank_one_and_no_class_apart():
    found = embedding_health([torch.ones(2, 8, 16, 16)], labels_of())
    assert found["effective_rank"].item() == pytest.approx(1, abs=1e-5)
    assert found["similarity_within"].item() == pytest.approx(1, abs=1e-5)
    assert found["similarity_between"].item() == pytest.approx(1, abs=1e-5)


def test_one_direction_a_class_gives_the_number_of_equally_frequent_classes():
    labels = torch.arange(4).repeat(64).view(1, 16, 16)  # 64 pixels each
    embeddings = 3 * nn.functional.one_hot(labels, 8).movedim(-1, 1).float()
    found = embedding_health([embeddings], labels)
    assert found["effective_rank"].item() == pytest.approx(4, abs=1e-4)
    assert found["similarity_within"].item() == pytest.approx(1, abs=1e-5)
    assert found["similarity_between"].item() == pytest.approx(0, abs=1e-5)


def test_figures_are_those_of_brute_force_without_ignored_pixels():
    generator = torch.Generator().manual_seed(3)
    embeddings, labels = torch.randn(1, 5, 12, 12, generator=generator), labels_of(1, 12)
    labels[:, :3] = 255
    found = embedding_health([embeddings], labels)
    vectors = embeddings[0].flatten(1).T[labels[0].flatten() != 255].double().numpy()
    classes = labels[labels != 255].numpy()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    eigenvalues = np.linalg.svd(vectors, compute_uv=False) ** 2
    shares = eigenvalues / eigenvalues.sum()
    assert found["effective_rank"].item() == pytest.approx(1 / (shares**2).sum(), rel=1e-5)
    same, other = [], []
    for i in range(len(vectors)):
        for j in range(i):
            (same if classes[i] == classes[j] else other).append(vectors[i] @ vectors[j])
    assert found["similarity_within"].item() == pytest.approx(np.mean(same), abs=1e-5)
    assert found["similarity_between"].item() == pytest.approx(np.mean(other), abs=1e-5)


def test_large_maps_are_sampled_and_each_map_has_its_own_figure():
    maps = [torch.randn(2, 8, 64, 64), torch.ones(2, 8, 8, 8)]
    found = embedding_health(maps, labels_of(2, 64))
    assert SAMPLE < 2 * 64 * 64 and found["by_layer/effective_rank"].shape == (2,)
    assert found["by_layer/effective_rank"][1].item() == pytest.approx(1, abs=1e-5)
    assert found["effective_rank"] == found["by_layer/effective_rank"][0] > 4


def test_no_valid_pixel_is_undefined():
    found = embedding_health([torch.ones(1, 4, 4, 4)], torch.full((1, 4, 4), 255))
    assert all(value.isnan().all() for value in found.values())


def gradient_health(maps, cross_entropy, terms):
    gradients = EncoderGradients(maps, terms)
    sum([*cross_entropy, *terms.values()]).backward()
    return gradients.health()


def test_gradients_at_the_maps_against_derivatives_by_hand():
    fine, coarse = (torch.randn(1, 3, size, size, dtype=torch.float64, requires_grad=True) for size in (4, 2))
    maps = [2 * fine, 3 * coarse]
    direction = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    cross_entropy = [(maps[0] ** 2).sum() / 2, maps[1].sum()]  # gradient: the map itself; ones
    terms = {"term": (direction * maps[0]).sum(), "other": 5 * maps[1].sum()}  # gradient: direction; fives
    found = gradient_health(maps, cross_entropy, terms)
    mine, theirs = (torch.cat([a.flatten(), b.flatten()]) for a, b in (
        (direction, torch.full_like(coarse, 5)), (maps[0], torch.ones_like(coarse))))  # fmt: skip
    assert found["gradient_ratio"].item() == pytest.approx((mine.norm() / theirs.norm()).item(), rel=1e-5)
    cosine = (mine @ theirs / mine.norm() / theirs.norm()).item()
    assert found["gradient_cosine"].item() == pytest.approx(cosine, abs=1e-5)
    assert found["by_layer/gradient_ratio"][1].item() == pytest.approx(5, rel=1e-5)
    assert found["by_layer/gradient_cosine"][1].item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(fine.grad, 2 * (2 * fine.detach() + direction))  # the measurement adds nothing to it
    torch.testing.assert_close(coarse.grad, torch.full_like(coarse, 18))


def test_a_map_that_only_one_loss_uses_is_undefined():
    maps = [2 * torch.randn(1, 2, 2, 2, requires_grad=True) for _ in range(3)]
    found = gradient_health(maps, [maps[1].square().sum()], {"term": maps[0].square().sum()})
    assert found["by_layer/gradient_ratio"][:2].tolist() == [float("inf"), 0]
    assert found["by_layer/gradient_cosine"].isnan().all() and found["by_layer/gradient_ratio"][2].isnan()
