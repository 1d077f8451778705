"""The workflow on a SLURM of its own, whose jobs are taken away while they train.

It needs `apt-get install slurm-wlm munge`, and the plug-in (docs/cluster.md) where Python finds it.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import slurm_cluster

PLUGIN = "snakemake_executor_plugin_slurm"
pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(bool(slurm_cluster.missing()), reason=f"not installed: {', '.join(slurm_cluster.missing())}"),
    pytest.mark.skipif(importlib.util.find_spec(PLUGIN) is None, reason=f"Python finds no {PLUGIN}"),
]
ITERATIONS = 150


@pytest.fixture
def cluster():
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    started = None
    try:
        started = slurm_cluster.Cluster(folder)
        yield started
    finally:
        if started:
            started.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def experiment(experiment_file):
    schedule = {"iterations": ITERATIONS, "batch": 2, "crop": [64, 64], "learning_rate": 0.1}
    # The only checkpoint that is written of itself is the last one.
    schedule |= {"log_every": 1, "checkpoint_every": ITERATIONS}
    return experiment_file(schedule=schedule, protocols=["whole"])


def submit(repository, cluster, experiment, folder):
    """Start the workflow with the profile, its output in `folder`/log."""
    command = [str(Path(sys.executable).parent / "snakemake"), "--workflow-profile", str(repository / "profiles/slurm")]
    command += ["--snakefile", str(repository / "Snakefile"), "--directory", str(folder)]
    command += ["--config", f"experiment={experiment}", f"results={folder / 'out'}"]
    # There is no accounting here, the processors are few, and nobody wants to wait for a minute.
    command += ["--set-threads", "train=1", "evaluate=1", "--slurm-status-command", "squeue"]
    command += ["--slurm-init-seconds-before-status-checks", "2", "--seconds-between-status-checks", "1"]
    paths = [str(Path(importlib.util.find_spec(PLUGIN).origin).parent.parent), str(repository)]
    env = cluster.environment | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    with (folder / "log").open("w") as log:
        return subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=folder)


def rows(run):
    """How many iterations a run has logged."""
    curve = run / "curve.csv"
    return len(curve.read_text().splitlines()) - 1 if curve.exists() else 0


def checkpoints(run):
    return [int(path.stem.partition("_")[2]) for path in (run / "checkpoints").glob("iteration_*.pt")]


def weights_hash(run):
    return json.loads((run / "training.json").read_text())["weights_hash"]


def train_here(repository, experiment, arm, results):
    chosen = [experiment, "--dataset", "scenes", "--model", "hrnet_tiny", "--arm", arm]
    command = [sys.executable, "-m", "harness", "train", *map(str, chosen), "--results", str(results), "--threads", "1"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=repository, env=env, check=True, capture_output=True)


def test_jobs_that_slurm_takes_away_write_a_checkpoint_and_end_in_the_same_bits(
    repository, cluster, experiment, tmp_path
):
    # To the whole job, as at a preemption; and to the step alone, as --signal of the profile does before the limit.
    taken = {"contextrast": ("scontrol", "requeue"), "cross_entropy": ("scancel", "--signal=TERM")}
    runs = {arm: tmp_path / "out/runs/tiny/scenes/hrnet_tiny" / arm / "seed0" for arm in taken}
    workflow = submit(repository, cluster, experiment, tmp_path)
    try:
        jobs = {}
        for arm, command in taken.items():
            cluster.wait_for(lambda run=runs[arm]: rows(run) >= 5 or workflow.poll() is not None, 180)
            jobs[arm] = cluster.running(f"rule_run_wildcards_scenes_hrnet_tiny_{arm}_0")
            assert jobs[arm], (tmp_path / "log").read_text()
            cluster.call(*command, jobs[arm])
            cluster.wait_for(lambda run=runs[arm]: checkpoints(run), 30)
            assert 5 <= checkpoints(runs[arm])[0] < ITERATIONS
            assert not (runs[arm] / "training.json").exists()
        assert workflow.wait(400) == 0, (tmp_path / "log").read_text()
    finally:
        workflow.kill()
        workflow.wait()
    said = (tmp_path / "log").read_text()
    assert "Restarts=1" in cluster.call("scontrol", "show", "job", jobs["contextrast"])  # SLURM's own doing
    assert said.count("Trying to restart job") == 1  # Snakemake's: the step left with an error
    assert (tmp_path / "out/reports/tiny/report.html").stat().st_size > 0
    for arm, run in runs.items():
        train_here(repository, experiment, arm, tmp_path / "here")
        assert weights_hash(run) == weights_hash(tmp_path / "here/runs/tiny/scenes/hrnet_tiny" / arm / "seed0")
        assert rows(run) == ITERATIONS
        assert json.loads((run / "record.json").read_text())["status"] == "done"
