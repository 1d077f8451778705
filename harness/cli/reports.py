"""Verbs about whole experiments."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from harness.cli.common import (
    BY_FILE_OR_NAME,
    DEFAULT_CONFIG,
    DEFAULT_RESULTS,
    ExperimentArgument,
    JsonOption,
    ResultsOption,
    RootOption,
    SetOption,
    app,
    experiment_argument,
)
from harness.cli.verbs import verb
from harness.compute.progress import plural
from harness.compute.shipped import program, run_command
from harness.errors import RunFailed, UserError, unknown


@verb(app, "score")
def score(
    predictions: Annotated[Path, typer.Option("--predictions", help="A folder with one label PNG per image.")],
    dataset: Annotated[str, typer.Option("--dataset", help="A name from list datasets.")],
    root: RootOption = None,
    split: Annotated[str | None, typer.Option("--split", help="Default: the split that papers report.")] = None,
    encoding: Annotated[
        str | None, typer.Option("--format", help="train_ids, raw_ids or colors; default: detected.")
    ] = None,
    absent: Annotated[
        str,
        typer.Option("--absent", help="How an absent class enters the mean: skip, zero or require_ground_truth."),
    ] = "skip",
    void: Annotated[
        Literal["refused", "wrong"],
        typer.Option(
            "--void",
            help="Labelled pixels predicted as no class: refuse them, or count them as errors as Cityscapes does.",
        ),
    ] = "refused",
    arm: Annotated[str | None, typer.Option("--arm", help="Write a record under this name, for the tables.")] = None,
    experiment: Annotated[
        str | None,
        typer.Option(
            "--experiment", help="Show it in this experiment's tables; default: the only one with runs on the data set."
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Show it under this network; default: the experiment's only one.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The seed of the run.")] = 0,
    protocol: Annotated[str, typer.Option("--protocol", help="How the predictions were made.")] = "whole",
    results: ResultsOption = DEFAULT_RESULTS,
    restart: Annotated[bool, typer.Option("--restart", help="Replace the arm's record of other predictions.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Score label maps that another program wrote."""
    from harness import datasets
    from harness.evaluation.external_predictions import score_predictions
    from harness.runs.external_arms import external_run, why_not_shown

    opened = datasets.load(dataset, datasets.resolve_root(dataset, root, results))
    datasets.prepare(opened)
    run = external_run(results, dataset, arm, experiment, model, seed) if arm else None
    options: dict[str, Any] = {"run": run, "results": results, "restart": restart}
    options |= {"split": split, "encoding": encoding, "absent": absent, "protocol": protocol}
    options["void_is_wrong"] = void == "wrong"
    found = score_predictions(predictions, opened, **options)
    config = DEFAULT_CONFIG.parent / f"{run.experiment}.yaml" if run else DEFAULT_CONFIG
    hidden = why_not_shown(run, protocol, config) if run else ""
    for warning in [*found["warnings"], *([f"no report shows {found['record']}: {hidden}"] if hidden else [])]:
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        typer.echo(json.dumps(found, indent=1))
        return
    typer.echo(f"{dataset} {found['split']}: {found['images']} images, read as {found['format']}, absent {absent}")
    for metric, value in found["scores"].items():
        typer.echo(f"{metric}  {'undefined' if value is None else f'{value:.2f}'}")
    if found["record"]:
        typer.echo(f"written: {found['record']}")
    if run and not hidden:
        place = "" if results == DEFAULT_RESULTS else f" --results {shlex.quote(str(results))}"
        typer.echo(f"next: {program()} report {config}{place}    shows it in the tables")


