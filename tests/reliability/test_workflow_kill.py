"""SIGKILL of snakemake itself, and the one command that goes on."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.runs.record import read_json

pytestmark = pytest.mark.slow


def workflow(repository, experiment, folder, *arguments):
    """The command, with its state in `folder` and its results in `folder`/out, and its environment."""
    command = [str(Path(sys.executable).parent / "snakemake"), "--cores", "1", *arguments]
    command += ["--snakefile", str(repository / "Snakefile"), "--directory", str(folder)]
    command += ["--config", f"experiment={experiment}", f"results={folder / 'out'}"]
    return command, os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)}


def test_after_a_kill_of_snakemake_unlock_and_the_same_command_go_on(
    repository, experiment_file, scenes_root, tmp_path, monkeypatch
):
    monkeypatch.setenv("SCENES_ROOT", str(scenes_root))
    results = tmp_path / "out"
    command, env = workflow(repository, experiment_file(), tmp_path, "--until", "verify")
    with (tmp_path / "log").open("w") as log:
        # As make does, with the project's folder as working folder; --directory makes it another one here.
        first = subprocess.Popen(command, env=env, cwd=tmp_path, stdout=log, stderr=log)
        while not (results / "logs/tiny/verify/scenes.log").exists() and first.poll() is None:
            time.sleep(0.05)
        first.kill()
    assert first.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert list((tmp_path / ".snakemake/locks").iterdir())
    # What `make run` does; the job that outlived its snakemake may still be at work.
    unlock = subprocess.run([sys.executable, "-m", "harness.runs.unlock"], cwd=tmp_path, env=env, capture_output=True)
    assert unlock.returncode == 0, unlock.stderr
    again = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0, again.stdout + again.stderr
    assert (results / "data/scenes/verify.json").exists()


# Whose logs a kill waits for; the last rule is never done before.
STAGES = ("verify/scenes", "run/*", "run/*", "run/*", "report", "report")


@pytest.mark.exhaustive
def test_killed_once_in_every_rule_the_workflow_ends_as_an_undisturbed_one(repository, experiment_file, tmp_path):
    """By turns snakemake alone, whose job lives on, and all of its processes, as when the machine goes down."""
    draw, experiment = random.Random(5), experiment_file(protocols=["whole"])
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    command, env = workflow(repository, experiment, whole)
    subprocess.run(command, env=env, cwd=whole, capture_output=True, check=True)

    command, env = workflow(repository, experiment, broken)
    killed = []
    for number, stage in enumerate(STAGES):
        began = time.time()
        with (broken / "log").open("a") as log:
            process = subprocess.Popen(command, env=env, cwd=broken, stdout=log, stderr=log, start_new_session=True)
        logs = broken / "out/logs/tiny"
        while process.poll() is None:
            if any(path.stat().st_mtime > began for path in logs.glob(f"{stage}.log")):
                break
            time.sleep(0.05)
        time.sleep(draw.uniform(0, 2))
        if process.poll() is None:
            if number % 2:
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            killed.append(stage)
        process.wait()
        unlock = [sys.executable, "-m", "harness.runs.unlock"]
        subprocess.run(unlock, cwd=broken, env=env, check=True, capture_output=True)
    assert len(killed) >= 5, killed
    again = subprocess.run(command, env=env, cwd=broken, capture_output=True, text=True)
    assert again.returncode == 0, again.stdout + again.stderr

    for arm in ("cross_entropy", "contextrast"):
        one, two = (read_json(f / f"out/runs/tiny/scenes/hrnet_tiny/{arm}/seed0/record.json") for f in (whole, broken))
        assert (one["weights_hash"], one["scores"]) == (two["weights_hash"], two["scores"])
    made = [sorted(path.relative_to(f) for path in f.glob("out/reports/**/*.*")) for f in (whole, broken)]
    assert made[0] == made[1]
    scores = [path for path in made[0] if path.stem in ("miou", "per_class", "boundary") and path.suffix == ".csv"]
    assert len(scores) == 3  # others hold seconds
    for path in scores:
        assert (whole / path).read_text() == (broken / path).read_text()
