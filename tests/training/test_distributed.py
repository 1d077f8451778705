"""One run on several processes is the run that one process makes, and it ends as one."""

import os
import signal
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import group
import pandas as pd
import pytest
import torch
from plain_network import write_plain
from processes import run_group

from harness import datasets
from harness.compute.machine import Machine
from harness.evaluation.evaluate import evaluate
from harness.experiment.schema import Experiment
from harness.runs.locking import holder
from harness.runs.record import Record
from harness.training import checkpoint, distributed
from harness.training.health import MEASURED
from harness.training.samples import slots_of
from harness.training.trainer import Trainer

pytestmark = pytest.mark.slow

SYNCHRONISED = {"method": "contextrast", "sync_anchors": True, "ties": "percentile"}
BATCH, STEPS = 4, 3


@pytest.fixture
def given(experiment_file, tiny_data, tmp_path):
    """What a process needs to know to train one of the arms."""
    schedule = {"iterations": 8, "batch": 4, "crop": [32, 32], "learning_rate": 0.1}
    schedule |= {"log_every": 2, "checkpoint_every": 4}
    arms = {"cross_entropy": {}, "synchronised": SYNCHRONISED, "contextrast": {}}
    path = experiment_file(datasets=["tiny"], arms=arms, schedule=schedule)
    common = {"experiment": str(path), "datasets": str(datasets.FOLDER), "root": str(tiny_data)}
    return common | {"arm": "synchronised", "results": str(tmp_path / "out")}


def folder_of(given):
    return (
        Experiment.load(Path(given["experiment"]))
        .run("tiny", "hrnet_tiny", given["arm"], 0)
        .folder(Path(given["results"]))
    )


