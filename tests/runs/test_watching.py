"""`status --watch`: what it shows, how long it says the rest takes, and how it ends."""

import os
import pty
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from run_files import leave_files, make_record

from harness.experiment.schema import Experiment
from harness.runs import locking, planning, watching
from harness.runs.locking import hold, holder, seconds_left
from harness.runs.status import StatusRow, describe, status_rows

WATCH = (
    "import sys; sys.argv = ['harness', 'status', '--watch', {config!r}, '--results', {results!r}]\n"
    "from harness import cli\nfrom harness.runs import watching\n"
    "watching.SECONDS_BETWEEN_REDRAWS = watching.SECONDS_BETWEEN_LINES = 0.1\n"
    "code = cli.main()\n"
    "assert 'torch' not in sys.modules\n"
    "sys.exit(code)"
)


@pytest.fixture
def config(experiment_file) -> Path:
    return experiment_file(arms={"cross_entropy": {}, "contextrast": {}, "pne": {}})


@pytest.fixture
def experiment(config):
    return Experiment.load(config)


def finish(experiment, results, arm, status="done", seconds=30.0, **more):
    """Write what a training and an evaluation leave of a run."""
    run = experiment.run("scenes", "hrnet_tiny", arm, 0)
    provenance = {"device": {"type": "cpu", "name": "CPU"}}
    for name in ("training.json", "record.json"):
        record = make_record(experiment, run, status, seconds=seconds, provenance=provenance, **more)
        record.save(run.folder(results) / name)
    leave_files(run.folder(results))


def rows(**statuses):
    """A row for every arm, with its status or its fields."""
    fields = {arm: each if isinstance(each, dict) else {"status": each} for arm, each in statuses.items()}
    return [StatusRow("tiny", "scenes", "hrnet_tiny", arm, 0, **each) for arm, each in fields.items()]


def training(left):
    return {"status": "running", "work": "train", "reason": "train, process 1 on here", "left": left}


def start(repository, config, results, **streams) -> subprocess.Popen:
    code = WATCH.format(config=str(config), results=str(results))
    env = os.environ | {"COLUMNS": "120", "LINES": "24", "TERM": "xterm"}
    # Tests that were started in the background ignore Ctrl-C, and so would what they start.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=repository, env=env, text=True, preexec_fn=heed, **streams
    )


