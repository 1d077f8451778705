"""Verbs about single runs."""

import json
import shlex
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from harness.cli.common import (
    DEFAULT_CONFIG,
    DEFAULT_RESULTS,
    DeviceOption,
    ExperimentArgument,
    JsonOption,
    KeepGoingOption,
    ResultsOption,
    RootOption,
    SetOption,
    ThreadsOption,
    app,
    arms,
    finish,
    naming,
    percent,
)
from harness.cli.verbs import verb
from harness.compute.shipped import program
from harness.compute.torchrun import is_main, world_size
from harness.config import read_size
from harness.errors import RunFailed, UserError, unknown

if TYPE_CHECKING:
    from harness.runs.record import Record


@verb(app, "train")
def train(
    dataset: Annotated[str, typer.Option("--dataset", help="A name from list datasets.")],
    model: Annotated[str, typer.Option("--model", help="A name from list models.")],
    arm: Annotated[str, typer.Option("--arm", autocompletion=arms, help="An arm of the experiment.")],
    seed: Annotated[int, typer.Option("--seed", help="The seed of the run.")] = 0,
    config: ExperimentArgument = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    root: RootOption = None,
    results: ResultsOption = DEFAULT_RESULTS,
    weights: Annotated[str, typer.Option("--weights", help="auto (the model's own), none, a file or a URL.")] = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="Data loading processes; default: chosen from the cores.")
    ] = None,
    cache: Annotated[
        Literal["auto", "ram", "disk", "none"],
        typer.Option("--cache", help="Where to keep decoded training images; auto: on disk if there is room."),
    ] = "auto",
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="Bit-identical repeats on a GPU too; slower.")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="On a GPU: augment on the CPU, no CUDA graph; slower.")
    ] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Start over; the old run is set aside.")] = False,
    timeout: Annotated[
        float | None, typer.Option("--timeout", min=0, help="Stop training after this many seconds.")
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write event files to tensorboard/ in the run's folder.")
    ] = False,
    evaluate_too: Annotated[bool, typer.Option("--evaluate", help="Then evaluate, in the same process.")] = False,
    keep_going: KeepGoingOption = False,
) -> None:
    """Train one run of an experiment, resuming from its last checkpoint if it has one."""
    from harness import datasets
    from harness.experiment.schema import Experiment
    from harness.runs import supervise
    from harness.runs.failures import write_killed

    experiment = Experiment.load(config, overrides)
    run = experiment.run(dataset, model, arm, seed)
    if evaluate_too and world_size() > 1:
        raise UserError("--evaluate takes one process: run evaluate under torchrun after training")
    folder = run.folder(results)
    if is_main() and seed not in (seeds := experiment.seeds_of(arm)):
        listed = ", ".join(map(str, seeds))
        print(f"warning: no table shows seed {seed}, since {arm} has the seeds {listed} in {config}", file=sys.stderr)

    def killed(by: int, log_tail: list[str]) -> int:
        if is_main():
            print(f"{run}: {write_killed(experiment, run, results, by, log_tail)}", file=sys.stderr)
        return 0 if keep_going else 1

    supervise.continue_in_child(killed)
    with naming(run) if keep_going else nullcontext():
        try:
            root = datasets.resolve_root(dataset, root or experiment.roots.get(dataset), results)
        except UserError as error:
            if not keep_going:
                raise
            from harness.runs.failures import skip

            if not is_main():
                raise SystemExit(0) from None
            record = skip(experiment, run, results, str(error))
        else:
            # torch is imported only after these checks.
            from harness.compute.machine import Machine
            from harness.training.train import train as train_run

            kept = None if cache == "none" else cache
            machine = Machine(device, workers, threads, kept, deterministic, gpu_samples=not plain, graphs=not plain)
            options: dict[str, Any] = {"root": root, "weights": weights, "restart": restart, "timeout": timeout}
            options |= {"keep_going": keep_going, "tensorboard": tensorboard}
            record = train_run(experiment, run, results, machine, **options)
        if evaluate_too:
            record = _evaluated(experiment, run, results, threads, device, keep_going) or record
    finish(record, folder, keep_going)
    if is_main() and not keep_going and not evaluate_too:
        from harness.runs.state import work_left

        verb, what = ("evaluate", folder) if work_left(experiment, run, results) else ("report", config)
        print(f"written: {folder}\nnext: {program()} {verb} {shlex.quote(str(what))}", file=sys.stderr)


