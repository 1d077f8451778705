"""Everything that needs a GPU, in slices of under nine minutes: `make gpu-evidence` goes on where it was.

What ran is kept in `results`/gpu_evidence/state.json; of trainings and evaluations the runs' own files say how far
they are. A slice may be killed at any moment: the next call runs it again. Never imports torch.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.compute import atomic, devices
from harness.errors import UserError
from harness.experiment.run import Run
from harness.experiment.schema import Experiment
from harness.reporting.markup import markdown_table
from harness.runs.record import FINISHED, read_json

CONFIG = Path("config/camvid.yaml")
FIRST_ARMS = ("cross_entropy", "contextrast", "multiscale_contrast")  # before the others
FIRST_MODEL = "lite0_fpn"  # trains in a fraction of the other's time
MODEL, SIZE = "hrnet_w48", "512x1024"
SCRATCH = f"{MODEL}_scratch"
REPORT = "report"
TRAIN_SECONDS = 420  # that a slice trains, without its start, its checkpoint and the reading of the data
LIMIT_SECONDS = 540
PATIENCE = 30  # seconds from SIGTERM, at which a training saves a checkpoint, to SIGKILL
REPEATS = 3  # of one seed, to see what the order of a GPU's additions changes
SPREAD_RUN = ("lite0_fpn", "contextrast", 0)
SPREAD_ITERATIONS = 1000
SPREADS = {"default": (), "deterministic": ("--deterministic",)}

Start = Callable[[Sequence[str]], int]


@dataclass(frozen=True)
class Slice:
    """One command. `result`: the run's file whose status says that it is done; without, exit status 0 does."""

    name: str
    command: tuple[str, ...]
    result: Path | None = None

    def ended(self) -> tuple[str, int]:
        """The status and the iterations that `result` holds; ("", -1) if it cannot be read."""
        try:
            content = read_json(self.result) if self.result else {}
            return str(content["status"]), int(content["iterations"])
        except (UserError, KeyError, TypeError, ValueError):
            return "", -1


