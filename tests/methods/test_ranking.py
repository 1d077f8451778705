import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from methods.ranking import Groups, places_in_group, rank_within_group


@given(st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 3)), max_size=30))
def test_ranks_follow_the_keys_inside_every_group(pairs):
    groups = np.array([g for g, _ in pairs], dtype=np.int64)
    keys = np.array([k for _, k in pairs], dtype=np.int64)
    ranks = rank_within_group(torch.from_numpy(groups), torch.from_numpy(keys)).numpy()
    found = places_in_group(torch.from_numpy(groups), torch.from_numpy(keys), num_groups=5, num_keys=4)
    places, sizes = (each.numpy() for each in found)
    for group in set(groups.tolist()):
        inside = groups == group
        assert (sizes[inside] == inside.sum()).all()
        assert keys[inside][np.argsort(places[inside])].tolist() == sorted(keys[inside].tolist())
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


@given(st.lists(st.integers(0, 7), max_size=30), st.integers(1, 12), st.booleans())  # 6 and 7 are no groups
def test_draws_from_a_group_are_cut_or_repeat_all_its_elements(groups, number, shuffle):
    made = Groups.of(torch.tensor(groups, dtype=torch.long), 6, shuffle)
    positions, sizes = made.draw(number), made.sizes
    assert positions.shape == (6, number)
    some = torch.tensor([5, 0, 5])
    assert made.chosen(some).draw(number).equal(positions[some])
    for group in range(6):
        members = [i for i, g in enumerate(groups) if g == group]
        assert sizes[group] == len(members)
        drawn = positions[group].tolist()
        if not shuffle and members:
            assert drawn == (members * number)[:number]
        if members:
            assert set(drawn[: len(members)]) <= set(members)
            assert len(set(drawn)) == min(number, len(members))
            assert drawn[len(members) :] == drawn[: -len(members)]


def test_every_element_of_a_group_is_drawn_equally_often():
    torch.manual_seed(0)
    groups = torch.tensor([1, 0, 1, 1, 1, 2])
    drawn = torch.stack([Groups.of(groups, 3).draw(2) for _ in range(400)])
    times = torch.bincount(drawn[:, 1].flatten(), minlength=6)
    assert times.tolist()[1] == times.tolist()[5] == 0
    assert all(150 <= times[i] <= 250 for i in (0, 2, 3, 4))  # 200 expected, standard deviation 10