def _evaluated(
    experiment: Any, run: Any, results: Path, threads: int | None, device: str, keep_going: bool
) -> "Record | None":
    """Evaluate the run if necessary and print its scores; returns the record if it was evaluated now, or None."""
    from harness.compute.machine import Machine
    from harness.evaluation.evaluate import evaluate as evaluate_run
    from harness.runs.state import Missing, read_record, work_left

    record = None
    if work_left(experiment, run, results):
        machine, options = Machine(device, threads=threads), {"protocols": experiment.protocols}
        record = evaluate_run(run.folder(results), machine, **options, absent=experiment.absent, keep_going=keep_going)
    found = read_record(experiment, run, results)
    if not isinstance(found, Missing):
        scores = ", ".join(f"{name} {percent(found.score(name))}" for name in found.scores)
        print(f"{run}: mIoU {scores}", file=sys.stderr)
    if keep_going:  # one of many runs
        from harness.runs.watching import progress_of

        print(progress_of(experiment, results), file=sys.stderr)
    return record


@verb(app, "evaluate")
def evaluate(
    folder: Annotated[Path | None, typer.Argument(metavar="RUN_DIR", help="The folder of a trained run.")] = None,
    protocol: Annotated[list[str], typer.Option("--protocol", help="whole, slide or ms_flip; repeatable.")] = [],  # noqa: B006
    absent: Annotated[
        str | None,
        typer.Option("--absent", help="How an absent class enters the mean: skip, zero or require_ground_truth."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option("--checkpoint", help="A checkpoint from mmsegmentation, instead of a run."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="The checkpoint's network: a name from list models.")
    ] = None,
    dataset: Annotated[str | None, typer.Option("--dataset", help="Score the checkpoint on this data set.")] = None,
    window: Annotated[
        str | None,
        typer.Option("--window", metavar="HEIGHTxWIDTH", help="Window of the protocol slide, for a checkpoint."),
    ] = None,
    root: RootOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
    keep_going: KeepGoingOption = False,
) -> None:
    """Score a trained run and write its record.json, or score a published checkpoint."""
    from typing import get_args

    from harness.experiment.schema import Absent, Protocol

    for kind, given, allowed in (("protocol", protocol, Protocol), ("rule", [absent] if absent else [], Absent)):
        for name in given:
            if name not in get_args(allowed):
                raise unknown(kind, name, get_args(allowed))
    if (folder is None) == (checkpoint is None):
        raise UserError("pass RUN_DIR, the folder of a trained run, or --checkpoint FILE --model NAME --dataset NAME")
    from harness.compute.machine import Machine

    machine = Machine(device=device, threads=threads)
    if checkpoint is not None:
        if world_size() > 1:
            raise UserError("--checkpoint takes one process: start it without torchrun")
        if model is None or dataset is None:
            raise UserError("--checkpoint needs --model and --dataset")
        size = read_size(window) if window else None
        _known_answers(checkpoint, model, dataset, root, machine, protocol, absent or "skip", size, as_json)
        return
    assert folder is not None
    from harness.evaluation.evaluate import evaluate as evaluate_run
    from harness.runs.record import RECORD

    options: dict[str, Any] = {"root": root, "protocols": protocol, "absent": absent}
    record = evaluate_run(folder, machine, **options, keep_going=keep_going)
    if is_main():
        if as_json:
            typer.echo(json.dumps(record.scores, indent=1))
        for name in record.scores:
            print(f"{folder} {name}: mIoU {percent(record.score(name))}", file=sys.stderr)
    finish(record, folder, keep_going)
    if is_main() and not keep_going:
        print(f"written: {folder / RECORD}", file=sys.stderr)
        if (config := DEFAULT_CONFIG.parent / f"{record.key.experiment}.yaml").is_file():
            print(f"next: {program()} report {config}", file=sys.stderr)


def _known_answers(
    checkpoint: Path,
    model: str,
    name: str,
    root: Path | None,
    machine: Any,
    protocols: list[str],
    absent: str,
    window: tuple[int, int] | None,
    as_json: bool,
) -> None:
    from harness import datasets
    from harness.checks.known_answers import evaluate_checkpoint

    opened = datasets.load(name, datasets.resolve_root(name, root))
    options: dict[str, Any] = {"protocols": protocols, "absent": absent, "window": window}
    found = evaluate_checkpoint(checkpoint, model, opened, machine, **options)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
    missed = []
    for protocol, scores in found["scores"].items():
        line = f"{checkpoint.name} {protocol}: mIoU {percent(scores['miou'])}"
        if answer := found["known_answers"].get(protocol):
            expected = f"{answer['published']:.2f} within {answer['tolerance']}"
            line += f", published {expected}: {'pass' if answer['passed'] else 'fail'}"
            missed += [] if answer["passed"] else [protocol]
        print(line, file=sys.stderr)
    if not found["known_answers"]:
        print(f"no score is published for this file on {name}: nothing to compare with", file=sys.stderr)
    if missed:
        raise RunFailed(f"{checkpoint.name} misses its published mIoU by {', '.join(missed)}")


@verb(app, "reproduce")
def reproduce(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder, or one that holds several.")],
    protocol: Annotated[list[str], typer.Option("--protocol", help="Repeatable; default: all in the record.")] = [],  # noqa: B006
    results: ResultsOption = Path("results/reproduced"),
    root: RootOption = None,
    device: DeviceOption = "auto",
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="Default: as in the record.")] = None,
    iterations: Annotated[
        int | None,
        typer.Option(
            "--iterations", min=1, help="Train only the first iterations of every run in DIR and compare the curves."
        ),
    ] = None,
) -> None:
    """Repeat a run from its record and compare; if there are several, the shortest one from a similar device."""
    from harness import datasets
    from harness.checks.reproduce import begin, describe, shortest, trained
    from harness.checks.reproduce import reproduce as make_again
    from harness.compute import devices
    from harness.compute.machine import Machine
    from harness.compute.provenance import processor
    from harness.runs.record import RECORD, Record

    gpu = device.startswith("cuda") or (device == "auto" and devices.visible())
    here = {"type": "cuda"} if gpu else {"type": "cpu"} | processor()
    missed = []
    for chosen in trained(folder, here) if iterations else [shortest(folder, here)]:
        record = Record.load(chosen / RECORD)
        where = datasets.resolve_root(record.key.dataset, root, results)
        machine = Machine(device, threads=threads or (record.device.threads if record.device else None), cache="ram")
        found = (
            begin(chosen, results, where, machine, iterations)
            if iterations
            else make_again(chosen, results, where, machine, protocol)
        )
        typer.echo(describe(found))
        missed += [] if found.passed else [str(chosen)]
    if missed:
        raise RunFailed(f"not reproduced: {', '.join(missed)}")


