"""SIGKILL at any moment, the same command again, and the same bits at the end."""

import random
import signal
import time
from pathlib import Path

import grid
import jobs
import numpy as np
import pandas as pd
import pytest
from processes import fast_context

from harness import datasets
from harness.experiment.schema import Experiment
from harness.runs.record import read_json

pytestmark = pytest.mark.slow

# By job: kills at random moments, and at random file operations.
FEW = {"train": (3, 5), "evaluate": (2, 4), "report": (1, 3)}
MANY = {"train": (10, 8), "evaluate": (6, 6), "report": (2, 6)}
TIMES = ("started", "seconds", "gpu_hours", "energy", "evaluated", "record_hash", "root")


@pytest.fixture
def given(experiment_file, tiny_data, tmp_path):
    path = experiment_file(datasets=["tiny"])
    common = {"experiment": str(path), "datasets": str(datasets.FOLDER), "root": str(tiny_data), "seed": 0}
    return common | {"arm": "contextrast"}


@pytest.fixture(scope="module")
def processes():
    context = fast_context()
    first = context.Process(target=int)  # it waits for the server's imports, which would count as a job's seconds
    first.start()
    first.join()
    return context


def start(processes, job, given, dies_at=None):
    process = processes.Process(target=jobs.run_job, args=(job, given, dies_at))
    process.start()
    return process


def finish(processes, job, given):
    """Run a job to its end; returns the seconds that it took."""
    began = time.monotonic()
    process = start(processes, job, given)
    process.join()
    assert process.exitcode == 0, Path(f"{given['results']}.log").read_text()
    return time.monotonic() - began


def killed(processes, job, given, dies_at=None, after=None):
    """Whether a job died at its file operation `dies_at`, or was killed after so many seconds, before its end."""
    process = start(processes, job, given, dies_at)
    if after is not None:
        process.join(after)
        process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), Path(f"{given['results']}.log").read_text()
    return process.exitcode != 0


def plain(record):
    """A record without times and without the state of the checkout, where somebody may commit while the test runs."""
    provenance = {key: value for key, value in record["provenance"].items() if key not in ("commit", "dirty")}
    return {key: value for key, value in record.items() if key not in TIMES} | {"provenance": provenance}


@pytest.mark.parametrize("kills", [FEW, pytest.param(MANY, marks=pytest.mark.exhaustive)], ids=["few", "many"])
def test_after_any_kills_a_run_its_evaluation_and_its_tables_end_in_the_same_bits(processes, given, tmp_path, kills):
    draw = random.Random(20261122)
    whole, broken = ({**given, "results": str(tmp_path / name)} for name in ("whole", "broken"))
    longest = {job: finish(processes, job, whole) for job in kills}
    folder = Experiment.load(given["experiment"]).run("tiny", "hrnet_tiny", "contextrast", 0).folder
    made = {"train": "training.json", "evaluate": "record.json"}
    kills_that_hit = 0
    for job, (moments, operations) in kills.items():
        for number in range(moments + operations):
            latest = longest[job]
            for _ in range(10):
                at = {"after": draw.uniform(0, latest)} if number < moments else {"dies_at": draw.randint(1, 40)}
                if killed(processes, job, broken, **at):
                    kills_that_hit += 1
                    break
                latest *= 0.7  # it ended before: its undisturbed time was measured on a busier machine
                if job in made:  # it was at its end before: begin anew, or there would be nothing left to kill
                    (folder(tmp_path / "broken") / made[job]).unlink()
                    for checkpoint in (folder(tmp_path / "broken") / "checkpoints").glob("iteration_*.pt"):
                        if job == "train":
                            checkpoint.unlink()
        finish(processes, job, broken)
    assert kills_that_hit >= 0.8 * sum(map(sum, kills.values()))

    one, two = folder(tmp_path / "whole"), folder(tmp_path / "broken")
    for name in ("training.json", "record.json"):
        assert plain(read_json(one / name)) == plain(read_json(two / name))
    curves = [pd.read_csv(run / "curve.csv").drop(columns="seconds") for run in (one, two)]
    pd.testing.assert_frame_equal(*curves, check_exact=True)
    for name in ("counts.npz", "confusion.npz", "embeddings.npz"):
        with np.load(one / name) as first, np.load(two / name) as second:
            assert first.files == second.files
            for key in first.files:
                np.testing.assert_array_equal(first[key], second[key])
    for name in ("tables/miou.csv", "tables/miou.md", "tables/boundary.csv"):
        texts = [(tmp_path / results / "reports/tiny" / name).read_text() for results in ("whole", "broken")]
        assert texts[0] == texts[1]
    # Nothing of the killed is left but what a report, which holds no lock, may have half written.
    assert names(one) == names(two)


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_sigterm_ends_in_a_checkpoint_of_that_moment_and_the_run_goes_on_there(processes, given, tmp_path):
    whole, broken = ({**given, "results": str(tmp_path / name)} for name in ("whole", "broken"))
    finish(processes, "train", whole)
    run = Experiment.load(given["experiment"]).run("tiny", "hrnet_tiny", "contextrast", 0)
    process = start(processes, "train", broken)
    while not (run.folder(tmp_path / "broken") / "curve.csv").exists() and process.is_alive():
        time.sleep(0.002)  # its first row: two iterations of ten
    asked = time.monotonic()
    process.terminate()
    process.join()
    assert process.exitcode == 143
    assert time.monotonic() - asked < 30
    checkpoints = list((run.folder(tmp_path / "broken") / "checkpoints").glob("iteration_*.pt"))
    assert checkpoints
    assert not (run.folder(tmp_path / "broken") / "training.json").exists()
    finish(processes, "train", broken)
    ends = [run.folder(tmp_path / name) for name in ("whole", "broken")]
    assert read_json(ends[0] / "training.json")["weights_hash"] == read_json(ends[1] / "training.json")["weights_hash"]
    curves = [pd.read_csv(end / "curve.csv").drop(columns="seconds") for end in ends]
    pd.testing.assert_frame_equal(*curves, check_exact=True)


def test_a_grid_whose_jobs_are_killed_ends_as_an_undisturbed_one(processes, experiment_file, tiny_data, tmp_path):
    experiment = experiment_file(datasets=["tiny"], seeds=[0], baseline_seeds=1, protocols=["whole"])
    given = {"experiment": str(experiment), "datasets": str(datasets.FOLDER), "root": str(tiny_data)}
    undisturbed = grid.run_grid(processes, given, tmp_path / "undisturbed")
    disturbed = grid.run_grid(processes, given, tmp_path / "disturbed", kill_every=undisturbed.seconds / 3, kills=5)
    assert disturbed.killed > 0
    assert disturbed.hashes == undisturbed.hashes
    assert disturbed.statuses == {"done": 2}
