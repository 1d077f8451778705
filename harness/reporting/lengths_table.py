"""Whether a gain lasts, as a table: each number of iterations against the baseline trained as long."""

from collections.abc import Sequence
from pathlib import Path

from harness.comparison import COLUMNS, csv_row
from harness.experiment.schema import Experiment
from harness.reporting.entries import row_entries
from harness.reporting.markup import Entry, Grid
from harness.reporting.measured import Measured
from harness.reporting.names import arm_name, baseline_name
from harness.reporting.notes import facts
from harness.reporting.writing import write_table


def write_lengths(experiment: Experiment, folder: Path, measured: Sequence[Measured]) -> None:
    """Write `folder`/lengths.*: mIoU and gains by number of iterations, for every data set and model.

    By the experiment's first protocol; the figure `schedules` draws the same. Nothing is written for an experiment
    without two lengths to compare.
    """
    grids, lines = [], []
    for each in measured:
        if not each.schedules:
            continue
        rows = []
        for length, cells in each.schedules:
            names = {arm: key for key, arm in length.rivals.items()} | {length.baseline: experiment.baseline}
            for cell in cells:
                row = row_entries(arm_name(experiment, names[cell.arm]), cell, bold=False)
                rows.append([Entry(f"{length.iterations:,}" if cell.is_baseline else ""), *row])
                lines.append([length.iterations, *csv_row(cell)])
        found = [cell for _, cells in each.schedules for cell in cells]
        grids.append(
            Grid(
                name="-".join(["lengths", experiment.name, each.dataset, each.model]),
                title=f"mIoU by length of training: {each.dataset}, {each.model}",
                columns=[("", "iterations"), ("", ""), ("", "mIoU mean ± SD"), ("", "runs"), ("", "gain [95 %]")],
                rows=rows,
                notes=[
                    f"Percent, mean ± SD over seeds; gain in points over {baseline_name(experiment)} trained for as "
                    "many iterations, 95 % interval for all arms of a length at once, though not for all lengths."
                ],
                more=facts(experiment, found),
            )
        )
    if grids:
        write_table(folder / "lengths", grids, ("iterations", *COLUMNS), lines)
