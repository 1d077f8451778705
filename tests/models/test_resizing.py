import pytest
import torch
import torch.nn.functional as F

from harness.models.resizing import upsample, whole_factors


@pytest.mark.parametrize("factors", [(1, 1), (2, 2), (3, 1), (4, 8)])
@pytest.mark.parametrize("side", [1, 5])
def test_values_and_gradients_are_those_of_interpolate(factors, side):
    torch.manual_seed(0)
    map_ = torch.randn(2, 3, side, 7, dtype=torch.float64, requires_grad=True)
    size = side * factors[0], 7 * factors[1]
    weights = torch.randn(2, 3, *size, dtype=torch.float64)
    found, expected = (
        (each, torch.autograd.grad((each * weights).sum(), map_)[0])
        for each in (upsample(map_, factors), F.interpolate(map_, size, mode="bilinear", align_corners=False))
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_only_whole_factors_count():
    map_ = torch.zeros(1, 1, 12, 15)
    assert whole_factors(map_, (24, 60)) == (2, 4)
    assert whole_factors(map_, (23, 30)) is None
    assert whole_factors(map_, (6, 15)) is None
