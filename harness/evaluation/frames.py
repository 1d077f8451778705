"""Records as data frames."""

from pathlib import Path
from typing import TYPE_CHECKING

from harness.compute import atomic
from harness.errors import UserError
from harness.evaluation.counts import Counts
from harness.runs.record import Record, records_below
from harness.statistics.scores import METRICS

if TYPE_CHECKING:
    import pandas as pd

Scores = dict[str, dict[str, float | None]]


def load_records(folder: str | Path = "results") -> "pd.DataFrame":
    """All runs below `folder`, one row for each run, protocol and metric.

    Columns: experiment, dataset, model, arm, method, seed, status, reason, protocol, metric, score (percent),
    iterations, seconds, gpu_hours, commit, path. A run without scores has one row with NaN as its score. Runs that were
    set aside as stale are skipped. Scores that old records lack are computed from their counts.npz. Raises UserError
    for a folder without records.

    >>> table = load_records("results/reference")
    >>> table[table.metric == "miou"].groupby("arm").score.mean()  # doctest: +SKIP
    """
    import pandas as pd

    rows = []
    for path in records_below(Path(folder)):
        record = Record.load(path)
        shown = ("method", "status", "reason", "iterations", "seconds", "gpu_hours")
        run = record.key.key() | {name: getattr(record, name) for name in shown}
        run |= {"commit": record.provenance and record.provenance.commit, "path": str(path)}
        scores = [
            {"protocol": protocol, "metric": metric, "score": score}
            for protocol, of_protocol in all_scores(record, path.parent).items()
            for metric, score in of_protocol.items()
        ]
        rows += [run | score for score in scores or [{"protocol": None, "metric": None, "score": None}]]
    if not rows:
        raise UserError(f"{folder} holds no record.json: give the folder that your runs were written to")
    first = ["experiment", "dataset", "model", "arm", "method", "seed", "status", "protocol", "metric", "score"]
    table = pd.DataFrame(rows).astype({"score": float})
    return table[first + [name for name in table if name not in first]]


def all_scores(record: Record, folder: Path) -> Scores:
    """The record's scores by protocol; missing ones of `METRICS` are computed from counts.npz, if it can be read."""
    found = {protocol: dict(of_protocol) for protocol, of_protocol in record.scores.items()}
    if all(METRICS.keys() <= of_protocol.keys() for of_protocol in found.values()):
        return found
    try:
        wanted = {(protocol, metric.table) for protocol in found for metric in METRICS.values()}
        tables = Counts.load(folder / "counts.npz", wanted).tables
    except UserError:
        return found
    for protocol in found.keys() & tables.keys():
        for name in METRICS.keys() - found[protocol].keys():
            if (table := tables[protocol].get(METRICS[name].table)) is not None:
                value = float(METRICS[name].score(table.sum(0), record.absent))
                found[protocol][name] = None if value != value else value
    return found


def write_records(runs: Path, folder: Path) -> None:
    """Write `load_records(runs)` as `folder`/records.csv and, if pyarrow is installed, as records.parquet."""
    from importlib.util import find_spec

    table = load_records(runs)
    atomic.write_text(folder / "records.csv", table.to_csv(index=False))
    if find_spec("pyarrow"):
        with atomic.replacing(folder / "records.parquet") as path:
            table.to_parquet(path, index=False)
