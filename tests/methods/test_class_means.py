import torch

from methods.class_means import class_means, class_sums


def test_sums_and_means_equal_those_of_each_class():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(40, 5, dtype=torch.float64, generator=generator)
    labels = torch.randint(0, 4, (40,), generator=generator)
    labels[::7] = 6  # no class: these do not count
    sums, counts = class_sums(vectors, labels, 6)
    means, same_counts = class_means(vectors, labels, 6)
    for n in range(4):
        torch.testing.assert_close(sums[n], vectors[labels == n].sum(0))
        torch.testing.assert_close(means[n], vectors[labels == n].mean(0))
        assert counts[n] == same_counts[n] == (labels == n).sum()
    assert not counts[4:].any()
    assert not means[4:].any()


def test_no_vectors_give_zero_means_with_a_graph():
    vectors = torch.zeros(0, 5, requires_grad=True)
    means, counts = class_means(vectors, torch.zeros(0, dtype=torch.long), 3)
    means.sum().backward()
    assert not means.any()
    assert not counts.any()
    assert vectors.grad is not None
