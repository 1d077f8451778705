"""Training, evaluation and report as processes that can be killed.

Every job does what its verb of the command line does.
"""

import os
import signal
import sys
from pathlib import Path

MACHINE = {"device": "cpu", "threads": 1}


def run_job(job, given, dies_at=None):
    """One job: "train", "evaluate" or "report", which writes its errors to RESULTS.log.

    With `dies_at` it kills itself at its so manieth file operation.
    """
    import torch

    from harness import datasets
    from harness.compute.machine import Machine
    from harness.experiment.schema import Experiment

    torch.set_num_threads(1)
    sys.stderr = Path(f"{given['results']}.log").open("a")  # noqa: SIM115  it lives as long as the process
    datasets.FOLDER = Path(given["datasets"])
    os.environ["TINY_ROOT"] = given["root"]
    experiment, results = Experiment.load(Path(given["experiment"])), Path(given["results"])
    run = experiment.run("tiny", "hrnet_tiny", given["arm"], given["seed"])
    if dies_at is not None:
        _die_at(dies_at, str(results))
    if job == "train":
        from harness.training.train import train

        train(experiment, run, results, Machine(**MACHINE), root=Path(given["root"]), timeout=given.get("timeout"))
    elif job == "evaluate":
        from harness.evaluation.evaluate import evaluate

        evaluate(run.folder(results), Machine(**MACHINE))
    else:
        from harness.reporting.tables import write_tables

        write_tables(experiment, results)


def _die_at(number, folder):
    """SIGKILL at the `number`th time that a file below `folder` is opened, made, renamed or removed."""
    left = number

    def count(event, arguments):
        nonlocal left
        if event in ("open", "os.rename", "os.remove", "os.mkdir") and str(arguments[0]).startswith(folder):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