@verb(app, "predict")
def predict(
    folder: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The folder of a trained run.")],
    split: Annotated[str, typer.Option("--split", help="The split to predict, such as test.")],
    form: Annotated[str, typer.Option("--format", help="train_ids, cityscapes or ade20k.")] = "train_ids",
    protocol: Annotated[str, typer.Option("--protocol", help="whole, slide or ms_flip.")] = "whole",
    out: Annotated[Path | None, typer.Option("--out", help="Default: in RUN_DIR/submissions.")] = None,
    images: Annotated[Path | None, typer.Option("--images", help="A folder of images instead of the split's.")] = None,
    root: RootOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Write a trained run's predictions in the format of an official evaluation server."""
    from harness.compute.machine import Machine
    from harness.evaluation.submission import write_predictions

    options: dict[str, Any] = {"protocol": protocol, "out": out, "images": images, "root": root}
    written = write_predictions(folder, Machine(device=device, threads=threads), split=split, form=form, **options)
    typer.echo(f"written: {written}")


@verb(app, "export")
def export(
    folder: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The folder of a trained run.")],
    form: Annotated[str, typer.Option("--format", help="safetensors or torchscript.")] = "safetensors",
    out: Annotated[Path | None, typer.Option("--out", help="Default: in RUN_DIR/export.")] = None,
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="HEIGHTxWIDTH", help="Image size for torchscript; default: the crop."),
    ] = None,
) -> None:
    """Write a trained run's inference network to a file."""
    from harness.evaluation.export import export as export_network

    typer.echo(f"written: {export_network(folder, form, out, read_size(size) if size else None)}")
