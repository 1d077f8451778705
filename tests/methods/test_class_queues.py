from collections import deque

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from memory_rows import rows
from processes import run_group

from methods.class_queues import Queues


def contents(queues):
    """The first element of every stored vector, by class, sorted."""
    vectors, classes = rows(queues)
    return [sorted(vectors[classes == k, 0].tolist()) for k in range(len(queues.filled))]


@given(
    length=st.integers(1, 6),
    pushes=st.lists(st.lists(st.integers(0, 4), max_size=15), max_size=6),  # 4 is no class: left out
)
def test_each_class_keeps_the_last_vectors_pushed_under_it(length, pushes):
    queues = Queues(4, length, 2)
    expected = [deque(maxlen=length) for _ in range(4)]
    number, pushed_by = 0, {}
    for push, classes in enumerate(pushes):
        numbers = torch.arange(number, number + len(classes), dtype=torch.float)
        kinds = torch.tensor(classes, dtype=torch.long)
        queues.push(torch.stack([numbers, -numbers], dim=1), kinds, purity=numbers / 100)
        pushed_by |= dict.fromkeys(numbers.tolist(), push)
        for k in classes:
            if k < 4:
                expected[k].append(float(number))
            number += 1
        assert contents(queues) == [sorted(queue) for queue in expected]
        assert queues.fill().tolist() == pytest.approx([len(queue) / length for queue in expected])
    vectors, _ = rows(queues)
    assert vectors[:, 1].equal(-vectors[:, 0])
    slots, stored = queues.slots()
    ages, purity = (values[:, : stored.shape[1]][stored] for values in (queues.ages(), queues.purity))
    assert purity.equal(slots[stored][:, 0] / 100)
    assert ages.tolist() == [len(pushes) - pushed_by[value] for value in slots[stored][:, 0].tolist()]


def test_purity_is_one_before_and_after_the_queues_wrap_around():
    queues = Queues(5, 7, 5)
    torch.manual_seed(0)
    for _ in range(12):
        classes = torch.randint(0, 4, (9,))  # class 4 never comes
        queues.push(torch.eye(5)[classes], classes)
        vectors, stored = rows(queues)
        assert vectors.argmax(1).equal(stored)
        assert (vectors.sum(1) == 1).all()  # no slot that was never written
    assert queues.filled.tolist() == [7, 7, 7, 7, 0]


def test_no_graph_is_kept_and_what_is_read_does_not_change_later():
    queues = Queues(2, 2, 3)
    z = torch.randn(2, 3, requires_grad=True)
    queues.push(2 * z, torch.tensor([0, 1]))
    assert not queues.vectors.requires_grad
    keys, _ = rows(queues)
    loss = (z @ keys.T).sum()
    queues.push(-z, torch.tensor([0, 1]))
    loss.backward()  # would fail if the stored vectors themselves had been in the graph
    torch.testing.assert_close(keys, 2 * z.detach())


def test_restored_queues_go_on_at_the_same_slot():
    queues, restored = Queues(2, 3, 1), Queues(2, 3, 1)
    queues.push(torch.tensor([[1.0], [2.0], [3.0], [4.0]]), torch.tensor([0, 0, 1, 0]))
    restored.load_state_dict(queues.state_dict())
    for each in (queues, restored):
        each.push(torch.tensor([[5.0], [6.0]]), torch.tensor([0, 1]))
        assert contents(each) == [[2, 4, 5], [3, 6]]


def _push_as_process(rank, folder):
    torch.distributed.init_process_group("gloo")
    queues = Queues(3, 4, 1)
    for step in range(3):  # process 0 has nothing to push in the first step
        numbers = torch.arange(step * (1 + rank) + rank, dtype=torch.float) + 10 * step + 100 * rank
        queues.push(numbers[:, None].requires_grad_(), numbers.long() % 3, gather=True)
    torch.save([tensor.tolist() for tensor in queues.state_dict().values()], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_gathered_queues_hold_the_vectors_of_all_processes(tmp_path):
    assert run_group(2, _push_as_process, str(tmp_path)) == [0, 0]
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    alone = Queues(3, 4, 1)
    for numbers in ([100.0], [10, 110, 111, 112], [20, 21, 120, 121, 122, 123, 124]):
        values = torch.tensor(numbers)
        alone.push(values[:, None], values.long() % 3)
    assert found[0] == found[1] == [tensor.tolist() for tensor in alone.state_dict().values()]
