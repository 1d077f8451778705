"""`python -m harness VERB`: a thin face over the rest. Heavy imports stay inside the verbs."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import TyperException

from harness.errors import RunFailed, UserError

app = typer.Typer(
    help="Train, evaluate and compare contrastive methods for semantic segmentation.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

ConfigOption = Annotated[Path, typer.Option("--config", help="The experiment file.")]
ResultsOption = Annotated[Path, typer.Option("--results", help="The folder for everything that is written.")]
SetOption = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the experiment.")]
RootOption = Annotated[Path | None, typer.Option("--root", help="The data set's folder.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, help="Threads of torch; default: its own.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
KeepGoingOption = Annotated[
    bool, typer.Option("--keep-going", help="Exit 0 for a failed run too: its record says how it ended.")
]

DEFAULT_CONFIG = Path("config/smoke.yaml")
DEFAULT_RESULTS = Path("results")


@app.command("list")
def list_names(
    what: Annotated[str, typer.Argument(help="methods, datasets, models or arms.")],
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006 (typer copies it)
    as_json: JsonOption = False,
) -> None:
    """List the methods, data sets, models, or the arms of an experiment."""
    from harness import datasets, discovery, models
    from harness.experiment import Experiment

    if what == "arms":
        arms = Experiment.load(config, overrides).arms
        listed: Any = {
            name: {**arm.model_dump(exclude={"options"}, exclude_defaults=True), **arm.options}
            for name, arm in arms.items()
        }
    elif what == "methods":
        listed = {name: discovery.options(name) for name in discovery.names()}
    elif what in ("datasets", "models"):
        listed = {name: {} for name in (datasets if what == "datasets" else models).names()}
    else:
        raise discovery.unknown("list", what, ("methods", "datasets", "models", "arms"))
    if as_json:
        typer.echo(json.dumps(listed, indent=1))
        return
    for name, options in listed.items():
        typer.echo(f"{name}  {', '.join(f'{key}={value}' for key, value in options.items())}".rstrip())


@app.command()
def verify(
    dataset: Annotated[str, typer.Option("--dataset")],
    root: RootOption = None,
    split: Annotated[str | None, typer.Option("--split", help="One split; default: every split.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="An experiment whose roots are used.")] = None,
    results: ResultsOption = DEFAULT_RESULTS,
    as_json: JsonOption = False,
) -> None:
    """Check a data set's pairs, sizes, counts and label values, and write verify.json."""
    from harness import datasets
    from harness.datasets.verify import verify as check
    from harness.experiment import Experiment

    given = root or (Experiment.load(config).roots.get(dataset) if config else None)
    opened = datasets.load(dataset, datasets.resolve_root(dataset, given, results))
    datasets.prepare(opened)
    report_path = datasets.report_path(dataset, results)
    report = check(opened, splits=[split] if split else None, report_path=report_path)
    if as_json:
        typer.echo(json.dumps(report, indent=1))
        return
    for name, found in report["splits"].items():
        typer.echo(f"{dataset} {name}: {found['images']} pairs are in order")
    typer.echo(f"written: {report_path}")


