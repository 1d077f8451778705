"""Cells of records as entries of a table: mean, range, number of seeds, difference and interval."""

from collections.abc import Sequence

from harness.reporting.markup import Entry, points
from harness.reporting.records import Cell, display_name
from harness.statistics.comparison import Spread
from harness.statistics.pooled import Bounds

ABSENT_ENTRY = Entry("–")


def range_text(spread: Spread | None) -> str:
    """The range over seeds and their number: "61.90 to 62.80, n 3", or "n 1"; empty without any."""
    if spread is None:
        return ""
    spanned = f"{points(spread.low)} to {points(spread.high)}, " if spread.seeds > 1 else ""
    return f"{spanned}n {spread.seeds}"


def difference_text(cell: Cell) -> str:
    """The difference to the baseline with its interval: "+0.84 [+0.12, +1.56]"; empty without one."""
    interval = cell.interval
    if interval is None:
        return "no pair" if cell.values and not cell.is_baseline else ""
    if interval.low is None or interval.high is None:
        return f"{points(interval.difference, True)}, no interval"
    between = f"{points(interval.low, True)}, {points(interval.high, True)}"
    return f"{points(interval.difference, True)} [{between}]"


def arm_entry(cell: Cell) -> Entry:
    """The arm's name, and whether it is the baseline."""
    return Entry(display_name(cell.arm) + (" (baseline)" if cell.is_baseline else ""))


def cell_entry(cell: Cell) -> Entry:
    """Mean, range, seeds and difference of a cell, or why it is a hole; bold where it is outside the noise."""
    mean = cell.spread
    if mean is None:
        return hole(cell.status, cell.note)
    return Entry(points(mean.mean), range_text(mean), difference_text(cell), mean.mean, cell.verdict, note=cell.note)


def bounds_text(bounds: Bounds) -> str:
    """A difference with its pooled interval: "+0.84 [+0.12, +1.56]"."""
    return f"{points(bounds.difference, True)} [{points(bounds.low, True)}, {points(bounds.high, True)}]"


def bounds_entry(bounds: Bounds | None) -> Entry:
    """A difference with its pooled interval and its number of seeds, bold where the interval leaves out 0."""
    if bounds is None:
        return ABSENT_ENTRY
    return Entry(bounds_text(bounds), f"n {bounds.seeds}", value=bounds.difference, strong=bounds.excludes_zero)


def hole(text: str, why: str = "") -> Entry:
    """An entry without a number."""
    return Entry(text, kind="hole", note=why)


def number(value: float | None, sign: bool = False) -> Entry:
    """A number in percent or points, or a dash."""
    return ABSENT_ENTRY if value is None else Entry(points(value, sign), value=value)


def stubs(texts: Sequence[str]) -> list[Entry]:
    """What says what a row is."""
    return [Entry(text) for text in texts]
