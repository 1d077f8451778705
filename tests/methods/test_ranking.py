import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from methods.ranking import rank_within_group


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 3)), max_size=30))
def test_ranks_follow_the_keys_inside_every_group(pairs):
    groups = np.array([g for g, _ in pairs], dtype=np.int64)
    keys = np.array([k for _, k in pairs], dtype=np.int64)
    ranks = rank_within_group(torch.from_numpy(groups), torch.from_numpy(keys)).numpy()
    for group in set(groups.tolist()):
        inside = groups == group
        assert sorted(ranks[inside]) == list(range(inside.sum()))
        assert keys[inside][np.argsort(ranks[inside])].tolist() == sorted(keys[inside].tolist())


def test_elements_with_equal_keys_take_every_order_equally_often():
    torch.manual_seed(0)
    groups, keys = torch.tensor([1, 0, 1, 1]), torch.tensor([5, 5, 5, 2])
    firsts = sum(rank_within_group(groups, keys)[0] == 1 for _ in range(1000))
    assert 430 <= firsts <= 570  # 500 expected, standard deviation 16


def test_without_keys_every_member_of_a_group_is_first_equally_often():
    torch.manual_seed(0)
    groups = torch.tensor([3, 3, 1, 3, 3])
    first = sum((rank_within_group(groups) == 0).long() for _ in range(1000))
    assert first[2] == 1000
    assert all(190 <= times <= 310 for times in first[groups == 3].tolist())  # 250 expected, standard deviation 14


def test_the_generator_decides():
    groups = torch.zeros(50, dtype=torch.long)
    torch.manual_seed(1)
    first = rank_within_group(groups)
    torch.manual_seed(1)
    assert rank_within_group(groups).equal(first)
    assert not rank_within_group(groups).equal(first)
