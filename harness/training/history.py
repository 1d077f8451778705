"""What a training run says of itself: averages over the iterations between two log points and over the processes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.compute import atomic
from harness.training import distributed

Layout = tuple[tuple[str, torch.Size], ...]  # names and shapes of values that come together


class History:
    """Collects scalars (for curve.csv and diagnostics.npz) and vectors (for diagnostics.npz alone).

    The trainer adds the loss and its terms in every iteration, and a method's diagnostics in the last one of a row. NaN
    in a diagnostic means "not defined in this iteration" (such as without misclassified pixels); averages leave it out.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        # Sums and numbers of the defined values since the last row, one flat tensor for all that come together: added
        # up one by one they would be a dozen small operations a diagnostic.
        self._open: dict[Layout, tuple[Tensor, Tensor]] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        """Add one iteration's scalars and vectors; they stay on their device until the row is closed."""
        flat = torch.cat([value.detach().double().flatten() for value in values.values()])
        defined = flat.isfinite()
        layout = tuple((name, value.shape) for name, value in values.items())
        sums, counts = self._open.get(layout, (0, 0))
        self._open[layout] = sums + torch.where(defined, flat, 0), counts + defined.double()

    def close_row(self, iteration: int, learning_rate: float, seconds: float) -> dict[str, Any]:
        """Average what all processes added since the last row and append it; returns the new row."""
        sums, counts = self._of_all_processes()
        means = {name: (sums[name] / counts[name]).tolist() for name in sums}
        row = {"iteration": iteration, "learning_rate": learning_rate, **means, "seconds": seconds}
        self.rows.append(row)
        self._open = {}
        return row

    def write(self, folder: Path) -> None:
        """Write curve.csv and diagnostics.npz into `folder`.

        curve.csv: a row a log point, NaN as an empty field. diagnostics.npz: `iteration` [T] and, for every name,
        float64 [T] or, for a vector [n], [T, n]: n is the number of classes, or for names that begin with
        "distance_bins/" and "by_layer/" that of the bins and of the maps. NaN in the rows that lack a name, as those
        before a method's terms count.
        """
        import pandas as pd  # 0.2 s of an evaluation's start, which imports this module and writes no curve

        table = pd.DataFrame(self.rows)
        scalar = [name for name in table if not any(isinstance(value, list) for value in table[name])]
        with atomic.replacing(folder / "curve.csv") as path:
            table[scalar].to_csv(path, index=False)
        with atomic.replacing(folder / "diagnostics.npz") as path:
            np.savez_compressed(
                path, allow_pickle=False, **{str(name): _array(table[name].to_list()) for name in table}
            )

    def state_dict(self) -> dict[str, Any]:
        """The closed rows as plain values, and what all processes added since, for a checkpoint."""
        sums, counts = self._of_all_processes()
        return {"history": self.rows, "open_row": {"sums": sums, "counts": counts}}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Continue from a checkpoint, on `device`."""
        self.rows = state["history"]
        opened = state.get("open_row", {"sums": {}, "counts": {}})  # absent before runs could stop inside a row
        mine = 1 if distributed.rank() == 0 else 0  # one process alone takes over what all of them added
        self._open = {
            ((name, each.shape),): tuple((kind[name].flatten() * mine).double().to(device) for kind in opened.values())
            for name, each in opened["sums"].items()
        }

    def _of_all_processes(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Sums and numbers by name."""
        totals: tuple[dict[str, Tensor], dict[str, Tensor]] = {}, {}
        for layout, added in self._open.items():
            for found, total in zip(totals, distributed.all_sum(list(added)), strict=True):
                for (name, shape), part in zip(
                    layout, total.split([shape.numel() for _, shape in layout]), strict=True
                ):
                    found[name] = found.get(name, 0) + part.view(shape)
        return totals


def _array(column: list[Any]) -> NDArray[Any]:
    """A column of numbers, or of lists of one length, as an array; in a row that lacks a list it is of NaN."""
    length = next((len(value) for value in column if isinstance(value, list)), None)
    if length is None:
        return np.array(column)
    return np.array([value if isinstance(value, list) else [np.nan] * length for value in column])
