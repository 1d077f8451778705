"""`precision: bfloat16` beside float32: the same step but for the rounding of bfloat16."""

import pytest
import torch

from harness.cost.arms import LEARNING_RATE, generated_batch
from harness.experiment.schema import Experiment
from harness.runs.record import fingerprint
from harness.training.trainer import Trainer

UNIT = 2**-8  # half the distance of two bfloat16 beside 1
CLASSES, SIZE = 11, (64, 64)


def settings_of(experiment_file, precision, method):
    schedule = {"iterations": 10, "batch": 2, "crop": SIZE, "learning_rate": 0.01, "precision": precision}
    experiment = Experiment.load(experiment_file(schedule=schedule))
    return experiment.settings(experiment.run("scenes", "hrnet_tiny", method, 0))


# The method picks negatives by what is predicted and by similarity, and near ties fall otherwise.
@pytest.mark.parametrize(("method", "cosine"), [("cross_entropy", 0.99), ("contextrast", 0.9)])
def test_a_step_in_bfloat16_is_that_of_float32_but_for_its_rounding(experiment_file, method, cosine):
    found = {}
    for precision in ("float32", "bfloat16"):
        trainer = Trainer(settings_of(experiment_file, precision, method), CLASSES, torch.device("cpu"), "none")
        seen = []
        hook = torch.nn.modules.module.register_module_forward_hook(
            lambda module, _, output, seen=seen: seen.append(output.dtype) if type(module) is torch.nn.Conv2d else None
        )
        loss = trainer.step(*generated_batch(CLASSES, 2, SIZE), 0, LEARNING_RATE)["loss"]
        hook.remove()
        gradient = torch.cat([each.grad.flatten() for each in trainer.parameters if each.grad is not None])
        assert set(seen) == {getattr(torch, precision)}  # convolutions compute in it
        assert {each.dtype for each in trainer.parameters} == {torch.float32}  # weights, gradients and losses do not
        assert gradient.dtype == loss.dtype == torch.float32
        found[precision] = float(loss), gradient
    (loss, gradient), (expected, exact) = found["bfloat16"], found["float32"]
    assert loss != expected
    assert loss == pytest.approx(expected, rel=4 * UNIT)
    assert torch.cosine_similarity(gradient, exact, dim=0) > cosine
    assert float(gradient.norm()) == pytest.approx(float(exact.norm()), rel=0.1)


def test_it_is_part_of_what_a_run_is(experiment_file):
    settings = [settings_of(experiment_file, precision, "contextrast") for precision in ("float32", "bfloat16")]
    assert fingerprint(settings[0]) != fingerprint(settings[1])