@verb(app, "report")
def report(
    config: ExperimentArgument = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    results: ResultsOption = DEFAULT_RESULTS,
    part: Annotated[str, typer.Option("--part", help="tables, figures, examples, page or all.")] = "all",
) -> None:
    """Write the tables, figures and page from the existing records."""
    from harness.experiment.schema import Experiment, as_told
    from harness.reporting import made_from
    from harness.runs.external_arms import with_external_arms
    from harness.runs.locking import remove_leftovers

    parts = ("tables", "figures", "examples", "page")
    if part not in (*parts, "all"):
        raise unknown("part", part, (*parts, "all"))
    experiment = Experiment.load(config, overrides)
    if not results.is_dir():
        raise UserError(f"there is no results folder {results}: pass --results with the one that holds runs/")
    declared, experiment = experiment, with_external_arms(experiment, results)
    if not any(run.folder(results).is_dir() for run in experiment.runs()):
        where = f"{results / 'runs' / experiment.name} holds no run of {config}"
        todo = f"`{run_command(config)}` trains them; --results selects another folder"
        print(f"warning: {where}, so every table is empty: {todo}", file=sys.stderr)
    remove_leftovers(results / "reports" / experiment.name, seconds=3600)
    measured = None
    if part != "examples":
        from harness.reporting.measured import measure

        measured = measure(experiment, results)
    if part in ("tables", "all"):
        from harness.evaluation.frames import write_records
        from harness.reporting.costs.runs import write_runs_table
        from harness.reporting.tables import write_tables

        write_tables(experiment, results, measured)
        write_runs_table(experiment.name, results)
        if next((results / "runs" / experiment.name).rglob("record.json"), None):
            write_records(results / "runs" / experiment.name, results / "reports" / experiment.name)
    if part in ("figures", "all"):
        from harness.reporting.figures import write_figures

        write_figures(experiment, results, measured)
    if part in ("examples", "all"):
        from harness.reporting.examples import write_examples

        write_examples(experiment, results)
    if part in ("page", "all"):
        from harness.reporting.page import write_page

        write_page(experiment, results, measured, told=as_told(config.name, overrides))
    if part == "all":
        made_from.note(declared, results)
    elif not made_from.is_current(declared, results):
        made_from.forget(declared, results)
    typer.echo(f"written: {results / 'reports' / experiment.name}")
    if part == "all":
        from harness.reporting.summary import summary as of_experiment

        typer.echo("\n" + of_experiment(declared, config, results, overrides))


@verb(app, "site")
def site(
    results: Annotated[
        list[Path], typer.Option("--results", help="Results folders; default: those in results/reference.")
    ] = [],  # noqa: B006
    out: Annotated[Path, typer.Option("--out", help="The site's folder.")] = Path("site"),
    figures: Annotated[bool, typer.Option(help="Draw the figures (most of the time).")] = True,
) -> None:
    """Write all committed records as a static site."""
    from harness.reporting.site import write_site

    folders = results or sorted(path.parent for path in (DEFAULT_RESULTS / "reference").glob("*/runs"))
    for folder in folders:
        if not (folder / "runs").is_dir():
            raise UserError(f"there are no runs in {folder}: give a results folder, the one that holds runs/")
    written = write_site(folders, out, DEFAULT_CONFIG.parent, figures)
    typer.echo(f"written: {out / 'index.html'} and {len(written) - 1} more pages")


