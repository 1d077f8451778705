"""Writes the results of `make bench` as tables in results/reports/cost: `python -m benchmarks.cpu_table FILE`.

FILE is pytest-benchmark's (--benchmark-json). The tables' text comes from the benchmarks' own docstrings.
"""

import ast
import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from harness.compute import atomic
from harness.cost.conditions import machine_name
from harness.errors import UserError
from harness.reporting.markup import markdown_table

REPOSITORY = Path(__file__).parents[1]


def write_benchmark_tables(measured: Path, results: Path, repository: Path = REPOSITORY) -> Path:
    """Write `results`/reports/cost/benchmarks.md, with one table per benchmark file, and return its path.

    `measured`: pytest-benchmark's JSON; its host name is left out. Raises UserError if it is missing or damaged.
    """
    try:
        content = json.loads(measured.read_text(encoding="utf-8"))
        benchmarks, version = content["benchmarks"], content["machine_info"]["python_version"]
    except (OSError, ValueError, KeyError):
        raise UserError(f"{measured} is not pytest-benchmark's JSON: run make bench, which writes it") from None
    machine = machine_name(torch.device("cpu"))
    head = f"Measured on {machine}, Python {version}, torch {torch.__version__}, on {content['datetime'][:10]}.\n"
    by_file = groupby(sorted(benchmarks, key=_file), key=_file)
    tables = [_table(repository / file, list(rows)) for file, rows in by_file]
    path = Path(results) / "reports" / "cost" / "benchmarks.md"
    atomic.write_text(path, "\n".join([head, *tables]))
    return path


def _file(benchmark: dict[str, Any]) -> str:
    return str(benchmark["fullname"].partition("::")[0])


def _table(file: Path, benchmarks: list[dict[str, Any]]) -> str:
    text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    return markdown_table(
        file.stem.removeprefix("test_").replace("_", " "),
        ["", "fastest", "median", "rounds", "compared with its reference"],
        [
            [
                each["name"].removeprefix("test_").replace("_", " "),
                *(_duration(each["stats"][name]) for name in ("min", "median")),
                str(each["stats"]["rounds"]),
                "; ".join(f"{_words(name)} {_number(v)}" for name, v in each["extra_info"].items()),
            ]
            for each in benchmarks
        ],
        [" ".join(paragraph.split()) for paragraph in text.split("\n\n")],
    )


def _words(name: str) -> str:
    return name.replace("_", " ")


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.2f} ms"


if __name__ == "__main__":
    try:
        print(f"written: {write_benchmark_tables(Path(sys.argv[1]), Path('results'))}")
    except UserError as error:
        sys.exit(f"error: {error}")