def test_the_rest_takes_as_long_as_the_pace_since_work_began(tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(locking.time, "time", lambda: clock[0])
    with hold(tmp_path / "run", "train") as lock:
        assert seconds_left(holder(tmp_path / "run")) is None
        lock.begin("train", 10, 100)  # ten steps are from before an interruption
        assert seconds_left(holder(tmp_path / "run")) is None
        clock[0] = 1040.0
        lock.tell(30, 100)  # twenty in forty seconds
        assert seconds_left(holder(tmp_path / "run")) == 140.0
        clock[0] = 1050.0
        assert seconds_left(holder(tmp_path / "run")) == 130.0
        clock[0] = 9999.0  # it is slower than it was: not less than nothing
        assert seconds_left(holder(tmp_path / "run")) == 0.0
        lock.begin("evaluate whole", 0, 7)
        found = holder(tmp_path / "run")
        assert (found["work"], found["done"], found["total"], seconds_left(found)) == ("evaluate whole", 0, 7, None)


def test_a_running_row_says_how_long_the_rest_takes(experiment, tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(locking.time, "time", lambda: clock[0])
    with hold(experiment.run("scenes", "hrnet_tiny", "pne", 0).folder(tmp_path), "train") as lock:
        lock.begin("train", 0, 10)
        clock[0] = 1100.0
        lock.tell(4, 10)
        row = next(row for row in status_rows(tmp_path, [experiment]) if row.arm == "pne")
    assert (row.work, row.left) == ("train", 150.0)
    assert "running 4/10, 2 min 30 s left: train, process" in str(watching.picture([row], None, 9))


def test_overall_the_waiting_runs_follow_on_whatever_is_free_first(experiment, tmp_path, monkeypatch):
    # The same setting took 50 s. Two train: one is free after 10 s, the other after 100 s.
    # First 10 -> 60, then 60 -> 110, then the other 100 -> 150.
    found = rows(a=training(10.0), b=training(100.0), c="not run", d="unfinished", e="not run", f="done", g="failed")
    seconds = {row.run: 50.0 for row in found}
    monkeypatch.setattr(watching, "_measured_seconds", lambda *_: seconds)
    assert watching.time_left(found, tmp_path, [experiment]) == 150.0
    assert watching.time_left(found[:1], tmp_path, [experiment]) == 10.0
    assert watching.time_left(found[2:], tmp_path, [experiment]) is None  # nothing trains
    assert watching.time_left([*rows(h=training(None)), *found], tmp_path, [experiment]) is None
    del seconds[found[4].run]
    assert watching.time_left(found, tmp_path, [experiment]) is None


def test_what_a_waiting_run_takes_is_what_the_same_setting_took(experiment, tmp_path):
    found = rows(cross_entropy="done", contextrast="not run", pne=training(7.0))
    # Nothing was measured: an estimate at a data centre's GPU says nothing of this machine.
    assert watching.time_left(found, tmp_path, [experiment]) is None
    finish(experiment, tmp_path, "cross_entropy", seconds=30.0)
    assert watching.time_left(found, tmp_path, [experiment]) == pytest.approx(37.0)


def test_a_picture_fits_the_terminal_and_shows_first_what_matters():
    found = rows(a="done", b="not run", c=training(30.0), d="failed", e="done", f="not evaluated")
    whole = str(watching.picture(found, 90.0, height=24)).splitlines()
    assert [line.split("/")[3][0] for line in whole[:6]] == ["c", "d", "b", "f", "a", "e"]
    assert whole[6:] == [
        "6 runs: 2 done, 1 not run, 1 running, 1 failed, 1 not evaluated; "
        "about 1 min 30 s of training left, 1 at a time"
    ]
    cut = str(watching.picture(found, None, height=6)).splitlines()
    assert len(cut) == 5
    assert "c/seed0" in cut[0] and "b/seed0" in cut[2]
    assert cut[3] == "and 3 runs: 1 not evaluated, 2 done"
    assert "left" not in cut[4]


@pytest.mark.slow
def test_in_a_log_it_prints_what_changes_and_ends_with_the_last_run(repository, experiment, config, tmp_path):
    results = tmp_path / "out"
    finish(experiment, results, "cross_entropy")
    finish(experiment, results, "pne", status="diverged")
    with hold(experiment.run("scenes", "hrnet_tiny", "contextrast", 0).folder(results), "train") as lock:
        process = start(repository, config, results, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        first = [process.stdout.readline() for _ in range(3)]
        lock.begin("train", 0, 10)
        time.sleep(0.2)
        lock.tell(4, 10)
        changed = process.stdout.readline()
        while "4/10" not in changed:
            assert "contextrast/seed0" in changed
            changed = process.stdout.readline()
    finish(experiment, results, "contextrast")
    out, error = process.communicate(timeout=60)
    assert [line.split()[1].rstrip(":") for line in first] == ["done", "running", "diverged"]
    assert process.returncode == 0
    assert error == ""
    assert "\x1b" not in "".join([*first, changed, out])
    *between, end = out.splitlines()
    assert all("contextrast/seed0" in line for line in between)  # nothing else changed
    assert between[-1].split()[1] == "done"
    assert end == "3 runs: 2 done, 1 diverged"


@pytest.mark.slow
def test_on_a_terminal_it_redraws_in_place_until_ctrl_c(repository, experiment, config, tmp_path):
    results = tmp_path / "out"
    finish(experiment, results, "cross_entropy")
    ours, theirs = pty.openpty()
    process = start(repository, config, results, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    seen = ""
    while seen.count("3 runs:") < 3:  # pictures
        seen += os.read(ours, 4096).decode()
    process.send_signal(signal.SIGINT)
    try:
        while chunk := os.read(ours, 4096):
            seen += chunk.decode()
    except OSError:  # the terminal is closed from the other side
        pass
    os.close(ours)
    assert process.wait(timeout=60) == 0
    assert "\x1b[1A" in seen  # one line up
    assert "3 runs: 1 done, 2 not run" in seen
    for words in ("Traceback", "error", "interrupted"):
        assert words not in seen


def test_a_run_that_lacks_a_protocol_is_not_evaluated_and_says_so(experiment_file, tmp_path):
    experiment = Experiment.load(experiment_file(protocols=["whole", "slide", "ms_flip"]))
    finish(experiment, tmp_path, "cross_entropy", scores={"whole": {}, "slide": {}, "ms_flip": {}})
    finish(experiment, tmp_path, "contextrast", scores={"whole": {}})
    described = describe(status_rows(tmp_path, [experiment])).splitlines()
    assert described[0].endswith("cross_entropy/seed0  done")
    assert described[1].endswith("not evaluated: slide and ms_flip were left out")
    assert described[2] == "2 runs: 1 done, 1 not evaluated"
    planned = planning.describe(planning.plan(experiment, tmp_path)).splitlines()
    (done,) = [line for line in planned if "cross_entropy" in line]
    (lacking,) = [line for line in planned if "contextrast" in line]
    assert done.endswith("  done")
    assert lacking.endswith("  not evaluated: slide and ms_flip were left out")


def test_watching_and_json_do_not_go_together(monkeypatch, capsys):
    from harness import cli

    monkeypatch.setattr(sys, "argv", ["harness", "status", "--watch", "--json"])
    assert cli.main() == 2
    assert "--json" in capsys.readouterr().err
