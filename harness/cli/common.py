"""Shared parts of the verbs: the application, common options, and the report on a run's end."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness import __version__
from harness.cli.verbs import Ordered
from harness.compute.torchrun import is_main
from harness.errors import RunFailed, UserError
from harness.experiment.project import experiment_path
from harness.experiment.run import Run

if TYPE_CHECKING:
    from harness.runs.record import Record

app = typer.Typer(
    cls=Ordered,
    help="Train, evaluate and compare contrastive methods for semantic segmentation.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def experiments(incomplete: str) -> list[str]:
    """Names in config/ that begin with `incomplete`, for shell completion."""
    return sorted(path.stem for path in Path("config").glob(f"{incomplete}*.yaml"))


def arms(ctx: typer.Context, incomplete: str) -> list[str]:
    """Arms of the experiment on the command line that begin with `incomplete`; none if it cannot be read."""
    from harness.experiment.schema import Experiment

    try:
        found = Experiment.load(experiment_path(ctx.params.get("config") or DEFAULT_CONFIG)).arms
    except UserError:
        return []
    return [name for name in found if name.startswith(incomplete)]


BY_FILE_OR_NAME: dict[str, Any] = {"parser": experiment_path, "autocompletion": experiments}


def experiment_argument(text: str) -> Any:
    """An argument for experiments, by file or name; `text` is its help."""
    return typer.Argument(metavar="EXPERIMENT", help=text, **BY_FILE_OR_NAME)


ExperimentArgument = Annotated[Path, experiment_argument("A file, or a name in config/.")]
ResultsOption = Annotated[Path, typer.Option("--results", help="The folder that everything is written to.")]
SetOption = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the experiment.")]
RootOption = Annotated[Path | None, typer.Option("--root", help="The data set's folder.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, help="Torch threads; default: torch decides.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
KeepGoingOption = Annotated[
    bool, typer.Option("--keep-going", help="Exit 0 even if the run fails; its record says how it ended.")
]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"contextrast-bench {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train, evaluate and compare contrastive methods for semantic segmentation."""


DEFAULT_CONFIG = Path("config/quick.yaml")
DEFAULT_RESULTS = Path("results")


@contextmanager
def naming(run: Run) -> Iterator[None]:
    """Prefix UserErrors raised in this block with the run's name, for logs of many runs."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{run}: {error}") from None


def refuse_without_model(context: typer.Context) -> None:
    """Raise UserError for options that the user gave but that do nothing without --model: all but --results."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name != "results" and source is not None and source.name == "COMMANDLINE":
            raise UserError(f"{parameter.opts[0]} does nothing without --model: name a model, or leave it out")


def percent(score: float | None) -> str:
    """A score with two decimals; "undefined" for None, when no pixel is labelled."""
    return "undefined (no labelled pixel)" if score is None else f"{score:.2f}"


def finish(record: "Record", folder: Path, keep_going: bool) -> None:
    """Raise RunFailed for a run that is not done or, with `keep_going`, print a line.

    Under torchrun only rank 0 reports; the others exit with the same status.
    """
    if record.status != "done":
        if not is_main():
            raise SystemExit(0 if keep_going else 1)
        message = f"{folder} ended as {record.status}: {record.reason}"
        if not keep_going:
            raise RunFailed(message)
        print(message, file=sys.stderr)
