"""The training curve and diagnostics: averages over the iterations between two log points and over all ranks."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.compute import atomic
from harness.training import distributed

Layout = tuple[tuple[str, torch.Size], ...]  # names and shapes of values that are added together


class History:
    """Collects scalars (for curve.csv and diagnostics.npz) and vectors (for diagnostics.npz only).

    The trainer adds the loss and its terms in every iteration, and a method's diagnostics in the last iteration of each
    row. NaN in a diagnostic means "undefined in this iteration" (no misclassified pixels, say); averages skip it.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        # Sums and counts of the defined values since the last row, flattened into one tensor: adding them one by one
        # would take a dozen small operations per diagnostic.
        self._open: dict[Layout, tuple[Tensor, Tensor]] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        """Add one iteration's scalars and vectors. They stay on their device until the row is closed."""
        flat = torch.cat([value.detach().double().flatten() for value in values.values()])
        defined = flat.isfinite()
        layout = tuple((name, value.shape) for name, value in values.items())
        sums, counts = self._open.get(layout, (0, 0))
        self._open[layout] = sums + torch.where(defined, flat, 0), counts + defined.double()

    def close_row(self, iteration: int, learning_rate: float, seconds: float) -> dict[str, Any]:
        """Append the averages of all that was added on any rank since the last row; returns the new row."""
        sums, counts = self._of_all_processes()
        means = {name: (sums[name] / counts[name]).tolist() for name in sums}
        row = {"iteration": iteration, "learning_rate": learning_rate, **means, "seconds": seconds}
        self.rows.append(row)
        self._open = {}
        return row

    def write(self, folder: Path) -> None:
        """Write curve.csv and diagnostics.npz into `folder`.

        curve.csv: one row per log point, NaN as an empty field. diagnostics.npz: `iteration` [T] and, for every name,
        float64 [T] or, for a vector [n], [T, n]; n is the number of classes, or of bins ("distance_bins/...") or maps
        ("by_layer/..."). Rows without a value (those before a method's terms count, say) are NaN.
        """
        import pandas as pd  # not at module level: 0.2 s that an evaluation, which writes no curve, would pay too

        table = pd.DataFrame(self.rows)
        scalar = [name for name in table if not any(isinstance(value, list) for value in table[name])]
        with atomic.replacing(folder / "curve.csv") as path:
            table[scalar].to_csv(path, index=False)
        with atomic.replacing(folder / "diagnostics.npz") as path:
            np.savez_compressed(
                path, allow_pickle=False, **{str(name): _array(table[name].to_list()) for name in table}
            )

    def state_dict(self) -> dict[str, Any]:
        """The closed rows and the sums that all ranks added since, for a checkpoint."""
        sums, counts = self._of_all_processes()
        return {"history": self.rows, "open_row": {"sums": sums, "counts": counts}}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Continue from a checkpoint, on `device`."""
        self.rows = state["history"]
        opened = state.get("open_row", {"sums": {}, "counts": {}})  # missing in old checkpoints
        mine = 1 if distributed.rank() == 0 else 0  # rank 0 takes over the sums of all ranks
        self._open = {
            ((name, each.shape),): tuple((kind[name].flatten() * mine).double().to(device) for kind in opened.values())
            for name, each in opened["sums"].items()
        }

    def _of_all_processes(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Sums and counts over all ranks, by name."""
        totals: tuple[dict[str, Tensor], dict[str, Tensor]] = {}, {}
        for layout, added in self._open.items():
            for found, total in zip(totals, distributed.all_sum(list(added)), strict=True):
                for (name, shape), part in zip(
                    layout, total.split([shape.numel() for _, shape in layout]), strict=True
                ):
                    found[name] = found.get(name, 0) + part.view(shape)
        return totals


def _array(column: list[Any]) -> NDArray[Any]:
    """A column of numbers, or of lists of equal length, as an array; a missing list becomes NaNs."""
    length = next((len(value) for value in column if isinstance(value, list)), None)
    if length is None:
        return np.array(column)
    return np.array([value if isinstance(value, list) else [np.nan] * length for value in column])
