"""The papers' figures, from results/published: every row with its source, or none of them."""

import csv
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from harness.compute.shipped import PUBLISHED
from harness.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

FOLDER = PUBLISHED
FIGURES = (
    *("dataset", "split", "model", "method", "metric", "protocol", "absent", "value", "baseline", "quoted", "source"),
)
TABLES = ("table", "file", "title", "shows")
METHODS = ("method", "options", "not_verified", "source")
METRICS = ("metric", "reading", "counterpart", "unit", "title")
NUMBERS = ("learning_rate", "momentum", "weight_decay", "batch", "iterations")
SETTINGS = ("dataset", "model", "crop", "optimizer", "policy", *NUMBERS, "instead", "source")
SAME = ("dataset", "split", "model", "metric", "protocol", "ablation")  # what a row and its baseline have in common


def figures(name: str | Path) -> "pd.DataFrame":
    """A table of `FOLDER` with its published gains; README.md there explains the columns.

    `row` is what tells the rows of a figure apart, a method or a setting; `gain` is over the row that `baseline` names,
    whose columns end in _of_baseline; both are missing for a baseline. `options` are those of the method that a figure
    was made with and that are not its defaults. Raises UserError, naming file and line, for a row without a source or
    number, or whose baseline is no row.
    """
    import pandas as pd

    rows = read(FOLDER / name, FIGURES, ("value",))
    for row in rows:
        of_method = methods().get(row["method"], {}).get("options", {})
        row |= {"quoted": row["quoted"] == "yes", "also": row.get("also", "").split()}
        row |= {"options": yaml.safe_load(row["options"]) if "options" in row else of_method}
    found = pd.DataFrame([{"ablation": "", "setting": ""} | row for row in rows])
    found["row"] = found["setting"].where(found["setting"] != "", found["method"])
    base = found[[*SAME, "row", "method", "value", "quoted", "options"]]
    found = found.merge(
        base.rename(columns={"row": "baseline"}),
        how="left",
        on=[*SAME, "baseline"],
        suffixes=("", "_of_baseline"),
        validate="m:1",
    )
    for row in found[(found["baseline"] != "") & found["value_of_baseline"].isna()].itertuples():
        raise UserError(f"{FOLDER / name}, line {row.line}: its baseline {row.baseline!r} is no row of the table")
    return found.assign(gain=found["value"] - found["value_of_baseline"])


def tables() -> list[dict[str, Any]]:
    """The tables of figures that are compared, in their order: name, file, title, what they show (`notes.MEANING`)."""
    return read(FOLDER / "tables.csv", TABLES)


def metrics() -> "pd.DataFrame":
    """What is measured for a published metric that is called otherwise here, or can be read in two ways."""
    import pandas as pd

    return pd.DataFrame(read(FOLDER / "metrics.csv", METRICS, ("unit",))).drop(columns="line")


@cache
def methods() -> dict[str, dict[str, Any]]:
    """What is to know of a method's published figures: options that are not its defaults, and what is not verified."""
    rows = read(FOLDER / "methods.csv", METHODS)
    return {row["method"]: row | {"options": yaml.safe_load(row["options"]) or {}} for row in rows}


def not_verified(method: str) -> str:
    """What could not be checked of a method against its paper; empty if nothing is known to be left."""
    return str(methods().get(method, {}).get("not_verified", ""))


def training_settings() -> dict[tuple[str, str], dict[str, Any]]:
    """The published training settings by (data set, model), in the words of an experiment's schedule.

    `instead` are settings that are not taken as printed. Raises as `figures`.
    """
    found, path = {}, FOLDER / "training_settings.csv"
    for row in read(path, SETTINGS, NUMBERS):
        sides = row["crop"].split("x")
        if len(sides) != 2 or not all(side.isdecimal() for side in sides):
            raise UserError(f"{path}, line {row['line']}: crop must be HEIGHTxWIDTH in pixels, not {row['crop']!r}")
        row |= {"crop": (int(sides[0]), int(sides[1])), "instead": yaml.safe_load(row["instead"]) or {}}
        found[row["dataset"], row["model"]] = row | {name: int(row[name]) for name in ("batch", "iterations")}
    return found


def read(path: Path, columns: Sequence[str], numbers: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The rows of a CSV file that has at least these columns, and their `line`; `numbers` are read as such."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if not set(columns) <= set(names := reader.fieldnames or ()):
                raise UserError(f"{path}: its columns must be {', '.join(columns)}")
            rows: list[dict[str, Any]] = [{**row, "line": reader.line_num} for row in reader]
    except OSError:
        raise UserError(f"there is no {path}: take it from the project's repository") from None
    for row in rows:
        where = f"{path}, line {row['line']}"
        if None in row or None in row.values():
            raise UserError(f"{where}: it must have a field for each of {', '.join(names)}")
        if not row.get("source", "none is asked for").strip():
            raise UserError(f"{where}: it has no source: say which paper and table the figure is from")
        for name in numbers:
            text = row[name]
            try:
                row[name] = float(text)
            except ValueError:
                row[name] = math.nan
            if not math.isfinite(row[name]):
                raise UserError(f"{where}: {name} must be a number, not {text!r}")
    return rows