class State:
    """Which commands ran: {name of a slice: {"done": bool, "failures": n, "reason": why the last one failed}}."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._slices: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            self._slices = {}

    def done(self, piece: Slice) -> bool:
        """Whether nothing is left of it."""
        if piece.result is not None:
            return piece.ended()[0] in FINISHED
        return bool(self._slices.get(piece.name, {}).get("done"))

    def failures(self, piece: Slice) -> int:
        """How often it failed."""
        return int(self._slices.get(piece.name, {}).get("failures", 0))

    def reason(self, piece: Slice) -> str:
        """Why it is missing."""
        return str(self._slices.get(piece.name, {}).get("reason") or "not run yet")

    def note(self, piece: Slice, reason: str | None) -> None:
        """Keep how it ended; None: well. What was reported before it is reported anew."""
        self._slices.pop(REPORT, None)
        failures = self.failures(piece) + (reason is not None)
        self._slices[piece.name] = {"done": reason is None, "failures": failures, "reason": reason}
        atomic.write_json(self.path, self._slices)


def slices(results: Path, config: Path = CONFIG, from_scratch: bool = False) -> list[Slice]:
    """All that is to run, in order. Raises UserError for an experiment file that cannot be read.

    `from_scratch`: train HRNet-W48 as a model of its own without ImageNet weights, where those cannot be had.
    """
    experiment = Experiment.load(config)
    chosen: list[str] = []
    if from_scratch:
        models = f"models=[{', '.join(SCRATCH if name == MODEL else name for name in experiment.models)}]"
        experiment, chosen = Experiment.load(config, [models]), ["--set", models]
    pieces = [Slice("tests", (sys.executable, "-m", "pytest", "-q", "-m", "gpu", "tests"))]
    for precision in ("float32", "bfloat16"):
        for mode in ("single_stream", "offline"):
            options = ("--model", MODEL, "--size", SIZE, "--precision", precision, "--mode", mode)
            pieces.append(_harness(f"latency {precision} {mode}", results, "latency", *options, "--device", "cuda"))
    crops = ("--model", MODEL, "--size", SIZE, "--batch", "8", "--rounds", "10", "--device", "cuda")
    pieces.append(_harness("overhead", results, "overhead", *crops))
    for kind, extra in SPREADS.items():
        for repeat in range(REPEATS):
            settings = (*extra, "--set", f"schedule.iterations={SPREAD_ITERATIONS}")
            folder = _spread_folder(results, kind, repeat)
            pieces += _run(f"spread {kind} {repeat}: ", _spread_run(experiment), folder, config, settings)
    for run in sorted(experiment.runs(), key=lambda run: _turn(run, experiment)):
        pieces += _run("", run, results, config, chosen)
    return [*pieces, _harness(REPORT, results, "report", "--config", str(config), *chosen)]


def work(pieces: Sequence[Slice], state: State, start: Start, most: int | None = None) -> int:
    """Run what is not done, `most` slices at most; returns how many ran.

    What failed before comes last, but for the report, and each fails once a call: a slice that never works keeps
    nothing from running. A training that made headway is taken up again at once.
    """
    ran = 0
    for piece in sorted(pieces, key=lambda piece: (piece.name == REPORT, state.failures(piece))):
        while not state.done(piece) and ran != most:
            before = piece.ended()[1]
            print(f"slice: {piece.name}", file=sys.stderr, flush=True)
            code = start(piece.command)
            ran += 1
            status, iterations = piece.ended()
            if code == 0 and (piece.result is None or status in FINISHED or iterations > before):
                state.note(piece, None)
            else:
                state.note(piece, f"exit status {code}" if code else f"it ended as {status or 'nothing'}")
                break
    return ran


def missing(pieces: Sequence[Slice], state: State) -> list[str]:
    """A line for every slice that is not done."""
    return [f"{piece.name}: {state.reason(piece)}" for piece in pieces if not state.done(piece)]


def start(command: Sequence[str]) -> int:
    """Run a command for `LIMIT_SECONDS` at most; its exit status, or -15 (SIGTERM) if it had to be ended."""
    process = subprocess.Popen(command)
    try:
        return process.wait(LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return -15


def write_spread(results: Path, config: Path = CONFIG) -> Path | None:
    """Write `results`/reports/cost/spread.md: how far repeats of one seed lie apart. None if none is evaluated."""
    run, lines = _spread_run(Experiment.load(config)), []
    for kind in SPREADS:
        records = []
        for repeat in range(REPEATS):
            path = run.folder(_spread_folder(results, kind, repeat)) / "record.json"
            if path.is_file() and (record := read_json(path))["status"] == "done":
                records.append(record)
        if records:
            scores = [record["scores"]["whole"]["miou"] for record in records]
            weights = len({record["weights_hash"] for record in records})
            spread = f"{max(scores) - min(scores):.3f}"
            lines.append([kind, str(len(records)), str(weights), ", ".join(f"{one:.3f}" for one in scores), spread])
    if not lines:
        return None
    text = markdown_table(
        f"{run}, {SPREAD_ITERATIONS} iterations, the same seed again",
        ["", "repeats", "different weights", "mIoU", "highest minus lowest"],
        lines,
        ["The same command on the same GPU. Equal weights are equal in every bit (sha256)."],
    )
    path = Path(results) / "reports" / "cost" / "spread.md"
    atomic.write_text(path, text)
    return path


def gpus() -> int:
    """How many GPUs can be used here."""
    return len(devices.visible())


def _harness(name: str, results: Path, *arguments: str) -> Slice:
    return Slice(name, (sys.executable, "-m", "harness", *arguments, "--results", str(results)))


def _run(prefix: str, run: Run, results: Path, config: Path, settings: Sequence[str] = ()) -> list[Slice]:
    """Its training and its evaluation."""
    folder = run.folder(results)
    key = ("--dataset", run.dataset, "--model", run.model, "--arm", run.arm, "--seed", str(run.seed))
    how = ("--cache", "ram", "--device", "cuda", "--timeout", str(TRAIN_SECONDS), "--keep-going")
    train = ("train", "--config", str(config), *key, "--results", str(results), *how, *settings)
    evaluate = ("evaluate", str(folder), "--device", "cuda", "--keep-going")
    python = (sys.executable, "-m", "harness")
    return [
        Slice(f"{prefix}train {run}", (*python, *train), folder / "training.json"),
        Slice(f"{prefix}evaluate {run}", (*python, *evaluate), folder / "record.json"),
    ]


def _turn(run: Run, experiment: Experiment) -> tuple[Any, ...]:
    arms = [arm for arm in FIRST_ARMS if arm in experiment.arms]
    later = run.arm not in arms
    # All arms of a seed before the next seed: whenever it ends, there are pairs to compare.
    place = run.arm if later else arms.index(run.arm)
    return later, run.model != FIRST_MODEL, experiment.models.index(run.model), run.seed, place


def _spread_run(experiment: Experiment) -> Run:
    model, arm, seed = SPREAD_RUN
    return experiment.run(experiment.datasets[0], model, arm, seed)


def _spread_folder(results: Path, kind: str, repeat: int) -> Path:
    return Path(results) / "gpu_evidence" / f"{kind}{repeat}"
