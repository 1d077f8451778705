"""Verbs that count and measure the cost of methods."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from harness.cli.common import (
    DEFAULT_RESULTS,
    DeviceOption,
    JsonOption,
    ResultsOption,
    RootOption,
    ThreadsOption,
    app,
    experiment_argument,
    refuse_without_model,
)
from harness.cli.verbs import verb
from harness.config import read_size


@verb(app, "cost")
def cost(
    context: typer.Context,
    model: Annotated[
        list[str], typer.Option("--model", help="Repeatable; default: all models, as a table in the results folder.")
    ] = [],  # noqa: B006
    size: Annotated[str, typer.Option("--size", metavar="HEIGHTxWIDTH", help="Image size in pixels.")] = "512x1024",
    dataset: Annotated[str, typer.Option("--dataset", help="Sets the number of classes.")] = "cityscapes",
    results: ResultsOption = DEFAULT_RESULTS,
    as_json: JsonOption = False,
) -> None:
    """Count parameters and operations of models and methods; without --model, write the cost table."""
    if not model:
        refuse_without_model(context)
        from harness.experiment.schema import Experiment
        from harness.reporting.costs.networks import write_cost_table

        typer.echo(f"written: {write_cost_table(Experiment.load(Path('config/paper.yaml')), results)}")
        return
    from harness.cli.tables import print_table
    from harness.cost.complexity import cost_rows

    rows = cost_rows(model, read_size(size), dataset)
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    millions = {"inference": "inference_parameters", "method": "method_parameters", "training": "training_parameters"}
    headings = ("model", "method", *(f"{name} M" for name in millions), "GMACs")
    cells = (
        (row["model"], row["method"], *(f"{row[key] / 1e6:.2f}" for key in millions.values()), f"{row['gmacs']:.2f}")
        for row in rows
    )
    print_table(headings, cells, right=headings[2:])
    typer.echo(f"\nParameters in millions; multiply-adds of one {size} image at inference. Every digit: --json")


@verb(app, "latency")
def latency(
    context: typer.Context,
    model: Annotated[
        list[str], typer.Option("--model", help="Repeatable; without it, only write the table again.")
    ] = [],  # noqa: B006
    size: Annotated[str, typer.Option("--size", metavar="HEIGHTxWIDTH", help="Image size in pixels.")] = "512x1024",
    dataset: Annotated[str, typer.Option("--dataset", help="Sets the number of classes.")] = "cityscapes",
    mode: Annotated[list[str], typer.Option("--mode", help="graph, single_stream or offline; default: all.")] = [],  # noqa: B006
    method: Annotated[list[str], typer.Option("--method", help="Repeatable; default: all.")] = [],  # noqa: B006
    baseline: Annotated[
        str, typer.Option("--baseline", help="The method that the others are compared with.")
    ] = "cross_entropy",
    batch: Annotated[
        int | None, typer.Option("--batch", min=1, help="Batch size of offline; default: the largest that fits.")
    ] = None,
    precision: Annotated[
        list[str],
        typer.Option("--precision", help="float32 or bfloat16, repeatable; default: float32, and on a GPU both."),
    ] = [],  # noqa: B006
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Use the channels-last memory layout.")
    ] = False,
    compiled: Annotated[bool, typer.Option("--compile", help="Use torch.compile.")] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Time the inference network of every method and write the table. Nothing else should run at the same time."""
    from harness.compute.machine import Machine
    from harness.cost.latency import measure_latency
    from harness.reporting.costs.measured import write_latency_table

    if not model:
        refuse_without_model(context)
    options: dict[str, Any] = {"dataset": dataset, "modes": mode or None, "baseline": baseline, "batch": batch}
    options |= {"methods": method or None, "channels_last": channels_last, "compiled": compiled}
    machine = Machine(device, threads=threads, alone=True)
    for name in model:
        for each in precision or (["float32", "bfloat16"] if machine.use().type == "cuda" else ["float32"]):
            measure_latency(name, read_size(size), machine, results, **options | {"precision": each})
    typer.echo(f"written: {write_latency_table(results)}")


@verb(app, "overhead")
def overhead(
    context: typer.Context,
    model: Annotated[
        list[str], typer.Option("--model", help="Repeatable; without it, only write the table again.")
    ] = [],  # noqa: B006
    size: Annotated[str, typer.Option("--size", metavar="HEIGHTxWIDTH", help="Crop size in pixels.")] = "512x1024",
    dataset: Annotated[str, typer.Option("--dataset", help="Sets the number of classes.")] = "cityscapes",
    batch: Annotated[int, typer.Option("--batch", min=1, help="Images per step.")] = 8,
    method: Annotated[list[str], typer.Option("--method", help="Repeatable; default: all.")] = [],  # noqa: B006
    baseline: Annotated[
        str, typer.Option("--baseline", help="The method that the others are compared with.")
    ] = "cross_entropy",
    precision: Annotated[str, typer.Option("--precision", help="float32 or bfloat16.")] = "float32",
    rounds: Annotated[int | None, typer.Option("--rounds", min=5, help="Rounds; each times every method once.")] = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Measure what every method adds to the time and memory of a training step, and write the table."""
    from harness.compute.machine import Machine
    from harness.cost.overhead import measure_overhead
    from harness.reporting.costs.measured import write_training_table

    if not model:
        refuse_without_model(context)
    options: dict[str, Any] = {"dataset": dataset, "batch": batch, "baseline": baseline, "methods": method or None}
    options |= {"precision": precision, "rounds": rounds}
    for name in model:
        measure_overhead(name, read_size(size), Machine(device, threads=threads, alone=True), results, **options)
    typer.echo(f"written: {write_training_table(results)}")


@verb(app, "equal-compute")
def equal_compute(
    config: Annotated[Path, experiment_argument("A file, or a name in config/; the ratios are written into it.")],
    root: RootOption = None,
    weights: Annotated[str, typer.Option("--weights", help="As for train; none: from scratch.")] = "auto",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    dry: Annotated[bool, typer.Option("--dry", help="Measure and print, but leave the file alone.")] = False,
    results: ResultsOption = DEFAULT_RESULTS,
) -> None:
    """Measure the step times behind every arm with compute_of, and write their ratios into the experiment file."""
    from harness.compute.machine import Machine
    from harness.cost.equal_compute import fill_in, measure
    from harness.experiment.schema import Experiment

    experiment = Experiment.load(config)
    roots = {} if root is None else dict.fromkeys(experiment.datasets, root)
    ratios = measure(experiment, Machine(device, threads=threads), results, roots=roots, weights=weights)
    for arm, measured in ratios.items():
        for pair, ratio in measured.items():
            typer.echo(f"{arm}: a step of {experiment.arms[arm].compute_of} takes {ratio:.3f} times as long on {pair}")
    if not dry:
        fill_in(config, ratios)
