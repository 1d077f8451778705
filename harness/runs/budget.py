"""Runs the missing runs of experiments within a time budget, several at a time. Never imports torch.

Each run is a separate process (`harness train --evaluate`), as in the workflow. What is done is read from the runs'
folders (`runs.state`) and from nowhere else, so you can stop at any time and continue on another machine.
"""

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from harness import datasets
from harness.compute import devices
from harness.compute.progress import duration, plural
from harness.errors import UserError
from harness.experiment.run import Run
from harness.experiment.schema import Experiment, as_told
from harness.runs import planning, sharing
from harness.runs.locking import holder
from harness.runs.record import fingerprint
from harness.runs.state import FAILURES, State, Work, state_of

UNITS = {"h": 3600, "m": 60, "s": 1}
START_SECONDS = 15.0  # until a new process trains; with less time left than this, none is started
GRACE = 20.0  # seconds at the end for saving checkpoints; at most a fifth of the budget
SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_BETWEEN_LINES = 60.0
STEPS_OF_A_PACE = 20  # fewer would mostly measure the warm-up
MPS = "nvidia-cuda-mps-control"
MPS_SECONDS = 10.0  # to answer in; later counts as not working
# Asks a run to save a checkpoint and end. Not SIGTERM: a scheduler may have sent one too, and a second one means "end
# at once" (runs/supervise.py).
ASK = signal.SIGUSR1
STDERR = 2  # file descriptor
PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True, eq=False)  # hashed by identity
class Piece:
    """A run with its experiment, and the arguments that name the experiment on a command line."""

    experiment: Experiment
    told: tuple[str, ...]  # the experiment's file and --set, as the verbs take them
    run: Run

    @property
    def name(self) -> str:
        """EXPERIMENT/DATASET/MODEL/ARM/seedN."""
        return f"{self.experiment.name}/{self.run}"

    @property
    def setting(self) -> tuple[planning.Key, str]:
        """What determines the time of an iteration: model, crop, batch, precision; and the method."""
        schedule = self.experiment.schedule_of(self.run.dataset, self.run.model, self.run.arm)
        return planning.key_of(self.run.model, schedule), self.experiment.arms[self.run.arm].method


