"""What a training run says of itself: averages over the iterations between two log points and over the processes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.compute import atomic
from harness.training import distributed


class History:
    """Collects scalars (for curve.csv and diagnostics.npz) and vectors (for diagnostics.npz alone).

    The loss and its terms are noted in every iteration, a method's diagnostics in the last one of a row.

    NaN in a diagnostic means "not defined in this iteration" (no misclassified pixel, say) and is left out of averages.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}

    def add(self, values: dict[str, Tensor]) -> None:
        """Add one iteration's scalars and vectors; they stay on their device until the row is closed."""
        for name, value in values.items():
            value = value.detach().double()
            defined = value.isfinite()
            self._sums[name] = self._sums.get(name, 0) + torch.where(defined, value, 0.0)
            self._counts[name] = self._counts.get(name, 0) + defined

    def close_row(self, iteration: int, learning_rate: float, seconds: float) -> dict[str, Any]:
        """Average what all processes added since the last row and append it; returns the new row."""
        sums, counts = self._of_all_processes()
        means = {name: (sums[name] / counts[name]).tolist() for name in sums}
        row = {"iteration": iteration, "learning_rate": learning_rate, **means, "seconds": seconds}
        self.rows.append(row)
        self._sums, self._counts = {}, {}
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
        """The closed rows, plain values, and what all processes added since: to be saved with the checkpoint."""
        sums, counts = self._of_all_processes()
        return {"history": self.rows, "open_row": {"sums": sums, "counts": counts}}

    def load_state_dict(self, state: dict[str, Any], device: torch.device) -> None:
        """Continue where a checkpoint was, on `device`."""
        self.rows = state["history"]
        opened = state.get("open_row", {"sums": {}, "counts": {}})  # absent before runs could stop inside a row
        mine = 1 if distributed.rank() == 0 else 0  # what was added up stays added up once
        self._sums = {name: tensor.to(device) * mine for name, tensor in opened["sums"].items()}
        self._counts = {name: tensor.to(device) * mine for name, tensor in opened["counts"].items()}

    def _of_all_processes(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        sums, counts = (
            dict(zip(own, distributed.all_sum(list(own.values())), strict=True)) for own in (self._sums, self._counts)
        )
        return sums, counts


def _array(column: list[Any]) -> NDArray[Any]:
    """A column of numbers, or of lists of one length, as an array; in a row that lacks a list it is of NaN."""
    length = next((len(value) for value in column if isinstance(value, list)), None)
    if length is None:
        return np.array(column)
    return np.array([value if isinstance(value, list) else [np.nan] * length for value in column])
