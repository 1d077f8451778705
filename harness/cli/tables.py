"""Tables on the screen: fitted to the terminal and coloured, or one plain line per row in a pipe or a file."""

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

UNBOUNDED = 100_000  # columns when the output is no terminal


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[str] = ()) -> None:
    """Print rows under bold headings, with the first column in colour. right: headings of right-aligned columns.

    rich decides on colours by NO_COLOR and the terminal.
    """
    console = Console()
    if not console.is_terminal:
        console = Console(width=UNBOUNDED)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for place, heading in enumerate(headings):
        style = "cyan" if place == 0 else None
        table.add_column(heading, justify="right" if heading in right else "left", style=style, no_wrap=place == 0)
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row))
    with console.capture() as capture:
        console.print(table)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))
