import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from methods.equal_sampling import sample_pairs_equally


@given(
    seed=st.integers(0, 10**6),
    classes=st.integers(1, 9),
    budget=st.integers(1, 60),
    max_views=st.integers(1, 12),
    min_pixels=st.integers(1, 6),
    per_image=st.booleans(),
)
def test_every_pair_gives_as_many_pixels_as_the_rarest_can(seed, classes, budget, max_views, min_pixels, per_image):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, (3, 5, 8)) * generator.integers(0, 2, (3, 5, 8))  # class 0 is frequent
    labels[generator.random(labels.shape) < 0.1] = 255
    labels[2] = 255
    torch.manual_seed(seed)
    options = {"budget": budget, "max_views": max_views, "min_pixels": min_pixels, "per_image": per_image}
    sampled = sample_pairs_equally(torch.from_numpy(labels), classes, 255, **options).numpy()

    assert not sampled[labels == 255].any()
    for images in ([0], [1], [2]) if per_image else ([0, 1, 2],):
        sizes = {(b, c): (labels[b] == c).sum() for b in images for c in range(classes)}
        counted = {pair: size for pair, size in sizes.items() if size >= min_pixels}
        taken = {(b, c): sampled[b][labels[b] == c].sum() for b, c in sizes}
        assert not any(taken[pair] for pair in sizes if pair not in counted)
        if not counted:
            continue
        if len(counted) <= budget:
            views = min(*counted.values(), max_views, budget // len(counted))
            assert all(taken[pair] == views for pair in counted)
        else:
            assert sorted(taken[pair] for pair in counted) == [0] * (len(counted) - budget) + [1] * budget


def test_the_smallest_class_decides_for_its_image_or_for_the_batch():
    labels = torch.zeros(2, 10, 10, dtype=torch.long)
    labels[:, 5:] = 1
    labels[0, 0, :6] = 2
    options = {"budget": 90, "max_views": 40, "min_pixels": 5}
    sampled = sample_pairs_equally(labels, 3, 255, **options)
    assert sampled.sum((1, 2)).tolist() == [3 * 6, 2 * 40]  # the second: 90 // 2 = 45, capped by max_views
    sampled = sample_pairs_equally(labels, 3, 255, **options, per_image=False)
    assert sampled.sum((1, 2)).tolist() == [3 * 6, 2 * 6]


@pytest.mark.parametrize("per_image", [True, False])
def test_pixels_of_a_pair_and_pairs_beyond_the_budget_are_drawn_equally_often(per_image):
    labels = torch.arange(10).repeat_interleave(2).view(1, 4, 5)
    torch.manual_seed(0)
    options = {"budget": 5, "max_views": 3, "min_pixels": 1, "per_image": per_image}
    times = sum(sample_pairs_equally(labels, 10, 255, **options).long() for _ in range(400))
    assert times.sum() == 2000
    assert 60 <= times.min() <= times.max() <= 140  # 100 expected, standard deviation 8.7


def test_nothing_but_ignored_or_too_few_pixels_gives_nothing():
    labels = torch.full((2, 3, 4), 255)
    labels[0, 0] = 1
    for per_image in (True, False):
        options = {"budget": 8, "max_views": 4, "min_pixels": 5, "per_image": per_image}
        assert not sample_pairs_equally(labels, 5, 255, **options).any()
