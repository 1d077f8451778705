import pytest
import torch
import torch.nn.functional as F

from methods.labels import nearest


@pytest.mark.parametrize("size", [(6, 8), (3, 4), (5, 3), (1, 1), (9, 11)])
def test_labels_are_resampled_as_torch_resamples_pictures(size):
    labels = torch.randint(0, 256, (2, 6, 8), generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(labels[:, None].double(), size=size, mode="nearest")[:, 0]
    assert nearest(labels, size).tolist() == expected.tolist()


def test_labels_outside_a_byte_survive():
    labels = torch.tensor([[[-1, 300], [70000, 2]]])
    assert nearest(labels, (2, 2)).equal(labels)
    assert nearest(labels, (1, 1)).tolist() == [[[-1]]]
