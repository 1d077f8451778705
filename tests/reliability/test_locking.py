import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from harness.errors import UserError
from harness.runs import locking
from harness.runs.locking import hold, holder, remove_leftovers

HOLD = """
import sys, time
from pathlib import Path
from harness.runs.locking import hold
with hold(Path(sys.argv[1]), "train") as lock:
    lock.tell(3, 10)
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(repository, tmp_path):
    """Another process that holds the lock of tmp_path / "run" at step 3 of 10."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    process = subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_leaves_with_a_sentence_that_names_the_first(other, tmp_path, monkeypatch):
    monkeypatch.setattr(locking, "SECONDS_TO_DIE", 0.3)
    with pytest.raises(UserError, match=f"process {other.pid} on {socket.gethostname()} works on .*run"):
        hold(tmp_path / "run", "train").__enter__()
    found = holder(tmp_path / "run")
    assert (found["pid"], found["work"], found["done"], found["total"]) == (other.pid, "train", 3, 10)


def test_the_lock_of_a_killed_process_is_nobodys(other, tmp_path):
    other.kill()
    other.wait()
    assert (tmp_path / "run" / locking.NAME).exists()
    assert holder(tmp_path / "run") is None
    with hold(tmp_path / "run", "train"):
        assert holder(tmp_path / "run")["pid"] == os.getpid()
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_who_waits_goes_on_when_the_first_has_ended(other, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(locking, "SECONDS_TO_DIE", 0.1)
    killer = subprocess.Popen(["sh", "-c", f"sleep 1; kill -9 {other.pid}"])
    with hold(tmp_path / "run", "train", wait=True):
        assert other.wait(timeout=10) == -signal.SIGKILL
    killer.wait()
    assert f"process {other.pid}" in capsys.readouterr().err


def test_a_forked_worker_does_not_keep_the_lock_of_its_parent(tmp_path):
    def sleep():
        time.sleep(60)

    with hold(tmp_path, "train"):
        worker = multiprocessing.get_context("fork").Process(target=sleep)
        worker.start()
    try:
        with hold(tmp_path, "train"):
            assert worker.is_alive()
    finally:
        worker.kill()
        worker.join()


def test_of_processes_that_start_together_one_at_a_time_is_inside(tmp_path):
    def count():
        for _ in range(5):
            with hold(tmp_path / "run", "train", wait=True):
                value = int((tmp_path / "count").read_text())
                time.sleep(0.01)
                (tmp_path / "count").write_text(str(value + 1))

    (tmp_path / "count").write_text("0")
    workers = [multiprocessing.get_context("fork").Process(target=count) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (tmp_path / "count").read_text() == "20"


def test_temporary_files_of_killed_writers_are_removed_and_nothing_else(repository, tmp_path):
    kept = ["record.json", "a/counts.npz", "a/.hidden", ".lock", ".gitignore"]
    for name in kept:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("kept")
    kill = (
        "import os, sys\nfrom pathlib import Path\nfrom harness.compute import atomic\n"
        "with atomic.replacing(Path(sys.argv[1])) as path:\n    path.write_text('torn')\n    os.kill(os.getpid(), 9)"
    )
    for name in ("record.json", "a/iteration_0000001.pt", "a/new.png", "a/nosuffix"):
        killed = subprocess.run([sys.executable, "-c", kill, str(tmp_path / name)], cwd=repository)
        assert killed.returncode == -signal.SIGKILL
    assert remove_leftovers(tmp_path, seconds=60) == 0
    assert remove_leftovers(tmp_path) == 4
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