@dataclass
class Budget:
    """Runs `pieces` in their order, `jobs` at a time, for `seconds` (None: until all are done).

    train: more arguments for `harness train`. environment: variables that the processes get in addition.
    """

    pieces: Sequence[Piece]
    results: Path
    jobs: int = 1
    seconds: float | None = None
    train: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    on_gpu: bool = False
    complete: bool = False  # start only runs that can finish in time
    asked: int = 0  # the signal that asked to stop

    def __post_init__(self) -> None:
        self.begun = self._told = time.monotonic()
        self.running: dict[Piece, subprocess.Popen[bytes]] = {}
        self.crashed: list[str] = []
        self._tried: set[Piece] = set()
        self._paces: dict[tuple[planning.Key, str], float] = {}  # seconds per iteration, measured in this call
        self._evaluations: dict[tuple[str, str], float] = {}  # seconds per data set and model, measured in this call
        self._trained_at: dict[Piece, float] = {}  # when it was last seen training
        self._of_records = planning.times(self.results)

    def work(self) -> None:
        """Work until everything is done, time is up, or SIGTERM or Ctrl-C asks to stop.

        The running runs then save a checkpoint and end. A run that takes longer than the grace period is killed and
        loses what it did since its last checkpoint. If this process is killed, its runs end the same way (on Linux).
        """
        self.results.mkdir(parents=True, exist_ok=True)
        with self._noticing():
            self._verify()
            while True:
                self._look()
                self._start_more()
                if not self.running:
                    return
                if self._over():
                    self._end()
                    return
                self._tell()
                time.sleep(SECONDS_BETWEEN_LOOKS)

    def left(self) -> list[Piece]:
        """The runs that are not done yet."""
        return [piece for piece in self.pieces if self._work(piece)]

    def describe(self) -> str:
        """How many runs have which status, and how long the rest takes if such runs were timed."""
        found = Counter(self._state(piece).status for piece in self.pieces)
        text = (
            f"{plural(len(self.pieces), 'run')}: {', '.join(f'{number} {status}' for status, number in found.items())}"
        )
        left = self.left()
        if not left:
            return f"{text}; nothing is left to do"
        times = [self.seconds_of(piece) for piece in left]
        known = [each for each in times if each is not None]
        if known:
            text += f"\nleft: {duration(sum(known) / self.jobs)} for {plural(len(known), 'run')}, {self.jobs} at a time"
        if len(known) < len(left):
            text += f"\nleft: {plural(len(left) - len(known), 'run')} of settings that were not timed here yet"
        return text

    def skipped(self) -> str:
        """Why the first run was skipped, if all were; else ""."""
        states = [self._state(piece) for piece in self.pieces]
        return states[0].reason if {state.status for state in states} == {"skipped"} else ""

    def seconds_of(self, piece: Piece) -> float | None:
        """Seconds to finish a run, with the start of its process and its evaluation; None if unknown."""
        evaluation = self._evaluations.get((piece.run.dataset, piece.run.model), 0.0)
        if self._work(piece) == "evaluate":
            return START_SECONDS + evaluation
        pace = self._pace(piece)
        return None if pace is None else START_SECONDS + pace * self._iterations_left(piece) + evaluation

    def _start_more(self) -> None:
        while len(self.running) < self.jobs and not self._over() and (piece := self._next()) is not None:
            self._tried.add(piece)
            self.running[piece] = self._start(piece)
            self._say(f"started {piece.name}, {len(self.running)} running")

    def _next(self) -> Piece | None:
        """The first run that can finish in time, else (unless `complete`) the first that can reach a checkpoint.

        A run that was never timed counts as fast enough.
        """
        time_left = self._time_left()
        if time_left < START_SECONDS:
            return None
        waiting = [piece for piece in self.pieces if piece not in self._tried and self._work(piece)]
        waiting = [piece for piece in waiting if not holder(piece.run.folder(self.results))]
        for needed in (self.seconds_of,) if self.complete else (self.seconds_of, self._seconds_to_checkpoint):
            for piece in waiting:
                seconds = needed(piece)
                if (seconds is None or seconds <= time_left) and not self._twin(piece):
                    return piece
        return None

    def _start(self, piece: Piece) -> "subprocess.Popen[bytes]":
        run = piece.run
        log = self._log(piece)
        key = ("--dataset", run.dataset, "--model", run.model, "--arm", run.arm, "--seed", str(run.seed))
        command = ("train", *piece.told, *key, "--results", str(self.results), "--evaluate", "--keep-going")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            return self._harness((*command, *self.train), stdout=file, stderr=file)

    def _log(self, piece: Piece) -> Path:
        run = piece.run
        folder = self.results / "logs" / run.experiment / "run"
        return folder / f"{run.dataset}-{run.model}-{run.arm}-seed{run.seed}.log"

    def _harness(self, arguments: Sequence[str], **streams: Any) -> "subprocess.Popen[bytes]":
        # In its own session, so that Ctrl-C reaches only this process, which then asks for checkpoints.
        return subprocess.Popen(
            [sys.executable, "-m", "harness", *arguments],
            env=os.environ | self.environment,
            start_new_session=True,
            preexec_fn=partial(end_with_parent, ASK),
            stdin=subprocess.DEVNULL,
            **streams,
        )

    def _verify(self) -> None:
        """Verify the data sets once, before the runs would all do it at the same time."""
        for name, told in {piece.run.dataset: piece.told for piece in self.pieces}.items():
            if datasets.is_verified(name, self.results) or self._over():
                continue
            arguments = ("verify", "--dataset", name, *told, "--results", str(self.results), "--keep-going")
            process = self._harness(arguments, stdout=STDERR)
            while process.poll() is None:
                if self._over():
                    process.terminate()
                time.sleep(SECONDS_BETWEEN_LOOKS / 5)

    def _look(self) -> None:
        """Update the measured paces, and note the runs that have ended."""
        for piece in list(self.running):
            if (code := self.running[piece].poll()) is not None:
                self._note_end(piece, code)
            elif (who := holder(piece.run.folder(self.results))) and who["work"] == "train":
                self._trained_at[piece] = time.monotonic()
                if (steps := who["done"] - who.get("done_before", 0)) >= STEPS_OF_A_PACE:
                    self._paces[piece.setting] = (who["told"] - who["begun"]) / steps

    def _note_end(self, piece: Piece, code: int) -> None:
        del self.running[piece]
        state = self._state(piece)
        if state.status == "done" and piece in self._trained_at:
            seconds = time.monotonic() - self._trained_at[piece]
            self._evaluations[piece.run.dataset, piece.run.model] = seconds
        status = str(state) if state.status in (*FAILURES, "skipped") else state.status
        if code not in (0, 128 + signal.SIGTERM, -signal.SIGTERM, -ASK) and not self._over():
            self.crashed.append(f"{piece.name} (exit status {code})")
            last = self._log(piece).read_text(encoding="utf-8", errors="replace").splitlines()[-1:]
            status = "; ".join([status, *last])
        self._say(f"ended {piece.name}: {status}")

    def _tell(self) -> None:
        """Print the progress of the running runs, at most every `SECONDS_BETWEEN_LINES`."""
        if time.monotonic() - self._told < SECONDS_BETWEEN_LINES:
            return
        self._told = time.monotonic()
        at_work = [(piece, holder(piece.run.folder(self.results))) for piece in self.running]
        said = [f"{piece.run} {who['work']} {who['done']}/{who['total']}" for piece, who in at_work if who]
        if said:
            self._say(", ".join(said))

    def _end(self) -> None:
        """Ask all runs to end, and kill those that do not."""
        why = f"asked by {signal.Signals(self.asked).name}" if self.asked else "time is up"
        self._say(f"{why}: {plural(len(self.running), 'run')} to save a checkpoint and end")
        for process in self.running.values():
            process.send_signal(ASK)
        patient_until = time.monotonic() + GRACE
        if self.seconds is not None and not self.asked:
            patient_until = self.begun + self.seconds
        while self.running:
            self._look()
            if time.monotonic() > patient_until:
                for process in self.running.values():
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
            time.sleep(SECONDS_BETWEEN_LOOKS / 5)

    def _over(self) -> bool:
        return bool(self.asked) or self._time_left() <= 0

    def _time_left(self) -> float:
        """Seconds until the runs are asked to end."""
        if self.seconds is None:
            return float("inf")
        return self.begun + self.seconds - min(GRACE, self.seconds / 5) - time.monotonic()

    def _work(self, piece: Piece) -> Work:
        return self._state(piece).work

    def _state(self, piece: Piece) -> State:
        return state_of(piece.experiment, piece.run, self.results)

    def _twin(self, piece: Piece) -> bool:
        """Whether another experiment is training the same settings right now: later this one can borrow its result."""
        mine = fingerprint(piece.experiment.settings(piece.run))
        return any(
            other.experiment.name != piece.experiment.name and fingerprint(other.experiment.settings(other.run)) == mine
            for other in self.running
        )

    def _pace(self, piece: Piece) -> float | None:
        """Seconds per iteration from this call, else from records; of the slowest method if this one was not timed."""
        key, method = piece.setting
        if now := {name: pace for (other, name), pace in self._paces.items() if other == key}:
            return now.get(method, max(now.values()))
        found = planning.measured_pace(self._of_records, key, method, self.on_gpu)
        return found and found[0]

    def _iterations_left(self, piece: Piece) -> int:
        schedule = piece.experiment.schedule_of(piece.run.dataset, piece.run.model, piece.run.arm)
        if self._state(piece).status != "unfinished":  # a stale run starts over
            return schedule.iterations
        saved = (piece.run.folder(self.results) / "checkpoints").glob("iteration_*.pt")
        return schedule.iterations - max((int(path.stem.removeprefix("iteration_")) for path in saved), default=0)

    def _seconds_to_checkpoint(self, piece: Piece) -> float | None:
        schedule = piece.experiment.schedule_of(piece.run.dataset, piece.run.model, piece.run.arm)
        pace = self._pace(piece)
        steps = min(schedule.checkpoint_every, self._iterations_left(piece))
        return None if pace is None else START_SECONDS + pace * steps

    @contextmanager
    def _noticing(self) -> Iterator[None]:
        def notice(number: int, _: FrameType | None) -> None:
            self.asked = self.asked or number

        before = {number: signal.signal(number, notice) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _say(self, text: str) -> None:
        print(f"{duration(time.monotonic() - self.begun):>12}  {text}", file=sys.stderr, flush=True)


def pieces(configs: Sequence[Path], overrides: Sequence[str] = (), arms: Sequence[str] = ()) -> list[Piece]:
    """The runs of experiments, the most valuable first.

    Experiments come in the order given. Within each, for every data set and model, all arms of one seed come before
    the next seed, the baseline first, so that there are pairs to compare whenever time is up. With `arms`, only those,
    in that order, of the experiments that have them. Raises UserError for a wrong file or override, or an arm that no
    experiment has.
    """
    experiments = [Experiment.load(config, list(overrides)) for config in configs]
    for arm in arms:
        if not any(arm in experiment.arms for experiment in experiments):
            experiments[0].run(*experiments[0].pairs()[0], arm, 0)  # raises UserError with the nearest name
    found = []
    for config, experiment in zip(configs, experiments, strict=True):
        told = as_told(config, overrides)
        runs = [run for run in experiment.runs() if not arms or run.arm in arms]
        if arms:
            pairs = experiment.pairs()
            runs.sort(key=lambda run: (pairs.index((run.dataset, run.model)), run.seed, arms.index(run.arm)))
        found += [Piece(experiment, told, run) for run in runs]
    return found


def read_budget(text: str) -> float:
    """Seconds in a time such as "8m", "90s", "1h30m" or "480". Raises UserError for anything else."""
    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?", text.strip())
    seconds = (
        sum(int(part or 0) * UNITS[unit] for part, unit in zip(parts.groups(), UNITS, strict=True)) if parts else 0
    )
    if not seconds:
        raise UserError(f"--budget {text}: give a time such as 8m, 90s or 1h30m")
    return float(seconds)


def places(left: Sequence[Piece], results: Path, device: str = "auto") -> tuple[int, int]:
    """How many runs to start at a time on this machine, and on how many GPUs.

    Without a GPU, one per core. Per GPU, as many as `CONTEXTRAST_BENCH_SHARE` says, else as `sharing.propose` proposes:
    one if the memory of a run is not known.
    """
    gpus = [] if device == "cpu" else devices.visible()
    if not gpus:
        return devices.cores(), 0
    if os.environ.get(devices.SHARE):
        return len(gpus) * devices.share(), len(gpus)
    runs = {piece.run for piece in left}
    rows = [
        row
        for experiment in {piece.experiment.name: piece.experiment for piece in left}.values()
        for row, run in zip(planning.plan(experiment, results, on_gpu=True), experiment.runs(), strict=True)
        if run in runs
    ]
    proposed = sharing.propose(rows, devices.memory(gpus), sharing.cores_each(len(gpus)), planning.times(results))
    return len(gpus) * proposed.runs, len(gpus)


@contextmanager
def multi_process_service() -> Iterator[dict[str, str]]:
    """Runs NVIDIA's multi-process service during the block; yields the environment variables for its clients.

    With it, kernels of several processes run side by side; without it, processes take turns. The GPU's compute mode is
    not changed. Raises UserError if the service is not installed or does not start.
    """
    if shutil.which(MPS) is None:
        raise UserError(f"--mps: there is no {MPS} on the PATH; leave the option out")
    with tempfile.TemporaryDirectory(prefix="mps-") as folder:
        found = {"CUDA_MPS_PIPE_DIRECTORY": f"{folder}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{folder}/log"}
        for place in found.values():
            Path(place).mkdir()
        quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

        def tell(command: str) -> bool:
            with suppress(OSError, subprocess.SubprocessError):
                asked = [MPS]
                subprocess.run(
                    asked, input=f"{command}\n", text=True, env=os.environ | found, timeout=5, check=True, **quiet
                )
                return True
            return False

        service = subprocess.Popen(
            [MPS, "-f"], env=os.environ | found, start_new_session=True, preexec_fn=end_with_parent, **quiet
        )
        try:
            patient_until = time.monotonic() + MPS_SECONDS
            while not tell("get_server_list"):
                if service.poll() is not None or time.monotonic() > patient_until:
                    raise UserError(f"--mps: {MPS} does not start here; leave the option out")
                time.sleep(SECONDS_BETWEEN_LOOKS / 5)
            yield found
        finally:
            tell("quit")
            try:
                service.wait(MPS_SECONDS)
            except subprocess.TimeoutExpired:
                service.kill()


def end_with_parent(number: int = signal.SIGTERM) -> None:
    """Called in a child before its program starts: Linux then sends it this signal when its parent ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number)
