"""The verb that runs experiments within a time."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.common import DEFAULT_RESULTS, DeviceOption, ResultsOption, SetOption, app, experiment_path
from harness.cli.verbs import verb
from harness.errors import RunFailed


@verb(app, "run")
def run(
    experiments: Annotated[
        list[Path],
        typer.Argument(
            parser=experiment_path, metavar="EXPERIMENT...", help="Files, or names in config/, in this order."
        ),
    ],
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="TIME", help="Such as 8m or 1h30m; default: until all is done.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Runs at a time; default: by cores and the GPU's memory.")
    ] = None,
    arm: Annotated[list[str], typer.Option("--arm", help="Only these arms, in this order; repeatable.")] = [],  # noqa: B006
    overrides: SetOption = [],  # noqa: B006
    complete: Annotated[
        bool, typer.Option("--complete", help="Start only what ends in time: for a machine whose disk goes with it.")
    ] = False,
    mps: Annotated[bool, typer.Option("--mps", help="Share the GPU by NVIDIA's multi-process service.")] = False,
    device: DeviceOption = "auto",
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of torch, each run.")] = 1,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=0, help="Processes that read and augment, each run; default as train."),
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="As of train: no samples made on the GPU, no CUDA graph.")
    ] = False,
    results: ResultsOption = DEFAULT_RESULTS,
    dry: Annotated[bool, typer.Option("--dry", help="Only say what is left and how long that takes.")] = False,
) -> None:
    """Train and evaluate the missing runs of experiments within a time, several at a time; again: what is left."""
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
            if gpus:
                work.environment[devices.SHARE] = str(-(-work.jobs // gpus))
            if mps:
                work.environment |= stack.enter_context(multi_process_service())
            work.work()
    print(work.describe(), file=sys.stderr)
    if not dry:
        for path in experiments:
            experiment = Experiment.load(path, overrides)
            typer.echo("\n" + summary(experiment, path, results, overrides))
    if work.crashed:
        raise RunFailed(f"the logs in {results / 'logs'} say why: {', '.join(work.crashed)}")
    if work.asked:
        raise SystemExit(128 + work.asked)
