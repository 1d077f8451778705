"""SIGKILL of snakemake itself, and the one command that goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_after_a_kill_of_snakemake_unlock_and_the_same_command_go_on(repository, experiment_file, tmp_path):
    results = tmp_path / "out"
    command = [str(Path(sys.executable).parent / "snakemake"), "--cores", "1", "--until", "verify"]
    command += ["--snakefile", str(repository / "Snakefile"), "--directory", str(tmp_path)]
    command += ["--config", f"experiment={experiment_file()}", f"results={results}"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)}
    with (tmp_path / "log").open("w") as log:
        # As make does, with the project's folder as working folder; --directory makes it another one here.
        first = subprocess.Popen(command, env=env, cwd=tmp_path, stdout=log, stderr=log)
        while not (results / "logs/tiny/verify/scenes.log").exists() and first.poll() is None:
            time.sleep(0.05)
        first.kill()
    assert first.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()
    assert list((tmp_path / ".snakemake/locks").iterdir())
    # What `make run` does; the job that outlived its snakemake may still be at work.
    unlock = subprocess.run([sys.executable, "-m", "harness.unlock"], cwd=tmp_path, env=env, capture_output=True)
    assert unlock.returncode == 0, unlock.stderr
    again = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 0, again.stdout + again.stderr
    assert (results / "data/scenes/verify.json").exists()
