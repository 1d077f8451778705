import os
import subprocess
import sys
from dataclasses import replace

import pytest

from harness.compute import devices
from harness.errors import UserError
from harness.experiment.schema import Experiment
from harness.runs import sharing
from harness.runs.planning import Pace, PlannedRun
from harness.runs.sharing import CONTEXT_BYTES, MOST, Proposal, describe, measured_gains, propose, settled

GB = 10**9
RUN = PlannedRun("camvid", "lite0_fpn", "a", "a", 0, 1, 16, "8x8", "not run", "", 1.0, "here", 10, 9 * GB, None, True)
KEY = ("lite0_fpn", "8x8", 16, "float32")


def times(*paces):
    return {KEY: {"a": [Pace(True, seconds, device, sharers) for seconds, device, sharers in paces]}}


def test_as_many_as_fit_the_memory_the_cores_and_the_limit():
    rows = [RUN, replace(RUN, gpu_bytes=3 * GB)]
    each = 9 * GB + CONTEXT_BYTES
    for memory, cores, expected in (
        (each, 16, 1),
        (2.3 * each, 16, 2),  # nine tenths of it are filled
        (2.1 * each, 16, 1),
        (100 * each, 16, MOST),
        (100 * each, 3, 3),
    ):
        assert propose(rows, int(memory), cores) == Proposal(expected, 9 * GB, True, None)
    assert propose(rows, 0, 16).runs == 1  # a GPU of unknown memory
    assert propose([RUN, replace(RUN, gpu_bytes=None)], 100 * each, 16) == Proposal(1, None, False, None)
    assert not propose([RUN, replace(RUN, gpu_bytes_measured=False)], 100 * each, 16).measured


def test_the_gain_is_that_of_the_iterations_of_all_together_on_the_same_device():
    # Alone 2 and 4 s, the median 3; four together take 4 s each: 4 iterations in the time of 4/3. Another GPU: no pair.
    found = measured_gains(times((2, "x", 1), (4, "x", 1), (4, "x", 4), (9, "y", 4), (9, "y", 1), (5, "x", 2)))
    assert found[4] == pytest.approx((4 * 3 / 4 + 4 * 9 / 9) / 2)
    assert found[2] == pytest.approx(2 * 3 / 5)
    assert measured_gains({KEY: {"a": [Pace(False, 1, "cpu", 1), Pace(False, 1, "cpu", 4)]}}) == {}


def test_what_was_measured_not_to_pay_is_not_proposed():
    memory = 1000 * GB
    assert propose([RUN], memory, 16, times((1, "x", 1), (4, "x", 4))).runs == 1  # they take turns
    paying = propose([RUN], memory, 16, times((1, "x", 1), (2, "x", 4)))
    assert (paying.runs, paying.gain) == (4, 2.0)
    fewer = propose([RUN], memory, 16, times((1, "x", 1), (1.1, "x", 2), (4, "x", 4)))
    assert (fewer.runs, fewer.gain) == (2, pytest.approx(2 / 1.1))
    untried = propose([RUN], memory, 16, times((1, "x", 1), (1.1, "x", 2)))
    assert (untried.runs, untried.gain) == (4, None)


def test_the_line_of_the_plan_says_by_what_and_what_it_saves():
    assert describe(Proposal(4, 9 * GB, True, 2.0), 10.0) == (
        "runs on one GPU at a time: 4 (the largest takes 9.0 GB, measured); 2.00 times the iterations of one alone, "
        "measured: 5.0 of 10.0 h saved"
    )
    assert "not measured yet" in describe(Proposal(4, 9 * GB, True, None), 10.0)
    assert "estimated" in describe(Proposal(1, 9 * GB, False, None), 10.0)
    assert "not known" in describe(Proposal(1, None, False, None), 10.0)


def test_what_is_settled_for_the_workflow(experiment_file, tmp_path, monkeypatch):
    experiment = Experiment.load(experiment_file())
    monkeypatch.delenv(devices.SHARE, raising=False)
    monkeypatch.setattr(devices, "visible", lambda: [])
    assert settled("auto", experiment, tmp_path) == 1
    assert settled("3", experiment, tmp_path) == 3
    monkeypatch.setattr(devices, "visible", lambda: ["GPU-a"])
    monkeypatch.setattr(devices, "memory", lambda names: 100 * GB)
    monkeypatch.setattr(sharing, "cores_each", lambda gpus: 8)
    assert settled("auto", experiment, tmp_path) == 1  # nothing was measured
    rows = sharing.planning.plan(experiment, tmp_path)
    measured = [replace(row, gpu_bytes=9 * GB, gpu_bytes_measured=True) for row in rows]
    monkeypatch.setattr(sharing.planning, "plan", lambda *_, **__: measured)
    assert settled("auto", experiment, tmp_path) == 4
    monkeypatch.setattr(sharing.planning, "plan", lambda *_, **__: [replace(row, status="done") for row in measured])
    assert settled("auto", experiment, tmp_path) == 1  # nothing is left
    monkeypatch.setenv(devices.SHARE, "2")
    assert settled("3", experiment, tmp_path) == 2
    monkeypatch.delenv(devices.SHARE)
    for wrong in ("0", "many", "-1", "1.5"):
        with pytest.raises(UserError, match=f"share={wrong}: give auto, or the number"):
            settled(wrong, experiment, tmp_path)


@pytest.mark.slow
def test_the_workflow_says_in_one_sentence_what_share_takes(repository):
    command = [sys.executable, "-m", "snakemake", "-n", "--config", "share=many"]
    environment = {name: value for name, value in os.environ.items() if name != devices.SHARE}
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert line == "error: share=many: give auto, or the number of runs that may be on a GPU at a time"
