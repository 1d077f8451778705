"""`make bench-gpu`: measures this project's speed on a GPU within a time limit, the most valuable pieces first.

Every piece's result is written at once to results/cost/gpu/DEVICE.json, so that nothing is lost if the command is
killed; the next call measures what is missing. At the end it prints a table of all pieces with their goals and writes
it into docs/performance.md. `--device cpu` is a dry run at tiny sizes, in .benchmarks/dry.
"""

import argparse
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import gpu_table
from benchmarks.gpu_record import Piece, Record
from harness.errors import UserError
from harness.reporting.blocks import refresh

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
PARTING = 3.0  # seconds kept for the table


class _TimeUp(BaseException):
    """The time is over. Not an Exception, so that it is not recorded as a piece's failure."""


def work(pieces: list[Piece], record: Record, commit: str | None, until: float) -> None:
    """Measure the missing pieces that fit before `until` (time.monotonic), and print each result."""
    for piece in record.missing(pieces):
        left = until - time.monotonic()
        if left < piece.seconds:
            print(f"{piece.name}: left for the next call ({left:.0f} s left)", file=sys.stderr, flush=True)
            continue
        start = time.monotonic()
        found: dict[str, Any]
        try:
            found = {"measured": piece.measure()}
        except Exception as error:
            traceback.print_exc()
            found = {"failed": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
        spent = round(time.monotonic() - start, 1)
        found |= {"seconds": spent, "at": datetime.now(UTC).isoformat(timespec="seconds"), "commit": commit}
        record.note(piece.name, found)
        result = gpu_table.one_line(piece.name, found)
        print(f"{piece.name}: {result} ({spent} s)", file=sys.stderr, flush=True)


@contextmanager
def at_most(until: float) -> Iterator[None]:
    """Interrupt the block at the time `until` (time.monotonic) and at SIGTERM."""

    def end(*_: object) -> None:
        raise _TimeUp

    before = {number: signal.signal(number, end) for number in (signal.SIGALRM, signal.SIGTERM)}
    signal.setitimer(signal.ITIMER_REAL, max(0.001, until - time.monotonic()))
    try:
        yield
    except _TimeUp:
        print("the time is over", file=sys.stderr, flush=True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--minutes", type=float, default=6.0, help="time limit, including start-up")
    parser.add_argument("--results", type=Path, help="default: results, or .benchmarks/dry for a dry run")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: a dry run at tiny sizes")
    parser.add_argument("--only", default="", metavar="TEXT", help="only pieces whose names contain this")
    parser.add_argument("--fresh", action="store_true", help="repeat earlier measurements")
    parser.add_argument("--table", action="store_true", help="only write the table of earlier measurements")
    parser.add_argument("--page", type=Path, default=PAGE, help="the document that gets the table")
    given = parser.parse_args(arguments)
    results = given.results or Path("results" if given.device == "cuda" else ".benchmarks/dry")
    until = time.monotonic() + 60 * given.minutes - PARTING
    if not given.table:
        with at_most(until):
            from benchmarks import gpu_pieces  # brings torch, which takes seconds

            bench = gpu_pieces.Bench(given.device, results)
            record = Record(bench.path, bench.head(), given.fresh)
            pieces = [piece for piece in bench.pieces() if given.only in piece.name]
            work(pieces, record, bench.commit, until)
    table = gpu_table.write(results)
    print(table.read_text(encoding="utf-8"))
    if given.page.parent.joinpath("../results").resolve() == results.resolve():
        refresh(given.page)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
