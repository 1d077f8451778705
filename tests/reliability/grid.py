"""A grid of tiny runs, undisturbed or with a second process that kills its jobs."""

import os
import random
import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import jobs

from harness.experiment.schema import Experiment
from harness.runs.record import Record

AT_A_TIME = 2


@dataclass
class Outcome:
    """Of a grid: seconds, how jobs ended ({"train killed": 12, ...}), and every run's status and weights' hash."""

    seconds: float
    ends: Counter = field(default_factory=Counter)
    hashes: dict = field(default_factory=dict)
    statuses: Counter = field(default_factory=Counter)

    @property
    def killed(self):
        return sum(count for how, count in self.ends.items() if not how.endswith("its end"))


def run_grid(processes, given, results, kill_every=None, kills=1_000_000):
    """Train and evaluate every run of an experiment, two at a time, each by the same command until it is done.

    kill_every: seconds between two of at most `kills` kills of a random job.
    """
    experiment = Experiment.load(Path(given["experiment"]))
    runs = experiment.runs()
    waiting = [("train", run) for run in runs]
    running, outcome, began = {}, Outcome(0.0), time.monotonic()
    pids = Path(f"{results}.pids")
    pids.mkdir()
    killer = None
    if kill_every:
        killer = processes.Process(target=_kill_now_and_then, args=(str(pids), kill_every, kills), daemon=True)
        killer.start()
    while waiting or running:
        while waiting and len(running) < AT_A_TIME:
            job, run = waiting.pop(0)
            one = {**given, "results": str(results), "arm": run.arm, "seed": run.seed}
            process = processes.Process(target=jobs.run_job, args=(job, one))
            process.start()
            (pids / str(process.pid)).touch()
            running[process] = job, run
        for process in [process for process in running if not process.is_alive()]:
            job, run = running.pop(process)
            (pids / str(process.pid)).unlink()
            how = {0: "at its end", -signal.SIGKILL: "killed"}.get(process.exitcode, "ended by SIGTERM")
            assert process.exitcode in (0, -signal.SIGKILL, -signal.SIGTERM, 143), Path(f"{results}.log").read_text()
            outcome.ends[f"{job} {how}"] += 1
            if process.exitcode:
                waiting.append((job, run))
            elif job == "train":
                waiting.insert(0, ("evaluate", run))
        time.sleep(0.02)
    if killer:
        killer.kill()
    outcome.seconds = time.monotonic() - began
    for run in runs:
        record = Record.load(run.folder(results) / "record.json")
        outcome.hashes[str(run)] = record.weights_hash, record.scores
        outcome.statuses[record.status] += 1
    return outcome


def _kill_now_and_then(pids, every, kills):
    """Kill a random process of those named in the folder `pids` about `every` seconds; one in four by SIGTERM."""
    draw = random.Random(9)
    for _ in range(kills):
        time.sleep(draw.uniform(0.5, 1.5) * every)
        found = sorted(path.name for path in Path(pids).iterdir())
        if found:
            with suppress(ProcessLookupError):
                os.kill(int(draw.choice(found)), draw.choice([signal.SIGKILL] * 3 + [signal.SIGTERM]))
