"""The optimisers as they step on a GPU, in one call a group, beside the plain ones: torch has both on a CPU too."""

import copy

import pytest
import torch
from torch import nn

from harness.experiment.schema import Schedule
from harness.training import trainer as training

GIVEN = {"iterations": 10, "batch": 2, "crop": [32, 32], "learning_rate": 0.1, "weight_decay": 0.01}


def made(monkeypatch, optimizer, fused):
    """Two parameters and their optimiser; with `fused` as for a GPU, but here."""
    schedule = Schedule.model_validate(GIVEN | {"optimizer": optimizer})
    torch.manual_seed(0)
    parameters = [nn.Parameter(torch.randn(7, dtype=torch.float64)) for _ in range(2)]
    device = torch.device("cuda" if fused else "cpu")
    tensor = torch.tensor
    with monkeypatch.context() as patch:
        patch.setattr(training.torch, "tensor", lambda value, device=None: tensor(value))
        return parameters, training._optimizer(schedule, {(1.0, 0.01): parameters}, device)


def step(parameters, optimizer, iteration):
    """The second parameter has a gradient from iteration 3 on, as those of a method that starts then."""
    for number, parameter in enumerate(parameters):
        started = number == 0 or iteration >= 3
        parameter.grad = torch.sin(parameter.detach() * (iteration + number)) if started else None
    for group in optimizer.param_groups:
        training._set_rate(group, 0.1 / (1 + iteration))
    optimizer.step()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_fused_optimiser_steps_as_the_plain_one_and_goes_on_from_either_ones_checkpoint(monkeypatch, optimizer):
    ends = {}
    for fused, continued in ((False, False), (True, True), (True, False), (False, True)):
        parameters, first = made(monkeypatch, optimizer, fused)
        for iteration in range(3):
            step(parameters, first, iteration)
        saved = copy.deepcopy(training._as_numbers(first.state_dict()))
        assert all(isinstance(group["lr"], float) for group in saved["param_groups"])
        values = [parameter.detach().clone() for parameter in parameters]
        parameters, second = made(monkeypatch, optimizer, continued)
        second.load_state_dict(training._as_of(saved, second))
        training._begin_momentum(second)
        for parameter, value in zip(parameters, values, strict=True):
            parameter.data.copy_(value)
        for iteration in range(3, 8):
            step(parameters, second, iteration)
        ends[fused, continued] = torch.cat([parameter.detach() for parameter in parameters])
    for end in ends.values():
        assert torch.allclose(end, ends[False, False], rtol=1e-6)  # a rate that lies in a tensor is a float32
