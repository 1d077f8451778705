import pytest
import torch

from methods.blocks import sum_over_blocks


@pytest.mark.parametrize("size", [1, 3, 7, 10, 100])
def test_sum_and_gradient_are_those_of_all_rows_at_once(size):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(10, 4, dtype=torch.float64, generator=generator).requires_grad_()
    weights = torch.randn(10, dtype=torch.float64, generator=generator)
    shared = torch.randn(4, dtype=torch.float64, generator=generator).requires_grad_()
    lengths = []

    def function(rows, w):
        lengths.append(len(rows))
        return torch.stack([((rows @ shared).exp() * w).sum(), w.sum()])

    found = sum_over_blocks(function, (x, weights), size)
    assert sum(lengths) == 10
    assert max(lengths) == min(size, 10)
    whole = function(x, weights)
    torch.testing.assert_close(found, whole)
    gradients = torch.autograd.grad(found[0], (x, shared))
    for gradient, expected in zip(gradients, torch.autograd.grad(whole[0], (x, shared)), strict=True):
        torch.testing.assert_close(gradient, expected)


def test_no_rows_are_one_empty_block_with_a_graph():
    x = torch.zeros(0, 4, requires_grad=True)
    found = sum_over_blocks(lambda rows: rows.sum(), (x,), 3)
    assert found.item() == 0
    found.backward()
    assert x.grad is not None


def test_only_one_block_is_held_for_the_backward_pass():
    x = torch.randn(64, 2, requires_grad=True)
    held = []

    def pack(tensor):
        held.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        sum_over_blocks(lambda rows: (rows @ torch.ones(2, 1000)).exp().sum(), (x,), 4)
    assert sum(held) < 64 * 1000 / 4  # 64,000 similarities in all; the exponential keeps its result