@verb(app, "summary")
def summary(
    config: ExperimentArgument = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Print an experiment's scores, where its page is, and what to type next."""
    from harness.experiment.schema import Experiment
    from harness.reporting.summary import summary as of_experiment

    typer.echo("\n" + of_experiment(Experiment.load(config, overrides), config, results, overrides))


@verb(app, "stale")
def stale(
    results: ResultsOption = DEFAULT_RESULTS,
    remove: Annotated[bool, typer.Option("--remove", help="Delete them.")] = False,
    keep: Annotated[
        list[Path],
        typer.Option(
            "--keep",
            metavar="EXPERIMENT",
            help="Keep this experiment's runs that are stale only because a method's code changed; tables mark them.",
            **BY_FILE_OR_NAME,
        ),
    ] = [],  # noqa: B006
    overrides: SetOption = [],  # noqa: B006
) -> None:
    """List the runs that were set aside when their method or settings changed, or keep stale ones."""
    from harness.runs import aside

    if keep and remove:
        raise UserError("stale --keep keeps stale runs and --remove deletes those set aside: give one of them")
    if keep:
        from harness.experiment.schema import Experiment

        for path in keep:
            found = aside.keep(Experiment.load(path, overrides), results)
            for run, changed in found.items():
                typer.echo(f"{run}: {'not kept: ' + '; '.join(changed) if changed else 'kept'}")
            typer.echo(f"{sum(not changed for changed in found.values())} of {len(found)} stale runs of {path} kept")
        return
    folders = aside.folders_set_aside(results)
    for folder in folders:
        typer.echo(f"{folder}  {aside.size(folder) / 1e6:,.1f} MB")
        if remove:
            aside.remove(folder)
    state = "removed" if remove else "set aside; stale --remove deletes them"
    typer.echo(f"{plural(len(folders), 'run')} {state}" if folders else f"no run in {results} is set aside")


@verb(app, "new-method")
def new_method(name: Annotated[str, typer.Argument(metavar="NAME", help="Lower case; also the file's name.")]) -> None:
    """Start a method: write a file that already trains, and an experiment that compares it."""
    from harness.experiment.new_method import write_new_method

    method, experiment = write_new_method(name, DEFAULT_CONFIG.parent, DEFAULT_CONFIG)
    method = method.relative_to(Path.cwd()) if method.is_relative_to(Path.cwd()) else method
    typer.echo(f"written: {method} and {experiment}")
    typer.echo(f"next: {run_command(experiment)}    compares it with cross entropy and Contextrast")


@verb(app, "init")
def init(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The project folder; created if needed.")] = Path(),
) -> None:
    """Start a project folder: config/ with the experiments, methods/ for your methods."""
    from harness.experiment.project import write_project

    written = write_project(folder)
    typer.echo(f"written: {len(written)} files in {folder}")
    place = "" if folder == Path() else f"cd {folder}; "
    typer.echo(f"next: {place}contextrast-bench new-method my_loss; contextrast-bench run config/try_my_loss.yaml")


@verb(app, "borrow")
def borrow(
    config: ExperimentArgument = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Copy finished runs with the same settings from other experiments in the results folder."""
    from harness.experiment.schema import Experiment
    from harness.runs.borrowing import borrow_records, refusals

    experiment = Experiment.load(config, overrides)
    found = borrow_records(experiment, results)
    for run, lender in found.items():
        typer.echo(f"{run}: {lender}")
    if not found:
        typer.echo(f"no other experiment in {results} holds a record that {config} lacks")
        for reason, names in refusals(experiment, results).items():
            others = f" and {len(names) - 1} more" if len(names) > 1 else ""
            typer.echo(f"not copied: {names[0]}{others}, since {reason}")


@verb(app, "repeats")
def repeats(
    first: Annotated[Path, typer.Argument(metavar="RESULTS", help="A results folder.")],
    second: Annotated[
        Path, typer.Argument(metavar="RESULTS", help="Another one, with the same runs from another machine.")
    ],
    protocol: Annotated[str, typer.Option("--protocol", help="whole, slide or ms_flip.")] = "whole",
    out: Annotated[Path | None, typer.Option("--out", help="Default: repeats.md in the second's reports.")] = None,
) -> None:
    """Compare the runs that two results folders share: the same seeds on two machines."""
    from harness.reporting.repeats import write_repeats

    for folder in (first, second):
        if not (folder / "runs").is_dir():
            raise UserError(f"there are no runs in {folder}: give a results folder, the one that holds runs/")
    typer.echo(f"written: {write_repeats(first, second, protocol, out or second / 'reports' / 'repeats.md')}")


@verb(app, "refresh")
def refresh(
    documents: Annotated[list[Path], typer.Argument(help="Markdown files with <!-- begin FILE --> blocks.")],
) -> None:
    """Update the tables in documents, such as the README, from the files they come from."""
    from harness.reporting.blocks import refresh as fill

    for document in documents:
        if not document.is_file():
            raise UserError(f"there is no document {document}")
        typer.echo(f"{document}: {'refreshed' if fill(document) else 'up to date'}")


@verb(app, "plan")
def plan(
    config: ExperimentArgument = DEFAULT_CONFIG,
    overrides: SetOption = [],  # noqa: B006
    gpus: Annotated[
        int | None, typer.Option("--gpus", min=1, help="Number of GPUs; default: this machine's, or its CPU cores.")
    ] = None,
    gpu_memory: Annotated[
        float | None,
        typer.Option("--gpu-memory", metavar="GB", min=0, help="Memory of one GPU; default: this machine's."),
    ] = None,
    results: ResultsOption = DEFAULT_RESULTS,
    as_json: JsonOption = False,
) -> None:
    """Show an experiment's runs, which are done, and how long the rest takes."""
    from dataclasses import asdict

    from harness.compute import devices
    from harness.experiment.schema import Experiment
    from harness.runs import planning, sharing

    here = devices.visible()
    gpus = gpus or len(here) or (1 if gpu_memory else 0)
    at_a_time = gpus or devices.cores()
    rows = planning.plan(Experiment.load(config, overrides), results, on_gpu=gpus > 0)
    whole = planning.summary(rows, at_a_time)
    listed: dict[str, Any] = {"runs": [asdict(row) for row in rows], "summary": whole}
    text = ""
    if memory := devices.memory(here) if gpu_memory is None else int(1e9 * gpu_memory):
        left = [row for row in rows if row.status in planning.TO_TRAIN]
        proposal = sharing.propose(left, memory, sharing.cores_each(gpus), planning.times(results))
        listed["sharing"] = asdict(proposal)
        text = sharing.describe(proposal, sum(whole["hours"].values()))
    text = json.dumps(listed, indent=1) if as_json else planning.describe(rows, at_a_time, text, on_gpu=gpus > 0)
    typer.echo(text)


@verb(app, "check-record")
def check_record(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A run's folder, or one that holds several.")],
) -> None:
    """Check records before submission: schema, hashes, scores against counts (docs/submit-results.md)."""
    from harness.checks.records import check_records

    found = check_records(folder)
    for path, problems in found.items():
        typer.echo(f"{path}: {'; '.join(problems) or 'ok'}")
    if any(found.values()):
        raise RunFailed(f"{sum(map(bool, found.values()))} of {len(found)} records have problems")


@verb(app, "status")
def status(
    config: Annotated[
        list[Path],
        experiment_argument("Files, or names in config/; default: those in config/ that have runs."),
    ] = [],  # noqa: B006
    overrides: SetOption = [],  # noqa: B006
    retry: Annotated[
        str | None, typer.Option("--retry", help="failed or diverged: mark these runs to be redone.")
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep updating until nothing runs or waits; Ctrl-C stops.")
    ] = False,
    results: ResultsOption = DEFAULT_RESULTS,
    as_json: JsonOption = False,
) -> None:
    """Show which runs are done, running or failed, and why."""
    from dataclasses import asdict

    from harness.experiment.schema import Experiment
    from harness.runs import status as of_runs

    if overrides and not config:
        raise UserError("--set changes one experiment: name it")
    if watch and as_json:
        raise UserError("--watch shows lines: pass --json without it")
    files = config or [
        path for path in sorted(DEFAULT_CONFIG.parent.glob("*.yaml")) if (results / "runs" / path.stem).is_dir()
    ]
    experiments = [Experiment.load(path, overrides) for path in files or [DEFAULT_CONFIG]]
    rows = of_runs.status_rows(results, experiments)
    if retry:
        print(f"{plural(len(of_runs.retry(results, rows, retry)), 'run')} will start again next time", file=sys.stderr)
    if watch:
        from harness.runs.watching import watch as watch_runs

        watch_runs(results, experiments)
        return
    typer.echo(json.dumps([asdict(row) for row in rows], indent=1) if as_json else of_runs.describe(rows))
