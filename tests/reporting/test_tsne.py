import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import entropy

from harness.reporting.figures.tsne import affinities, gradient, tsne
from harness.statistics.separation import principal_components


def divergence(joint, place):
    """sum p log(p / q), pair by pair."""
    number = len(place)
    weight = {
        (i, j): 1 / (1 + ((place[i] - place[j]) ** 2).sum()) for i in range(number) for j in range(number) if i != j
    }
    total = sum(weight.values())
    return sum(joint[i, j] * np.log(joint[i, j] * total / each) for (i, j), each in weight.items())


@pytest.mark.parametrize("perplexity", [2.0, 7.5])
def test_every_row_has_the_perplexity(perplexity):
    points = np.random.default_rng(0).normal(size=(25, 4)) * 3
    joint = affinities(points, perplexity)
    assert joint.sum() == pytest.approx(1)
    np.testing.assert_allclose(joint, joint.T)
    assert (np.diag(joint) == 0).all()
    rows = np.zeros((25, 25))
    for i in range(25):
        squared = np.delete(((points - points[i]) ** 2).sum(1), i)

        def row(width, squared=squared):
            weights = np.exp(-(squared - squared.min()) / (2 * width**2))
            return weights / weights.sum()

        width = brentq(lambda width, row=row: np.exp(entropy(row(width))) - perplexity, 0.05, 1e3)
        rows[i, np.arange(25) != i] = row(width)
    np.testing.assert_allclose(joint, (rows + rows.T) / 50, atol=1e-9)


def test_the_slope_is_that_of_the_divergence():
    random = np.random.default_rng(1)
    joint, place, direction = affinities(random.normal(size=(9, 3)), 3.0), *random.normal(size=(2, 9, 2))
    ahead, behind = (divergence(joint, place + step * direction) for step in (1e-5, -1e-5))
    assert (gradient(joint, place) * direction).sum() == pytest.approx((ahead - behind) / 2e-5, rel=1e-5)


def test_groups_that_are_apart_in_many_dimensions_are_apart_in_the_plane():
    random = np.random.default_rng(2)
    labels = np.arange(120) % 6
    vectors = 8 * np.eye(10)[labels] + random.normal(size=(120, 10))
    points, _ = principal_components(vectors, 10)
    with_own_nearest = []
    for places in (points[:, :2], tsne(points)):
        apart = np.linalg.norm(places[:, None] - places, axis=-1)
        np.fill_diagonal(apart, np.inf)
        with_own_nearest.append((labels[apart.argmin(1)] == labels).mean())
    assert with_own_nearest[1] == 1
    assert with_own_nearest[0] < 0.95  # the plane of the two principal axes cannot hold six groups
    np.testing.assert_array_equal(tsne(points), tsne(points))


@pytest.mark.parametrize("number", [0, 1, 4, 5, 12])
def test_few_points_are_placed_too(number):
    points = np.random.default_rng(3).normal(size=(number, 3))
    assert tsne(points).shape == (number, 2)
    assert np.isfinite(tsne(points)).all()
    assert np.isfinite(tsne(np.ones((number, 3)))).all()
