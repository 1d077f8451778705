import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from methods.pair_sampling import sample_pairs


def expected_take(hard, easy, views):
    """Half hard, half easy, the odd one easy; a short kind is topped up from the other."""
    if hard + easy <= views:
        return hard, easy
    if hard < views // 2:
        return hard, views - hard
    if easy < views - views // 2:
        return views - easy, easy
    return views // 2, views - views // 2


@given(
    seed=st.integers(0, 10**6),
    classes=st.integers(1, 9),
    accuracy=st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]),
    budget=st.integers(1, 60),
    max_views=st.integers(1, 12),
    min_pixels=st.integers(0, 6),
)
def test_every_pair_gives_its_share_of_hard_and_easy_pixels(seed, classes, accuracy, budget, max_views, min_pixels):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, (2, 5, 8)) * generator.integers(0, 2, (2, 5, 8))  # class 0 is frequent
    prediction = np.where(generator.random(labels.shape) < accuracy, labels, (labels + 1) % (classes + 1))
    labels[generator.random(labels.shape) < 0.1] = 255
    torch.manual_seed(seed)
    options = {"pixels_per_image": budget, "max_views": max_views, "min_pixels": min_pixels}
    sampled = sample_pairs(torch.from_numpy(labels), torch.from_numpy(prediction), classes, 255, **options).numpy()

    assert not sampled[labels == 255].any()
    for b in range(2):
        pairs = [c for c in range(classes) if (labels[b] == c).sum() > min_pixels]
        views = max(1, min(max_views, budget // max(len(pairs), 1)))
        counts = {}
        for c in range(classes):
            own, right = labels[b] == c, prediction[b] == c
            counts[c] = ((sampled[b] & own & ~right).sum(), (sampled[b] & own & right).sum())
            if c not in pairs:
                assert counts[c] == (0, 0)
            elif len(pairs) <= budget:
                assert counts[c] == expected_take((own & ~right).sum(), (own & right).sum(), views)
        assert sum(map(sum, counts.values())) <= budget
        if len(pairs) > budget:
            assert sum(map(sum, counts.values())) == budget  # one pixel of each pair that was drawn


def test_with_more_pairs_than_budget_every_pair_is_drawn_equally_often():
    labels = torch.arange(20).view(1, 4, 5)
    torch.manual_seed(0)
    draws = [sample_pairs(labels, labels, 20, 255, pixels_per_image=5, max_views=3) for _ in range(400)]
    times = sum(draw.long() for draw in draws)
    assert times.sum() == 2000
    assert 60 <= times.min() <= times.max() <= 140  # 100 expected, standard deviation 8.7


def test_pixels_of_a_pair_are_drawn_equally_often():
    labels = torch.zeros(1, 2, 10, dtype=torch.long)
    prediction = torch.tensor([[[0] * 10, [1] * 10]])
    torch.manual_seed(0)
    draws = [sample_pairs(labels, prediction, 2, 255, pixels_per_image=5, max_views=5) for _ in range(400)]
    times = sum(draw.long() for draw in draws)[0]
    assert times[0].sum() == 400 * 3  # the odd one is easy
    assert times[1].sum() == 400 * 2
    assert 80 <= times[0].min() <= times[0].max() <= 160  # 120 expected, standard deviation 9.2
    assert 45 <= times[1].min() <= times[1].max() <= 115  # 80 expected, standard deviation 8


def test_nothing_but_ignored_pixels_gives_nothing():
    labels = torch.full((2, 3, 4), 255)
    assert not sample_pairs(labels, torch.zeros_like(labels), 5, 255, pixels_per_image=8, max_views=4).any()
