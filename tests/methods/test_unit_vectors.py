import torch
import torch.nn.functional as F

from methods.unit_vectors import unit


def test_vectors_and_gradients_equal_those_of_torch():
    z = torch.randn(20, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    z[3] = 0
    weights = torch.randn(20, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    results = []
    for function in (unit, F.normalize):
        own = z.clone().requires_grad_()
        (function(own) * weights)[[i for i in range(20) if i != 3]].sum().backward()
        results.append((function(own).detach(), own.grad))
    torch.testing.assert_close(results[0], results[1])
    assert not results[0][0][3].any()
    assert results[0][1].isfinite().all()
