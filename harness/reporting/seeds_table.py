"""How many seeds an experiment needs: the gain that it would see, by the noise that was measured."""

from collections.abc import Sequence
from math import inf
from pathlib import Path

import numpy as np

from harness.comparison import Cell
from harness.experiment.schema import Experiment
from harness.reporting.markup import Entry, Grid, points
from harness.reporting.measured import Measured
from harness.reporting.writing import write_table
from harness.statistics.interval import foreseen, pooled_variance

COLUMNS = ("dataset", "model", "protocol", "arms", "runs", "baseline_runs", "gain_seen", "sd_of_seeds", "sd_of_images")
RUNS = ((2, 4), (3, 6), (5, 10), (10, 20), (20, 40), (inf, inf))


def write_seeds(experiment: Experiment, folder: Path, measured: Sequence[Measured]) -> None:
    """Write `folder`/seeds.*: for every data set and model, by the first protocol, what so many runs would see.

    Where no interval is there, nothing is known of the noise; without any, nothing is written.
    """
    protocol = experiment.protocols[0]
    grids, lines = [], []
    for each in measured:
        cells = [cell for cell in each.region if cell.protocol == protocol]
        noise = _noise(cells)
        if noise is None:
            continue
        variance, images = noise
        arms = sum(cell.gain is not None and cell.gain.low is not None for cell in cells)
        seen = [foreseen(variance, images, arms, runs, baseline) for runs, baseline in RUNS]
        key = (each.dataset, each.model, protocol)
        deviations = (variance**0.5, images**0.5)
        lines += [[*key, arms, *runs, gain, *deviations] for runs, gain in zip(RUNS, seen, strict=True)]
        grids.append(
            Grid(
                name="-".join(["seeds", experiment.name, *key]),
                title=f"What so many runs see: {each.dataset}, {each.model}",
                columns=[("", "runs of an arm"), ("", "runs of the baseline"), ("", "gain seen in four of five cases")],
                rows=[
                    [
                        *(Entry("any number" if one == inf else f"{one:g}") for one in runs),
                        Entry(points(gain)),
                    ]
                    for runs, gain in zip(RUNS, seen, strict=True)
                ],
                notes=[
                    f"True gain in points of mIoU whose interval leaves out 0 in four of five experiments with {arms} "
                    f"arms. Standard deviation over seeds {points(deviations[0])} points; of a gain over test sets "
                    f"{points(deviations[1])}, which no number of seeds takes away.",
                ],
            )
        )
    if grids:
        write_table(folder / "seeds", grids, COLUMNS, lines)


def _noise(cells: Sequence[Cell]) -> tuple[float, float] | None:
    """The variance of a run over seeds, and the mean variance of a gain over test sets; None without intervals."""
    images = [cell.gain.images for cell in cells if cell.gain and cell.gain.images is not None]
    if not images:
        return None
    variance, _ = pooled_variance([np.array(list(cell.values.values())) for cell in cells])
    return variance, float(np.mean(images))
