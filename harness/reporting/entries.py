"""Cells of a comparison as entries of a table: mean, standard deviation, runs, gain and interval."""

from harness.comparison import Cell, Spread
from harness.reporting.markup import Entry, points

ABSENT_ENTRY = Entry("–")


def level_text(spread: Spread | None) -> str:
    """Mean and standard deviation over the runs: "61.90 ± 0.42", or "61.90" of a single run; empty without any."""
    if spread is None:
        return ""
    return points(spread.mean) + ("" if spread.sd is None else f" ± {points(spread.sd)}")


def runs_text(cell: Cell) -> str:
    """How many runs there are, and of how many if some are missing: "3", "2 of 3"."""
    return f"{len(cell.values)} of {cell.asked}" if cell.missing else str(len(cell.values))


def interval_text(low: float | None, high: float | None) -> str:
    """An interval in brackets, in points; empty for none. An end that rounds to 0 keeps its sign: "-0.00" holds 0."""
    return "" if low is None or high is None else f"[{low:+.2f}, {high:+.2f}]"


def gain_text(cell: Cell) -> str:
    """The gain over the baseline with its interval: "+0.84 [+0.12, +1.56]", "+0.84" without one; empty for no gain."""
    gain = cell.gain
    return "" if gain is None else f"{points(gain.difference, True)} {interval_text(gain.low, gain.high)}".rstrip()


def arm_entry(name: str, cell: Cell) -> Entry:
    """The arm's `name`, whether it is the baseline, and below it what is wrong with its runs."""
    return Entry(name + (" (baseline)" if cell.is_baseline else ""), detail="; ".join(cell.marks))


def row_entries(name: str, cell: Cell, bold: bool = True) -> list[Entry]:
    """A cell as a row: arm, level, runs, gain. With `bold` a gain is bold whose interval leaves out 0."""
    mean = cell.spread
    if mean is None:
        return [arm_entry(name, cell), hole(cell.status), Entry(runs_text(cell)), ABSENT_ENTRY]
    gain = Entry(
        gain_text(cell) or ("" if cell.is_baseline else "–"),
        strong=bold and cell.excludes_zero,
    )
    return [arm_entry(name, cell), Entry(level_text(mean)), Entry(runs_text(cell)), gain]


def cell_entry(cell: Cell) -> Entry:
    """Level, runs and gain of a cell in one entry, or why it is a hole. Never bold: one of many comparisons."""
    mean = cell.spread
    if mean is None:
        return hole(cell.status)
    return Entry(level_text(mean), f"n {mean.runs}", gain_text(cell))


def hole(text: str) -> Entry:
    """An entry without a number."""
    return Entry(text, hole=True)


def number(value: float | None, sign: bool = False) -> Entry:
    """A number in percent or points, or a dash."""
    return ABSENT_ENTRY if value is None else Entry(points(value, sign))
