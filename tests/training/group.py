"""What the processes of one run do in tests, and what happens to them."""

import os
import signal
import sys
import time
from pathlib import Path


def train(rank, given, happening=None, at=None, on=None):
    """Train a run as its verb does, with what is printed in RESULTS.RANK.log.

    `happening`, a function below, takes the trainer's place before iteration `at` of process `on`.
    """
    from harness import datasets
    from harness.cli.common import finish
    from harness.compute.machine import Machine
    from harness.experiment.schema import Experiment
    from harness.training import distributed, trainer
    from harness.training.train import train

    os.environ |= given.get("environment", {})  # the server's processes have that of its start
    sys.stderr = Path(f"{given['results']}.{rank}.log").open("a", buffering=1)  # noqa: SIM115  as long as the process
    datasets.FOLDER = Path(given.get("datasets", datasets.FOLDER))
    distributed.PATIENCE = 2.0
    step = trainer.Trainer.step

    def stepping(self, images, labels, iteration, rate):
        if happening and iteration == at and on in (rank, None):
            happening(self)
        return step(self, images, labels, iteration, rate)

    trainer.Trainer.step = stepping
    experiment, results = Experiment.load(Path(given["experiment"]), given.get("set")), Path(given["results"])
    run = experiment.run(experiment.datasets[0], experiment.models[0], given["arm"], 0)
    machine = Machine("cpu", threads=1)
    record = train(experiment, run, results, machine, root=Path(given["root"]), timeout=given.get("timeout"))
    finish(record, run.folder(results), keep_going=given.get("keep_going", False))


def evaluate(rank, folder, datasets_folder, protocols):
    """Evaluate a run as its verb does."""
    from harness import datasets
    from harness.compute.machine import Machine
    from harness.evaluation.evaluate import evaluate

    datasets.FOLDER = Path(datasets_folder)
    evaluate(Path(folder), Machine("cpu", threads=1), protocols=protocols)


def out_of_memory(_):
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def a_defect(_):
    raise ZeroDivisionError("a defect of the method")


def a_mistake(_):
    from harness.errors import UserError

    raise UserError("a.png cannot be read: get it anew")


def not_finite(trainer):
    """The loss alone, on one process, which the averaged gradient does not show."""
    import torch

    losses = trainer.network.losses
    trainer.network.losses = lambda *given: losses(*given) | {"other": torch.tensor(float("inf"))}


def sigterm(_):
    os.kill(os.getpid(), signal.SIGTERM)


def sigkill(_):
    os.kill(os.getpid(), signal.SIGKILL)


def a_defect_where_the_main_process_hangs(trainer):
    """As on a GPU, where a process that waits for others does not hear that they are gone."""
    if os.environ["RANK"] == "0":
        time.sleep(60)
    a_defect(trainer)
