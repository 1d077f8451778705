"""The verb that runs experiments, with or without a time limit."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.common import (
    DEFAULT_RESULTS,
    DeviceOption,
    ResultsOption,
    SetOption,
    app,
    experiment_argument,
)
from harness.cli.verbs import verb
from harness.errors import RunFailed

if TYPE_CHECKING:
    from harness.runs.budget import Piece


@verb(app, "run")
def run(
    experiments: Annotated[list[Path], experiment_argument("Files, or names in config/, in this order.")],
    budget: Annotated[
        str | None,
        typer.Option("--budget", metavar="TIME", help="For example 8m or 1h30m; default: until all is done."),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Runs at a time; default: from cores and GPU memory.")
    ] = None,
    arm: Annotated[list[str], typer.Option("--arm", help="Only these arms, in this order; repeatable.")] = [],  # noqa: B006
    overrides: SetOption = [],  # noqa: B006
    complete: Annotated[
        bool,
        typer.Option("--complete", help="Start only runs that can finish in time, for a machine whose disk you lose."),
    ] = False,
    mps: Annotated[bool, typer.Option("--mps", help="Share the GPU with NVIDIA's multi-process service.")] = False,
    device: DeviceOption = "auto",
    threads: Annotated[int, typer.Option("--threads", min=1, help="Torch threads per run.")] = 1,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=0, help="Data loading processes per run; default as for train."),
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="As for train: augment on the CPU, no CUDA graph; slower.")
    ] = False,
    results: ResultsOption = DEFAULT_RESULTS,
    dry: Annotated[bool, typer.Option("--dry", help="Only print what is left and how long it takes.")] = False,
) -> None:
    """Train and evaluate the missing runs of experiments, several at a time. Type it again to continue."""
    from harness.compute import devices
    from harness.experiment.schema import Experiment
    from harness.reporting.summary import summary
    from harness.runs.budget import Budget, multi_process_service, pieces, places, read_budget

    seconds = read_budget(budget) if budget else None
    found = pieces(experiments, overrides, arm)
    with ExitStack() as stack:
        work = Budget(found, results, seconds=seconds, complete=complete)
        default, gpus = places(work.left(), results, device)
        work.jobs, work.on_gpu = jobs or default, bool(gpus)
        work.train = ["--device", device, "--threads", str(threads)]
        work.train += ["--workers", str(workers)] if workers is not None else []
        work.train += ["--plain"] if plain else []
        if not dry and work.left():
            _require_packages(work.left())
            if gpus:
                work.environment[devices.SHARE] = str(-(-work.jobs // gpus))
            if mps:
                work.environment |= stack.enter_context(multi_process_service())
            work.work()
    print(work.describe(), file=sys.stderr)
    if not dry:
        for path in dict.fromkeys(experiments):
            experiment = Experiment.load(path, overrides)
            typer.echo("\n" + summary(experiment, path, results, overrides))
    if not dry and (reason := work.skipped()):
        raise RunFailed(f"every run was skipped: {reason}")
    if work.crashed:
        raise RunFailed(f"broke off: {', '.join(work.crashed)}; their logs are in {results / 'logs'}")
    if work.asked:
        print("the same command continues", file=sys.stderr)
        raise SystemExit(128 + work.asked)


def _require_packages(found: "Sequence[Piece]") -> None:
    """Raise ModuleNotFoundError early if a package is missing that training would import late."""
    from harness.models import load_spec
    from harness.models.spec import DETECTRON2, MMSEGMENTATION

    of_source = {MMSEGMENTATION: "mmseg", DETECTRON2: "detectron2"}
    sources = {load_spec(model).source for model in {piece.run.model for piece in found}}
    for package in sorted({"safetensors"} | {of_source[source] for source in sources & of_source.keys()}):
        if find_spec(package) is None:
            raise ModuleNotFoundError(name=package)
