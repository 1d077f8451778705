import os
import subprocess
import sys

import pytest

from harness.errors import UserError
from harness.runs.unlock import unlock


@pytest.fixture
def locked(tmp_path):
    folder = tmp_path / "project"
    (folder / ".snakemake" / "locks").mkdir(parents=True)
    (folder / ".snakemake" / "locks" / "0.input.lock").write_text("a\n")
    return folder


@pytest.fixture
def named_snakemake(tmp_path):
    """A script of that name, which sleeps."""
    script = tmp_path / "snakemake"
    script.write_text("print('up', flush=True)\nimport time\ntime.sleep(60)\n")
    return script


def start(script, folder):
    process = subprocess.Popen([sys.executable, str(script)], cwd=folder, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "up\n"
    return process


def test_the_lock_of_a_dead_snakemake_is_removed_and_a_living_ones_kept(locked, named_snakemake):
    process = start(named_snakemake, locked)
    try:
        with pytest.raises(UserError, match=f"process {process.pid}"):
            unlock(locked)
        assert (locked / ".snakemake/locks/0.input.lock").exists()
    finally:
        process.kill()
        process.wait()
    assert unlock(locked)
    assert not unlock(locked)


def test_a_snakemake_in_another_folder_does_not_count(locked, named_snakemake, tmp_path):
    process = start(named_snakemake, tmp_path)
    try:
        assert unlock(locked)
    finally:
        process.kill()
        process.wait()


def test_it_is_a_command_of_its_own(repository, locked, named_snakemake):
    def call():
        env = os.environ | {"PYTHONPATH": str(repository)}
        command = [sys.executable, "-m", "harness.runs.unlock"]
        return subprocess.run(command, cwd=locked, env=env, capture_output=True, text=True)

    process = start(named_snakemake, locked)
    refused = call()
    process.kill()
    process.wait()
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert call().returncode == 0
    assert not any(locked.glob(".snakemake/locks/*"))
