"""Files of a table."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.compute import atomic
from harness.reporting.latex import latex
from harness.reporting.markup import Grid, markdown


def write_table(
    path: Path, grids: Sequence[Grid], header: Sequence[str], rows: Iterable[Sequence[object]], empty: str = ""
) -> None:
    """Write a table as `path`.csv (long, every digit), .md and .tex, the same numbers rounded for reading."""
    atomic.write_text(path.with_suffix(".csv"), csv_text(header, rows))
    atomic.write_text(path.with_suffix(".md"), markdown(grids) or empty)
    atomic.write_text(path.with_suffix(".tex"), latex(grids))


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV; floats with every digit, None as an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()
