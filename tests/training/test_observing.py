import numpy as np
import pytest
import torch

from harness.experiment.schema import Experiment
from harness.training.trainer import Trainer

ITERATIONS, LOG_EVERY = 5, 2


@pytest.fixture
def trainer(experiment_file):
    schedule = {"iterations": ITERATIONS, "log_every": LOG_EVERY, "crop": [64, 64], "batch": 2, "learning_rate": 0.01}
    experiment = Experiment.load(experiment_file(schedule=schedule))
    settings = experiment.settings(experiment.run("scenes", "hrnet_tiny", "contextrast", 0))
    return Trainer(settings, 3, torch.device("cpu"), weights="none")


@pytest.mark.parametrize("micro_batch", [2, 1])
def test_diagnostics_are_wanted_and_kept_of_the_iterations_that_close_a_row(trainer, micro_batch):
    trainer.micro_batch = micro_batch
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (2, 3, 64, 64), np.uint8))
    labels = torch.from_numpy(rng.integers(0, 3, (2, 64, 64)))
    told = []
    forward = type(trainer.method).forward

    def listening(method, *arguments):
        told.append(method.observing)
        terms = forward(method, *arguments)
        method.diagnostics["noted"] = torch.tensor(1.0)  # by a method that does not look at `observing`
        return terms

    trainer.method.forward = listening.__get__(trainer.method)
    kept = ["noted" in trainer.step(images, labels, iteration, 0.01) for iteration in range(ITERATIONS)]
    assert kept == [False, True, False, True, True]  # 5 ends the schedule
    assert told == [observed for observed in kept for _ in range(2 // micro_batch)]