def made_batch():
    """Images with very different numbers of valid pixels; the last one has none."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (BATCH, 3, 32, 48), generator=random, dtype=torch.uint8)
    labels = torch.randint(0, 3, (BATCH, 8, 12), generator=random).repeat_interleave(4, 1).repeat_interleave(4, 2)
    for image, rows in enumerate((0, 5, 20, 32)):
        labels[image, :rows] = 255
    return images, labels


def steps(settings, micro_batch=None):
    """Some steps in float64 with frozen statistics: what each returns, and the parameters at the end."""
    from harness.training import distributed

    trainer = Trainer(settings, 3, torch.device("cpu"))
    for module in (trainer.network, trainer.method):
        module.double().eval()
        module.train = lambda: None
    if trainer.class_weights is not None:
        trainer.class_weights = trainer.class_weights.double()
    trainer.micro_batch = micro_batch or trainer.micro_batch
    slots = slots_of(distributed.rank(), distributed.world_size(), BATCH)
    images, labels = (tensor[slots.start : slots.stop] for tensor in made_batch())
    values = []
    for iteration in range(STEPS):
        found = trainer.step(images, labels, iteration, 0.05)
        summed = distributed.all_sum([value.detach().double() for value in found.values()])
        values.append({name: value / distributed.world_size() for name, value in zip(found, summed, strict=True)})
    return values, [parameter.detach() for parameter in trainer.parameters]


def steps_of_process(rank, cases, folder):
    from harness.training import distributed

    with distributed.joined():
        distributed.start(torch.device("cpu"))
        torch.save([steps(*case) for case in cases], f"{folder}/steps{rank}.pt")


def test_losses_and_weights_of_two_processes_are_those_of_one(experiment_file, tiny_data, tmp_path):
    arms = {"cross_entropy": {}, "synchronised": SYNCHRONISED}
    path = experiment_file(datasets=["tiny"], arms=arms)
    cases = []
    for arm, weights, micro_batch in (
        ("cross_entropy", "[1, 2, 3]", None),
        ("cross_entropy", "null", 1),
        ("synchronised", "null", None),
    ):
        chosen = [f"schedule.batch={BATCH}", f"schedule.class_weights={weights}"]
        experiment = Experiment.load(path, chosen)
        cases.append((experiment.settings(experiment.run("tiny", "hrnet_tiny", arm, 0)), micro_batch))
    assert run_group(2, steps_of_process, cases, str(tmp_path)) == [0, 0]
    of_processes = [torch.load(tmp_path / f"steps{rank}.pt") for rank in range(2)]
    for number, (settings, _) in enumerate(cases):
        values, parameters = steps(settings)
        assert abs(values[0]["loss"] / values[-1]["loss"] - 1) > 1e-3  # the weights move
        for found_values, found_parameters in (of_process[number] for of_process in of_processes):
            for found, expected in zip(found_values, values, strict=True):
                assert found.keys() == expected.keys()
                for name, value in expected.items():
                    if name.removeprefix("by_layer/") in MEASURED:  # of each process's own images
                        continue
                    torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12, equal_nan=True, msg=name)
            for found, expected in zip(found_parameters, parameters, strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.fixture
def ended(given):
    """Train on two processes where something happens; returns their exit codes and what training.json holds."""

    def train_two(happening, on, at=3, **more):
        codes = run_group(2, group.train, given | more, happening, at, on)
        path = folder_of(given) / "training.json"
        return codes, Record.load(path) if path.exists() else None

    return train_two


def said_by(given, rank):
    return Path(f"{given['results']}.{rank}.log").read_text()


@pytest.mark.parametrize("on", [0, 1])
def test_a_process_without_memory_ends_all_with_one_record(given, ended, on):
    codes, record = ended(group.out_of_memory, on)
    assert codes == [1, 1]
    assert (record.status, record.processes, record.micro_batch) == ("out_of_memory", 2, 2)
    assert record.reason.startswith(f"rank {on} of 2 ran out of memory with 2 images at a time")
    assert "Tried to allocate 2 GiB" in record.reason
    assert "out_of_memory: process" not in said_by(given, 1)


def test_a_failing_process_ends_all_with_its_reason_and_its_log_and_the_same_command_goes_on(given, ended):
    codes, record = ended(group.a_defect, 1, at=6, keep_going=True)
    assert codes == [0, 0]
    assert (record.status, record.reason) == ("failed", "ZeroDivisionError: a defect of the method")
    assert record.log_tail[-1] == "ZeroDivisionError: a defect of the method"
    codes, record = ended(None, None)
    assert (codes, record.status, record.iterations) == ([0, 0], "done", 8)
    assert said_by(given, 1) == ""


def test_a_main_process_that_hears_of_nothing_writes_the_record_all_the_same(given, ended):
    codes, record = ended(group.a_defect_where_the_main_process_hangs, None)
    assert codes == [1, 1]
    assert (record.status, record.reason) == ("failed", "ZeroDivisionError: a defect of the method")


def test_a_loss_that_is_not_finite_on_one_process_ends_all_as_diverged(ended):
    codes, record = ended(group.not_finite, 1, at=2)
    assert codes == [1, 1]
    assert record.reason == "loss or gradient is not finite at iteration 2"
    assert record.status == "diverged"


def test_a_mistake_that_one_process_meets_is_said_once_and_is_no_record(given, ended):
    codes, record = ended(group.a_mistake, 1)
    assert sorted(codes) == [1, 2]  # an uncaught error where it is met, which the command line would say with status 2
    assert record is None


def test_the_time_of_one_process_ends_all(given, ended):
    codes, record = ended(None, None, timeout=1e-9)
    assert codes == [1, 1]
    assert (record.status, record.iterations) == ("timeout", 1)


def test_sigterm_at_one_process_is_a_checkpoint_of_all_and_the_run_ends_in_the_same_bits(given, ended, tmp_path):
    _, whole = ended(None, None, results=str(tmp_path / "whole"))
    whole = Record.load(folder_of(given | {"results": str(tmp_path / "whole")}) / "training.json")
    codes, record = ended(group.sigterm, 1, at=4)
    assert (codes, record) == ([143, 143], None)
    assert checkpoint.load_newest(folder_of(given) / "checkpoints")["iteration"] == 5
    codes, record = ended(None, None)
    assert (codes, record.weights_hash) == ([0, 0], whole.weights_hash)
    curves = [
        pd.read_csv(folder_of(given | {"results": str(tmp_path / name)}) / "curve.csv") for name in ("out", "whole")
    ]
    pd.testing.assert_frame_equal(*[curve.drop(columns="seconds") for curve in curves], rtol=1e-12)


def test_a_killed_process_ends_the_others(given, ended):
    codes, record = ended(group.sigkill, 1)
    assert codes == [1, -signal.SIGKILL]
    assert record.status == "failed"
    assert "another process of this run ended" in record.reason


def test_a_batch_that_the_processes_cannot_share_is_a_mistake_and_leaves_nothing(given):
    codes = run_group(2, group.train, given | {"set": ["schedule.batch=3"]})
    assert sorted(codes) == [1, 2]
    assert not folder_of(given).exists()


def test_a_rank_that_ends_after_rank_0_has_left_is_done_as_well(monkeypatch):
    class Gone:
        def clone(self):
            return self

        def check(self, keys):
            raise torch.distributed.DistNetworkError("Failed to recv, got 0 bytes")

    monkeypatch.setattr(distributed, "_meeting", distributed._Meeting(Gone(), count()))
    with distributed.ending_together(lambda end: None) as end:
        pass
    assert end.status == "done"


def test_several_processes_evaluate_as_one_does_whatever_the_number_of_images(given, tiny_data):
    assert run_group(1, group.train, given) == [0]
    folder = folder_of(given)
    alone = evaluate(folder, Machine("cpu", threads=1), protocols=["whole", "ms_flip"])
    made = [*folder.glob("co*.npz"), *folder.rglob("*.png")]
    files = {path: path.read_bytes() for path in made}
    assert len([path for path in files if path.suffix == ".png"]) == 3
    for number in (2, 3, 4):  # of three images; the last of four processes has none
        for path in files:
            path.unlink()
        arguments = (str(folder), str(datasets.FOLDER), ["whole", "ms_flip"])
        assert run_group(number, group.evaluate, *arguments) == [0] * number
        assert Record.load(folder / "record.json").but(evaluated="") == alone.but(evaluated="")
        assert all(path.read_bytes() == content for path, content in files.items())


SCHEDULE = {"iterations": 6, "batch": 4, "crop": [64, 64], "learning_rate": 0.1, "log_every": 1, "checkpoint_every": 2}


def test_torchrun_trains_a_run_that_is_killed_once_to_the_same_weights(
    repository, experiment_file, scenes_root, tmp_path
):
    models = {"CONTEXTRAST_BENCH_MODELS": str(write_plain(tmp_path / "models"))}
    arms = {"cross_entropy": {}, "contextrast": {}}
    experiment = experiment_file(arms=arms, models=["plain"], schedule=SCHEDULE)
    whole = {
        "experiment": str(experiment),
        "root": str(scenes_root),
        "arm": "contextrast",
        "results": str(tmp_path / "whole"),
        "environment": models,
    }
    assert run_group(2, group.train, whole) == [0, 0]

    chosen = ["--dataset", "scenes", "--model", "plain", "--arm", "contextrast", str(experiment)]
    where = ["--root", str(scenes_root), "--results", str(tmp_path / "killed"), "--device", "cpu", "--threads", "1"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launcher, "-m", "harness", "train", *chosen, *where]
    folder = tmp_path / "killed" / "runs/tiny/scenes/plain/contextrast/seed0"
    environment = os.environ | models | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=repository, env=environment, stderr=subprocess.PIPE, text=True)
    while not list(folder.glob("checkpoints/*.pt")) and process.poll() is None:
        time.sleep(0.01)
    os.kill(holder(folder)["pid"], signal.SIGKILL)
    assert process.wait() != 0
    failed = Record.load(folder / "training.json")
    assert (failed.status, failed.weights_hash) == ("failed", None)
    assert "SIGKILL" in failed.reason
    assert 0 < failed.iterations <= SCHEDULE["iterations"]
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    records = [Record.load(path / "training.json") for path in (folder, Path(str(folder).replace("killed", "whole")))]
    assert records[0].weights_hash == records[1].weights_hash
    assert records[0].fingerprint == records[1].fingerprint
    assert records[0].processes == 2
    progress = [line for line in done.stderr.splitlines() if line.startswith("train scenes")]
    assert len(progress) == 1  # of the main process alone
