"""A table's cells as text, in Markdown and in LaTeX: the same numbers in both."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.reporting.records import Cell, display_name

LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    **{character: "\\" + character for character in "&%$#_"},
}


@dataclass(frozen=True)
class Grid:
    """A table to print: `columns` are (heading over several, own heading), `rows` are arms with a cell a column."""

    name: str
    title: str
    columns: list[tuple[str, str]]
    rows: list[list[Cell]]
    notes: list[str]


def points(value: float, sign: bool = False) -> str:
    """A number in percent or percentage points with two decimals, without a negative zero."""
    return f"{round(value, 2) + 0.0:{'+' if sign else ''}.2f}"


def range_text(cell: Cell) -> str:
    """The range over seeds and their number: "61.90 to 62.80, n 3", or "n 1"."""
    spread = cell.spread
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


def row_name(cell: Cell) -> str:
    """The arm's name, and whether it is the baseline."""
    return display_name(cell.arm) + (" (baseline)" if cell.is_baseline else "")


def escape_markdown(text: str) -> str:
    """Text that Markdown, and the HTML that it becomes, show as it is, in one line."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", text)


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is, in one line."""
    return "".join(LATEX.get(character, character) for character in " ".join(text.split()))


def markdown(grids: Sequence[Grid]) -> str:
    """The tables one after the other, each with its notes under it."""
    parts = []
    for grid in grids:
        single = len({over for over, _ in grid.columns}) == 1
        headings = [own if single else f"{over}: {own}" for over, own in grid.columns]
        rows = [[escape_markdown(row_name(row[0])), *map(_markdown_cell, row)] for row in grid.rows]
        title = f"{grid.title}: {grid.columns[0][0]}" if single else grid.title
        parts.append(markdown_table(title, ["", *headings], rows, grid.notes))
    return "\n".join(parts)


def markdown_table(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    """A table under its title, with its notes under it; the cells of `rows` are already escaped."""
    lines = [
        f"### {escape_markdown(title)}",
        "",
        _markdown_row([escape_markdown(heading) for heading in headings]),
        _markdown_row([":--"] + ["--:"] * (len(headings) - 1)),
        *map(_markdown_row, rows),
        "",
        *(f"- {escape_markdown(note)}" for note in notes),
    ]
    return "\n".join(lines) + "\n"


def latex(grids: Sequence[Grid]) -> str:
    """The tables one after the other, each with its notes under it, for booktabs."""
    return "% needs \\usepackage{booktabs}\n" + "\n".join(map(_latex_table, grids))


def _markdown_row(texts: Sequence[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _markdown_cell(cell: Cell) -> str:
    spread = cell.spread
    if spread is None:
        return escape_markdown(cell.status)
    difference = difference_text(cell)
    if cell.verdict:
        difference = f"**{difference}**"
    return f"{points(spread.mean)} ({range_text(cell)})" + (f"<br>{difference}" if difference else "")


def _latex_table(grid: Grid) -> str:
    overs = list(dict.fromkeys(over for over, _ in grid.columns))
    title = grid.title if len(overs) > 1 else f"{grid.title}: {overs[0]}"
    lines = [
        r"\begin{table*}",
        r"\centering",
        rf"\caption{{{escape_latex(title)}}}",
        rf"\label{{tab:{grid.name}}}",
        rf"\begin{{tabular}}{{l{'c' * len(grid.columns)}}}",
        r"\toprule",
    ]
    if len(overs) > 1:
        spans, rules, start = [], [], 2
        for over in overs:
            width = sum(each == over for each, _ in grid.columns)
            spans.append(rf"\multicolumn{{{width}}}{{c}}{{{escape_latex(over)}}}")
            rules.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
            start += width
        lines += [_latex_row(["", *spans]), " ".join(rules)]
    lines += [_latex_row(["", *(escape_latex(own) for _, own in grid.columns)]), r"\midrule"]
    for number, row in enumerate(grid.rows):
        lines += [r"\addlinespace"] if number else []
        lines.append(_latex_row([escape_latex(row_name(row[0])), *map(_latex_mean, row)]))
        small: tuple[Callable[[Cell], str], ...] = (range_text, _latex_difference)
        for text in small:
            texts = [text(cell) for cell in row]
            if any(texts):
                lines.append(_latex_row(["", *(rf"\scriptsize {each}" if each else "" for each in texts)]))
    lines += [
        r"\bottomrule",
        r"\end{tabular}",
        r"\par\smallskip",
        r"\begin{minipage}{\textwidth}\footnotesize",
        *map(escape_latex, grid.notes),
        r"\end{minipage}",
        r"\end{table*}",
    ]
    return "\n".join(lines) + "\n"


def _latex_row(texts: Sequence[str]) -> str:
    return " & ".join(texts) + r" \\"


def _latex_mean(cell: Cell) -> str:
    return points(cell.spread.mean) if cell.spread else rf"\textit{{{escape_latex(cell.status)}}}"


def _latex_difference(cell: Cell) -> str:
    text = difference_text(cell).replace("-", "$-$")
    return rf"\textbf{{{text}}}" if cell.verdict else text
