import math

import numpy as np
import pytest

from harness.statistics.separation import principal_components, silhouette, unit_rows


def plain_silhouette(vectors, labels):
    """Rousseeuw's definition, one pair at a time."""

    def distance(i, j):
        one, other = vectors[i], vectors[j]
        return 1 - sum(one * other) / math.sqrt(sum(one * one) * sum(other * other))

    values = []
    for i in range(len(vectors)):
        to = {}
        for j in range(len(vectors)):
            if j != i:
                to.setdefault(labels[j], []).append(distance(i, j))
        if labels[i] not in to:
            values.append(0.0)
            continue
        within = sum(to[labels[i]]) / len(to[labels[i]])
        between = min(sum(d) / len(d) for label, d in to.items() if label != labels[i])
        values.append((between - within) / max(between, within))
    return sum(values) / len(values)


@pytest.mark.parametrize("seed", range(5))
def test_the_silhouette_equals_its_definition_one_pair_at_a_time(seed):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, 40)
    labels[0] = 9  # the only one of its class
    vectors = random.normal(size=(40, 6)) + 2 * random.normal(size=(10, 6))[labels]
    assert silhouette(vectors, labels) == pytest.approx(plain_silhouette(vectors, labels), abs=1e-12)


def test_the_silhouette_of_known_places():
    right_angles = np.eye(3).repeat(2, 0) * 5.0
    assert silhouette(right_angles, np.array([0, 0, 1, 1, 2, 2])) == pytest.approx(1.0)
    # Each vector coincides with one of the other class: a = 1, b = (0 + 1) / 2.
    assert silhouette(np.array([[1, 0], [0, 1], [1, 0], [0, 1]]), np.array([0, 0, 1, 1])) == pytest.approx(-0.5)
    assert silhouette(np.ones((4, 2)), np.array([0, 0, 1, 1])) == pytest.approx(0.0)
    assert math.isnan(silhouette(np.eye(2), np.array([3, 3])))
    assert math.isnan(silhouette(np.zeros((0, 5)), np.zeros(0, int)))


def test_the_length_of_vectors_does_not_count():
    random = np.random.default_rng(0)
    vectors, labels = random.normal(size=(20, 3)), random.integers(0, 3, 20)
    longer = vectors * random.uniform(0.1, 9, (20, 1))
    assert silhouette(longer, labels) == pytest.approx(silhouette(vectors, labels), abs=1e-12)
    np.testing.assert_allclose(np.linalg.norm(unit_rows(longer), axis=1), 1)
    np.testing.assert_array_equal(unit_rows(np.zeros((1, 3))), np.zeros((1, 3)))


def test_principal_components_are_those_of_the_covariance():
    random = np.random.default_rng(1)
    vectors = (random.normal(size=(30, 5)) * (5, 3, 2, 1, 0.5)) @ random.normal(size=(5, 5)) + 7
    points, shares = principal_components(vectors, 3)
    values, axes = np.linalg.eigh(np.cov(vectors.T))
    np.testing.assert_allclose(shares, values[::-1][:3] / values.sum(), rtol=1e-10)
    for place in range(3):
        axis = axes[:, -1 - place]
        axis = axis * np.sign(axis[np.abs(axis).argmax()])
        np.testing.assert_allclose(points[:, place], (vectors - vectors.mean(0)) @ axis, rtol=1e-8, atol=1e-10)


def test_all_components_keep_all_distances_and_few_vectors_have_few():
    random = np.random.default_rng(2)
    vectors = random.normal(size=(6, 40))
    points, shares = principal_components(vectors, 99)
    assert points.shape == (6, 6)
    assert shares.sum() == pytest.approx(1)
    apart = [np.linalg.norm(each[:, None] - each, axis=-1) for each in (vectors, points)]
    np.testing.assert_allclose(*apart, atol=1e-10)
    assert principal_components(np.ones((4, 3)), 2)[1].tolist() == [0, 0]
    assert [each.shape for each in principal_components(np.zeros((0, 3)), 2)] == [(0, 2), (2,)]
