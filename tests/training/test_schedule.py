import pytest
import torch

from harness.experiment.schema import Schedule
from harness.training.schedule import learning_rate


def schedule(**keys) -> Schedule:
    fixed = {"iterations": 100, "batch": 1, "crop": (8, 8), "learning_rate": 0.2, "warmup": 0}
    return Schedule(**(fixed | keys))


def test_poly_equals_torchs_polynomial_schedule():
    parameter = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], lr=0.2)
    reference = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=100, power=0.9)
    for iteration in range(100):
        assert learning_rate(schedule(power=0.9), iteration) == pytest.approx(reference.get_last_lr()[0], rel=1e-9)
        optimizer.step()
        reference.step()


def test_linear_ends_one_step_above_the_minimum():
    linear = schedule(policy="linear", minimum_learning_rate=0.1)
    assert learning_rate(linear, 0) == 0.2
    assert learning_rate(linear, 50) == pytest.approx(0.15)
    assert learning_rate(linear, 99) == pytest.approx(0.101)


def test_constant_stays():
    assert {learning_rate(schedule(policy="constant"), iteration) for iteration in range(100)} == {0.2}


def test_warm_up_rises_linearly_from_the_ratio_to_the_schedule():
    constant = schedule(policy="constant", warmup=4, warmup_ratio=0.5)
    assert [learning_rate(constant, i) for i in range(6)] == pytest.approx([0.125, 0.15, 0.175, 0.2, 0.2, 0.2])
