"""What the verbs share: the application, options that several of them take, and how a run's end is said."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness import __version__
from harness.cli.verbs import Ordered
from harness.compute.torchrun import is_main
from harness.errors import RunFailed, UserError
from harness.experiment.run import Run

if TYPE_CHECKING:
    from harness.runs.record import Record

app = typer.Typer(
    cls=Ordered,
    help="Train, evaluate and compare contrastive methods for semantic segmentation.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def experiment_path(given: str | Path) -> Path:
    """The file of an experiment: a path as it is, or the name of one in config/."""
    given = str(given)  # a default is a path already
    named = Path("config") / f"{given}.yaml"
    return named if "/" not in given and not Path(given).exists() and named.exists() else Path(given)


ConfigOption = Annotated[
    Path,
    typer.Option("--config", parser=experiment_path, metavar="EXPERIMENT", help="A file, or a name in config/."),
]
ResultsOption = Annotated[Path, typer.Option("--results", help="The folder for everything that is written.")]
SetOption = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the experiment.")]
RootOption = Annotated[Path | None, typer.Option("--root", help="The data set's folder.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, help="Threads of torch; default: its own.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
KeepGoingOption = Annotated[
    bool, typer.Option("--keep-going", help="Exit 0 for a failed run too: its record says how it ended.")
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
    """Begin the user's mistakes in this block with the run, so that the log of many says which one it was."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{run}: {error}") from None


def percent(score: float | None) -> str:
    """A score as people read it: None, where nothing was labelled, is undefined."""
    return "undefined (no labelled pixel)" if score is None else f"{score:.2f}"


def finish(record: "Record", folder: Path, keep_going: bool) -> None:
    """Report a run that is not done: as a failure, or with `keep_going` in a line.

    Under torchrun the main process reports; the others leave with its exit status.
    """
    if record.status != "done":
        if not is_main():
            raise SystemExit(0 if keep_going else 1)
        message = f"{folder} ended as {record.status}: {record.reason}"
        if not keep_going:
            raise RunFailed(message)
        print(message, file=sys.stderr)
