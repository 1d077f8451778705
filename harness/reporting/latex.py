"""A table as LaTeX for booktabs: in parts that fit a page, and scaled to its width if nothing else helps."""

import re
import textwrap
from collections.abc import Sequence
from itertools import groupby, zip_longest

from harness.reporting.markup import Entry, Grid

ESCAPED = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "±": r"\ensuremath{\pm}",
    **{character: "\\" + character for character in "&%$#_"},
}
PACKAGES = r"% needs \usepackage{booktabs,graphicx}"
# A page of the class article, in letter format and at 10 points, is taken as what a table must fit.
LETTERS = 69  # across one column
SMALL = 0.7  # of a letter, what a small one takes
BETWEEN = 2.4  # letters, between two columns
WRAPPED = 18  # letters, at which words are wrapped in a wide table
LINES = 38.0  # besides caption and headings
SPACE = 0.5  # lines, between rows
NOTE_LETTERS, NOTE_LINES = 84, 0.8  # a line of notes, in letters, and what it takes
FLOATS = 40  # that wait for a page without being asked

Lines = list[str]


def latex(grids: Sequence[Grid]) -> str:
    """The tables one after the other, each with its notes under it. What is too tall for a page goes on in the next."""
    tables = [table for grid in grids for table in _tables(grid)]
    head = [PACKAGES]
    if len(tables) > FLOATS:
        head.append(rf"\extrafloats{{{len(tables)}}}")
    return "\n".join(head) + "\n" + "\n".join(tables)


def escape_latex(text: str) -> str:
    """Text that LaTeX prints unchanged, in one line."""
    return "".join(ESCAPED.get(character, character) for character in " ".join(text.split()))


def _tables(grid: Grid) -> list[str]:
    wide = _width(grid) > LETTERS
    rows = [_row_lines(row, wide) for row in grid.rows]
    notes = NOTE_LINES * -(-sum(len(note) + 1 for note in [*grid.notes, *grid.more]) // NOTE_LETTERS)
    parts = _parts([len(lines) + SPACE for lines in rows], notes)
    found = []
    for number, part in enumerate(parts):
        body = _headings(grid, wide) + _body([rows[place] for place in part])
        found.append(_float(grid, body, first=number == 0, last=number == len(parts) - 1, wide=wide))
    return found


def _parts(costs: Sequence[float], notes: float) -> list[list[int]]:
    """Which rows, of so many lines each, go together on a page; the last ones with the notes."""
    parts: list[list[int]] = [[]]
    for row, cost in enumerate(costs):
        if parts[-1] and sum(costs[each] for each in parts[-1]) + cost > LINES:
            parts.append([])
        parts[-1].append(row)
    last, kept = parts[-1], notes
    for count, row in enumerate(reversed(last)):
        kept += costs[row]
        if kept > LINES and count > 0:
            return [*parts[:-1], last[:-count], last[-count:]]
    return parts


def _width(grid: Grid) -> float:
    """About how many letters go across a table whose headings alone are wrapped."""
    total = 0.0
    for column, (_, own) in enumerate(grid.columns):
        lengths = [len(word) for word in own.split()]
        for row in grid.rows:
            entry = row[column]
            lengths += [len(entry.text), *(round(SMALL * len(text)) for text in (entry.aside, entry.detail))]
        total += max(lengths, default=0) + BETWEEN
    return total


def _float(grid: Grid, body: Lines, first: bool, last: bool, wide: bool) -> str:
    layout = "l" * grid.stubs + "c" * (len(grid.columns) - grid.stubs)
    title = escape_latex(grid.full_title) + ("" if first else " (continued)")
    lines = [r"\begin{table*}", r"\centering", rf"\caption{{{title}}}"]
    lines += [rf"\label{{tab:{grid.name}}}"] if first else []
    lines += [r"\setlength{\tabcolsep}{4pt}"] if wide else []
    lines += [
        r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{layout}}}",
        r"\toprule",
        *body,
        r"\bottomrule",
        r"\end{tabular}}",
    ]
    if last:
        notes = map(escape_latex, [*grid.notes, *grid.more])
        lines += [r"\par\smallskip", r"\begin{minipage}{\textwidth}\footnotesize", *notes, r"\end{minipage}"]
    return "\n".join([*lines, r"\end{table*}"]) + "\n"


def _headings(grid: Grid, wide: bool) -> Lines:
    lines: Lines = []
    if grid.split:
        spans, rules, start = [], [], 1
        for over, columns in groupby(over for over, _ in grid.columns):
            count = len(list(columns))
            text = _stacked(over, WRAPPED // 2 * count, wide)
            spans.append(rf"\multicolumn{{{count}}}{{c}}{{{text}}}" if over else " & ".join([""] * count))
            rules += [rf"\cmidrule(lr){{{start}-{start + count - 1}}}"] if over else []
            start += count
        lines += [_row(spans), " ".join(rules)]
    cells = [[len(row[column].text) for row in grid.rows] for column in range(len(grid.columns))]
    own = [_stacked(own, max([8, *lengths]), wide) for (_, own), lengths in zip(grid.columns, cells, strict=True)]
    return [*lines, _row(own), r"\midrule"]


def _body(rows: Sequence[Lines]) -> Lines:
    lines: Lines = []
    for number, row in enumerate(rows):
        lines += [r"\addlinespace", *row] if number else row
    return lines


def _row_lines(row: Sequence[Entry], wide: bool) -> Lines:
    """A row's lines: of every cell its text, and below it in small print its aside and its detail."""
    cells = []
    for column, entry in enumerate(row):
        # The first column stays in one line: it is what a row begins with.
        texts = [_text(entry, part) for part in _wrapped(entry.text, wide and column > 0)]
        asides = entry.aside.split(", ") if wide else [entry.aside]
        details = re.split(r" (?=\[)", entry.detail) if wide else [entry.detail]
        small = [_strong(text, False) for text in asides if text]
        small += [_strong(text, entry.strong) for text in details if text]
        cells.append([*texts, *(rf"\scriptsize {text}" for text in small)])
    return [_row(line) for line in zip_longest(*cells, fillvalue="")]


def _wrapped(text: str, wide: bool) -> list[str]:
    """Lines of a cell's text; an interval in brackets stays in one."""
    if not wide:
        return [text]
    kept = re.sub(r"\[[^]]*\]", lambda brackets: brackets[0].replace(" ", "\xa0"), text)
    return [line.replace("\xa0", " ") for line in textwrap.wrap(kept, WRAPPED, break_long_words=False)] or [""]


def _stacked(text: str, letters: int, wide: bool) -> str:
    """A heading over lines of so many letters, in a wide table."""
    lines = textwrap.wrap(text, letters, break_long_words=False) if wide else [text]
    stacked = r"\\".join(map(escape_latex, lines))
    return rf"\shortstack{{{stacked}}}" if len(lines) > 1 else stacked


def _row(texts: Sequence[str]) -> str:
    guard = "{}" if texts[0].startswith(("[", "*")) else ""  # of the \\ before it these would be arguments
    return guard + " & ".join(texts) + r" \\"


def _text(entry: Entry, text: str) -> str:
    if entry.hole:
        return rf"\textit{{{escape_latex(text)}}}"
    return _strong(text, entry.strong and not entry.detail)


def _strong(text: str, strong: bool) -> str:
    text = re.sub(r"(?<![\w.])-(?=\d)", "$-$", escape_latex(text))  # a minus, not a hyphen
    return rf"\textbf{{{text}}}" if strong else text
