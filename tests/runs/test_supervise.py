"""A process that trains is killed, and its parent writes the record; it is asked to end, and both end as ever."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from layout_writer import write_scenes
from plain_network import write_plain

from harness import datasets
from harness.experiment.run import Run
from harness.runs.locking import holder
from harness.runs.record import Record

pytestmark = pytest.mark.slow

PATIENCE = 120  # seconds, on a busy machine
SCHEDULE = {"iterations": 100_000, "batch": 2, "crop": [32, 32], "learning_rate": 0.1}
SCHEDULE |= {"log_every": 2, "checkpoint_every": 4}


class Training:
    """`python -m harness train`, as a user types it, on a run that does not end by itself."""

    def __init__(self, repository, experiment, folder, root):
        self.folder = Run("tiny", "camvid", "plain", "cross_entropy", 0).folder(folder)
        chosen = ["--dataset", "camvid", "--model", "plain", "--arm", "cross_entropy", str(experiment)]
        where = ["--root", str(root), "--results", str(folder), "--device", "cpu", "--threads", "1"]
        self.command = [sys.executable, "-m", "harness", "train", *chosen, *where]
        self.repository = repository
        self.started = []

    def start(self, *arguments):
        """Start it in a process group of its own and wait for its first checkpoint."""
        command, env = [*self.command, *arguments], os.environ | {"OMP_NUM_THREADS": "1"}
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        process = subprocess.Popen(command, cwd=self.repository, env=env, start_new_session=True, **streams)
        self.started.append(process)
        while not (self._at_work() and list(self.folder.glob("checkpoints/*.pt"))) and process.poll() is None:
            time.sleep(0.05)
        assert process.poll() is None, process.communicate()[0]
        return process

    def _at_work(self):
        """Whether somebody trains, beyond the start."""
        return bool((holder(self.folder) or {"total": 0})["total"])

    def worker(self):
        """The id of the process that trains; `status` shows it."""
        return holder(self.folder)["pid"]


@pytest.fixture
def training(repository, experiment_file, tmp_path, monkeypatch):
    root = tmp_path / "camvid"
    write_scenes(root, datasets.load("camvid").specs[0])
    monkeypatch.setenv("CONTEXTRAST_BENCH_MODELS", str(write_plain(tmp_path / "models")))
    experiment = experiment_file(datasets=["camvid"], models=["plain"], schedule=SCHEDULE, protocols=["whole"])
    found = Training(repository, experiment, tmp_path / "out", root)
    yield found
    for process in found.started:  # of a test that failed, it would train for hours
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("by", "why", "then"), [(signal.SIGKILL, "memory runs out", "SIGTERM"), (signal.SIGSEGV, "compiled code", "Ctrl-C")]
)
def test_a_killed_training_leaves_a_record_that_says_why_and_by_hand_it_goes_on_until_asked_to_end(
    training, by, why, then
):
    process = training.start("--evaluate", "--keep-going")
    assert training.worker() != process.pid
    os.kill(training.worker(), by)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0  # --keep-going: the rest of the grid goes on
    for name in ("training.json", "record.json"):
        record = Record.load(training.folder / name)
        assert record.status == "failed"
        for words in (by.name, f"at iteration {record.iterations} of 100000", why, "status --retry failed"):
            assert words in record.reason
        assert record.iterations >= 4
    assert record.reason in said
    assert record.log_tail == said.splitlines()[: len(record.log_tail)][-20:]

    process = training.start()
    assert not list(training.folder.parent.glob("*.stale-*"))
    process.send_signal(signal.SIGTERM if then == "SIGTERM" else signal.SIGINT)  # to the parent alone
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == {"SIGTERM": 143, "Ctrl-C": 130}[then]
    assert {"SIGTERM": "stops at a checkpoint", "Ctrl-C": "interrupted"}[then] in said
    assert "Traceback" not in said
    assert (training.folder / "training.json").exists()  # that of the kill
    assert holder(training.folder) is None


def test_sigterm_to_the_process_group_ends_it_at_a_checkpoint_without_a_record(training):
    process = training.start()
    os.killpg(process.pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM
    assert "stops at a checkpoint" in said
    assert not (training.folder / "training.json").exists()
    assert holder(training.folder) is None


NESTED = """
import signal, subprocess, sys
number = getattr(signal, sys.argv[1])
interrupted = 0

def interrupt(frame, event, _):  # on every line of a handler, the signal once more
    global interrupted
    if interrupted < 100:
        interrupted += 1
        signal.raise_signal(number)
    return interrupt

child = subprocess.Popen(["sleep", "60"])
try:
    if sys.argv[2] == "parent":
        from harness.runs.supervise import _pass_signals_on
        _pass_signals_on(child.pid)
        sys.settrace(interrupt)
        signal.raise_signal(number)
        sys.settrace(None)
    else:
        from harness.runs.ending import noticing_sigterm
        with noticing_sigterm() as noticed:
            sys.settrace(interrupt)
            signal.raise_signal(number)
            sys.settrace(None)
        assert noticed.given
    assert interrupted
finally:
    signal.alarm(0)  # at exit its default would kill this process
    child.kill()
"""


@pytest.mark.parametrize(
    ("number", "where"),
    [*((name, "parent") for name in ("SIGTERM", "SIGUSR1", "SIGINT")), ("SIGUSR1", "child")],
)
def test_a_signal_that_comes_while_its_handler_runs_hangs_nothing(repository, number, where):
    command = [sys.executable, "-c", NESTED, number, where]
    subprocess.run(command, cwd=repository, check=True, timeout=60)


def test_ctrl_c_is_repeated_until_the_child_ends(repository):
    """Python drops a KeyboardInterrupt in a destructor; this child ignores the first one."""
    code = (
        "import signal, subprocess, sys, time\n"
        "from harness.runs import supervise\n"
        "supervise.SECONDS_AFTER_CTRL_C = supervise.SECONDS_BETWEEN_CTRL_C = 0.5\n"
        "child = subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "supervise._pass_signals_on(child.pid)\n"
        "signal.raise_signal(signal.SIGINT)\n"
        "print(child.wait())\n"
    )
    child = (
        "import signal, time\n"
        "again = lambda *_: signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
        "signal.signal(signal.SIGINT, again)\n"
        "print(flush=True)\n"
        "time.sleep(100)\n"
        "time.sleep(100)\n"
    )
    command = [sys.executable, "-c", code, child]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=PATIENCE, check=True)
    assert int(done.stdout) == -signal.SIGINT


def test_a_training_ends_when_its_parent_is_killed(training):
    process = training.start()
    process.kill()
    process.wait()
    until = time.monotonic() + 10
    while holder(training.folder) and time.monotonic() < until:
        time.sleep(0.05)
    assert holder(training.folder) is None
