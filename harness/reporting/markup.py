"""A table as Markdown, with the same numbers as in LaTeX (`latex`) and on the page."""

import html as entities
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

ABOUT = "About these runs"
DETAILS = "docs/metrics.md"  # a link from the repository's root, in Markdown


@dataclass(frozen=True)
class Entry:
    """A cell of a table: `text`, after it in small print `aside`, and under both `detail`.

    `strong` prints the detail (or, without one, the text) bold. A `hole` has no number: its text says why.
    """

    text: str
    aside: str = ""
    detail: str = ""
    strong: bool = False
    hole: bool = False


@dataclass(frozen=True)
class Grid:
    """A table to print: every row of `rows` has an `Entry` for every one of `columns`, (heading over several, own).

    The first `stubs` columns say what a row is (arm; model and method). `name` is unique among an experiment's tables:
    letters, digits and "-_.+". `more` are facts, folded under the notes. With `fold`, which says why, the
    whole table is folded.
    """

    name: str
    title: str
    columns: list[tuple[str, str]]
    rows: list[list[Entry]]
    notes: list[str]
    stubs: int = 1
    more: list[str] = field(default_factory=list)
    fold: str = ""

    @property
    def full_title(self) -> str:
        """The title, with the heading over the columns if all have the same."""
        return f"{self.title}: {self._overs[0]}" if len(self._overs) == 1 and self._overs[0] else self.title

    @property
    def split(self) -> bool:
        """Whether the headings over the columns differ."""
        return len(self._overs) > 1

    @property
    def _overs(self) -> list[str]:
        return list(dict.fromkeys(over for over, _ in self.columns[self.stubs :]))


def points(value: float, sign: bool = False) -> str:
    """A number in percent or percentage points with two decimals, without a negative zero."""
    return f"{round(value, 2) + 0.0:{'+' if sign else ''}.2f}"


def escape_markdown(text: str) -> str:
    """Text that Markdown, and the HTML made from it, show unchanged, in one line."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", text)


def escape_html(text: str) -> str:
    """Text that HTML shows unchanged, in one line, inside an element or a quoted attribute."""
    return entities.escape(" ".join(text.split()), quote=True)


def markdown(grids: Sequence[Grid]) -> str:
    """The tables one after the other, each with its notes under it."""
    parts = []
    for grid in grids:
        text = _table(grid)
        if grid.more:
            facts = "\n".join(f"- {escape_markdown(fact)}" for fact in grid.more)
            text += f"\n{_folded(ABOUT, facts)}\n"
        if grid.fold:
            text = _folded(f"{grid.full_title} ({grid.fold})", text.rstrip()) + "\n"
        parts.append(text)
    return "\n".join(parts)


def _folded(title: str, text: str) -> str:
    return f"<details><summary>{escape_html(title)}</summary>\n\n{text}\n\n</details>"


def markdown_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], notes: Sequence[str]) -> str:
    """A table of texts, which are escaped here, as Markdown."""
    entries = [[Entry(text) for text in row] for row in rows]
    return markdown([Grid("", title, [("", heading) for heading in headings], entries, list(notes))])


def _table(grid: Grid) -> str:
    """A table under its title, unless it is folded, with its notes under it."""
    headings = [f"{over}: {own}" if over and grid.split else own for over, own in grid.columns]
    lines = [
        *([] if grid.fold else [f"### {escape_markdown(grid.full_title)}", ""]),
        _markdown_row(map(escape_markdown, headings)),
        _markdown_row([":--"] * grid.stubs + ["--:"] * (len(headings) - grid.stubs)),
        *(_markdown_row(map(_markdown_entry, row)) for row in grid.rows),
        "",
        *(f"- {escape_markdown(note).replace(DETAILS, f'[{DETAILS}](/{DETAILS})')}" for note in grid.notes),
    ]
    return "\n".join(lines) + "\n"


def _markdown_row(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"


def _markdown_entry(entry: Entry) -> str:
    text, detail = _escape_interval(entry.text), _escape_interval(entry.detail)
    if entry.strong and detail:
        detail = f"**{detail}**"
    elif entry.strong:
        text = f"**{text}**"
    return text + (f" ({escape_markdown(entry.aside)})" if entry.aside else "") + (f"<br>{detail}" if detail else "")


def _escape_interval(text: str) -> str:
    """Like `escape_markdown`, but an interval's brackets stay as they are: "[-1.00, +0.00]" is no link."""
    if re.fullmatch(r"[-+.\d]* ?\[[-+.\d]+, [-+.\d]+\]", text):
        return text
    return escape_markdown(text)