@app.command()
def train(
    dataset: Annotated[str, typer.Option("--dataset")],
    model: Annotated[str, typer.Option("--model")],
    arm: Annotated[str, typer.Option("--arm")],
    seed: Annotated[int, typer.Option("--seed")] = 0,
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    root: RootOption = None,
    results: ResultsOption = DEFAULT_RESULTS,
    weights: Annotated[str, typer.Option("--weights", help="auto (the model's own), none, or a file.")] = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    workers: Annotated[int, typer.Option("--workers", min=0, help="Processes that read and augment.")] = 0,
    cache: Annotated[bool, typer.Option("--cache", help="Keep decoded training images in memory.")] = False,
    restart: Annotated[bool, typer.Option("--restart", help="Start over: remove what the run's folder holds.")] = False,
    keep_going: KeepGoingOption = False,
) -> None:
    """Train one run of an experiment, continuing where it was."""
    from harness import datasets
    from harness.experiment import Experiment

    experiment = Experiment.load(config, overrides)
    run = experiment.run(dataset, model, arm, seed)
    root = datasets.resolve_root(dataset, root or experiment.roots.get(dataset), results)
    # torch is imported when all of the above is right.
    from harness.machine import Machine
    from harness.training.train import train as train_run

    machine = Machine(device, workers, threads, cache)
    record = train_run(experiment, run, results, machine, root=root, weights=weights, restart=restart)
    _finish(record, run.folder(results), keep_going)


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="The folder of a trained run.")],
    protocol: Annotated[list[str], typer.Option("--protocol", help="whole or ms_flip; repeatable.")] = [],  # noqa: B006
    absent: Annotated[
        str | None,
        typer.Option("--absent", help="How absent classes enter the mean: skip, zero or require_ground_truth."),
    ] = None,
    root: RootOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
    keep_going: KeepGoingOption = False,
) -> None:
    """Predict, count and score a trained run, and write its record.json."""
    from typing import get_args

    from harness import discovery
    from harness.experiment import Absent, Protocol

    for kind, given, allowed in (("protocol", protocol, Protocol), ("rule", [absent] if absent else [], Absent)):
        for name in given:
            if name not in get_args(allowed):
                raise discovery.unknown(kind, name, get_args(allowed))
    from harness.evaluation.evaluate import evaluate as evaluate_run
    from harness.machine import Machine

    machine = Machine(device=device, threads=threads)
    record = evaluate_run(folder, machine, root=root, protocols=protocol, absent=absent)
    if as_json:
        typer.echo(json.dumps(record["scores"], indent=1))
    for name, scores in record["scores"].items():
        print(f"{folder} {name}: mIoU {scores['miou']:.2f}", file=sys.stderr)
    _finish(record, folder, keep_going)


@app.command()
def report(
    config: ConfigOption = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    results: ResultsOption = DEFAULT_RESULTS,
    part: Annotated[str, typer.Option("--part", help="tables, figures, examples or all.")] = "all",
) -> None:
    """Draw the tables and figures from whatever records exist."""
    from harness import discovery
    from harness.experiment import Experiment

    parts = ("tables", "figures", "examples")
    if part not in (*parts, "all"):
        raise discovery.unknown("part", part, (*parts, "all"))
    experiment = Experiment.load(config, overrides)
    if part in ("tables", "all"):
        from harness.reporting.tables import write_tables

        write_tables(experiment, results)
    if part in ("figures", "all"):
        from harness.reporting.figures import write_figures

        write_figures(experiment, results)
    if part in ("examples", "all"):
        from harness.reporting.examples import write_examples

        write_examples(experiment, results)
    typer.echo(f"written: {results / 'reports' / experiment.name}")


@app.command("new-method")
def new_method(name: Annotated[str, typer.Argument(metavar="NAME", help="Lower case, as the file.")]) -> None:
    """Write a method's skeleton, which already trains, and an experiment that compares it."""
    from harness.new_method import write_new_method

    method, experiment = write_new_method(name, DEFAULT_CONFIG.parent, DEFAULT_CONFIG)
    typer.echo(f"written: {method} and {experiment}")
    typer.echo(f"compare it with Contextrast: make run EXPERIMENT={experiment}")


@app.command()
def refresh(
    documents: Annotated[list[Path], typer.Argument(help="Markdown files with <!-- begin FILE --> blocks.")],
) -> None:
    """Fill the blocks of documents from the files they name: tables in the README come from records."""
    from harness.reporting.blocks import refresh as fill

    for document in documents:
        if not document.is_file():
            raise UserError(f"there is no document {document}")
        typer.echo(f"{document}: {'refreshed' if fill(document) else 'up to date'}")


def _finish(record: dict[str, Any], folder: Path, keep_going: bool) -> None:
    if record["status"] != "done":
        message = f"{folder} ended as {record['status']}: {record['reason']}"
        if not keep_going:
            raise RunFailed(message)
        print(message, file=sys.stderr)


def main() -> int:
    """Run the command line; returns the exit status: 0, 1 for a failed run, 2 for a mistake of the user's."""
    try:
        status = app(standalone_mode=False)
        return status if isinstance(status, int) else 0
    except UserError as error:
        return _say(error, 2)
    except TyperException as error:  # an unknown verb or option, a missing value
        return _say(error.format_message(), 2)
    except RunFailed as error:
        return _say(error, 1)
    except (typer.Abort, KeyboardInterrupt):
        return _say("interrupted; the same command continues where it was", 130)
    except OSError as error:  # a full disk, a folder that may not be written
        place = f" {error.filename}" if error.filename else ""
        return _say(f"the system refused{place}: {error.strerror or error}", 2)


def _say(message: object, status: int) -> int:
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    return status
