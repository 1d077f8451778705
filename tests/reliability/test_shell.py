"""What a rule's shell does when a scheduler sends SIGTERM to all of its processes."""

import os
import signal
import subprocess
import sys
import time

import pytest

WORKS_ON = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), print("saved", flush=True), sys.exit(143)))
print("at work", flush=True)
time.sleep(60)
"""
SNAKEFILE = """
include: "{repository}/workflow/common.smk"
rule wait:
    output: "made"
    log: "log"
    shell: "python {script} 2>&1 | log {{log}}"
"""


@pytest.mark.slow
def test_who_writes_a_checkpoint_after_sigterm_is_waited_for_and_heard(repository, experiment_file, tmp_path):
    (tmp_path / "works_on.py").write_text(WORKS_ON)
    (tmp_path / "Snakefile").write_text(SNAKEFILE.format(repository=repository, script=tmp_path / "works_on.py"))
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--config", f"experiment={experiment_file()}"]
    env = os.environ | {"PYTHONPATH": str(repository)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, cwd=tmp_path, env=env, start_new_session=True, **pipes)
    log, end = tmp_path / "log", time.monotonic() + 60
    while not (log.exists() and log.read_text()) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert log.read_text() == "at work\nsaved\n", said
    assert "exit status 143" in said  # the shell left with its process's own status
