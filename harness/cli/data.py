"""Verbs about names and data sets."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from harness.cli.common import (
    DEFAULT_CONFIG,
    DEFAULT_RESULTS,
    JsonOption,
    ResultsOption,
    RootOption,
    SetOption,
    app,
    experiment_argument,
    experiments,
)
from harness.cli.verbs import verb
from harness.errors import UserError, unknown
from harness.experiment.project import experiment_path


def _listed(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names that can follow `list methods` or `list arms`, for shell completion."""
    from harness.experiment import discovery

    if ctx.params.get("what") == "arms":
        return experiments(incomplete)
    return [name for name in discovery.names() if name.startswith(incomplete)]


@verb(app, "list")
def list_names(
    what: Annotated[str, typer.Argument(metavar="WHAT", help="methods, datasets, models or arms.")],
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            autocompletion=_listed,
            help="With methods: a method, to show its options. With arms: an experiment; default: config/quick.yaml.",
        ),
    ] = None,
    overrides: SetOption = [],  # noqa: B006 (typer copies it)
    results: ResultsOption = DEFAULT_RESULTS,
    as_json: JsonOption = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the methods as docs/methods.md.")] = False,
) -> None:
    """List the methods, data sets (and whether they are found here), models, or the arms of an experiment."""
    from harness.cli import listing

    kinds = {
        "methods": lambda: listing.methods() if name is None else listing.method(name),
        "datasets": lambda: listing.datasets(results),
        "models": listing.models,
        "arms": lambda: listing.arms(experiment_path(name or DEFAULT_CONFIG), overrides),
    }
    if what not in kinds:
        raise unknown("list", what, kinds)
    if name is not None and what not in ("methods", "arms"):
        raise UserError(f"list {what} takes no name: only `list methods METHOD` and `list arms EXPERIMENT` do")
    if markdown and (what != "methods" or name is not None or as_json):
        raise UserError("--markdown prints all methods: give it with `list methods` alone")
    if markdown:
        from harness.reporting.methods_page import methods_page

        typer.echo(methods_page(), nl=False)
        return
    listed = kinds[what]()
    if as_json:
        typer.echo(json.dumps(listed.facts, indent=1))
    else:
        listed.show()


@verb(app, "verify")
def verify(
    dataset: Annotated[str, typer.Option("--dataset", help="A name from list datasets.")],
    root: RootOption = None,
    split: Annotated[str | None, typer.Option("--split", help="One split; default: every split.")] = None,
    config: Annotated[Path | None, experiment_argument("An experiment whose roots have the data set's folder.")] = None,
    overrides: SetOption = [],  # noqa: B006
    results: ResultsOption = DEFAULT_RESULTS,
    as_json: JsonOption = False,
    keep_going: Annotated[
        bool,
        typer.Option("--keep-going", help="Exit 0 even if data are missing or wrong; verify.json lists the problems."),
    ] = False,
) -> None:
    """Check a data set's pairs, sizes, counts and label values."""
    from harness import datasets
    from harness.datasets.verify import verify as check
    from harness.experiment.schema import Experiment

    given = root or (Experiment.load(config, overrides).roots.get(dataset) if config else None)
    report_path = datasets.report_path(dataset, results)
    if keep_going and (why := datasets.missing(dataset, given, results)):
        from harness.runs.failures import write_missing

        write_missing(dataset, report_path, why)
        print(f"{why}: its runs are skipped", file=sys.stderr)
        return
    opened = datasets.load(dataset, datasets.resolve_root(dataset, given, results))
    datasets.prepare(opened)
    try:
        report = check(opened, splits=[split] if split else None, report_path=report_path)
    except UserError as error:
        if not keep_going:
            raise
        print(f"{error}: its runs are skipped", file=sys.stderr)
        return
    if as_json:
        typer.echo(json.dumps(report, indent=1))
        return
    for text in report["warnings"]:
        print(f"warning: {text}", file=sys.stderr)
    for name, found in report["splits"].items():
        typer.echo(f"{dataset} {name}: {found['images']} pairs are in order")
    typer.echo(f"written: {report_path}")


@verb(app, "prepare")
def prepare(
    dataset: Annotated[str, typer.Option("--dataset", help="A name from list datasets.")],
    root: RootOption = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes; default: one per core.")] = None,
    as_is: Annotated[
        bool,
        typer.Option(
            "--as-is",
            help="Accept a part of the data set, or other image sizes; results then say so.",
        ),
    ] = False,
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Prepare a data set once: convert MATLAB labels, render scenes, or declare that you have only a part."""
    from harness import datasets

    opened = datasets.load(dataset, datasets.resolve_root(dataset, root, results))
    if as_is:
        from harness.datasets.declaring import declare

        found = declare(opened)
        typer.echo(f"{opened.root} is used {found.remark}; to undo this, remove its as_is.json")
        return
    report = datasets.prepare(opened, convert=True, workers=workers)
    typer.echo(json.dumps(report, indent=1) if report else f"{dataset} needs no conversion")
