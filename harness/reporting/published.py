"""The papers' figures, from results/published: every row with its source, or none of them."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.compute.shipped import PUBLISHED
from harness.errors import UserError

FOLDER = PUBLISHED
BASELINES = ("cross_entropy", "multiscale_contrast")  # the first that a published table has
# (data set, model, method) of mIoU with one decimal in tables of two: by the look of it quoted from the methods' own
# papers. No source says so. A last digit that is a nought by chance (42.1 of Contextrast itself) is not among them.
QUOTED = {
    *(("cityscapes", "hrnet_w48", f"{name}_contrast") for name in ("pixel", "region", "multiscale")),
    ("cityscapes", "hrnet_w48", "pixel_contrast_synthetic"),
    *(
        ("cityscapes", "mobilenet_v2_d8", name)
        for name in ("cross_entropy", "pixel_contrast", "pixel_contrast_synthetic")
    ),
}
FIGURE_COLUMNS = ("dataset", "split", "model", "method", "metric", "value", "source")
ABLATION_COLUMNS = ("ablation", "setting", "miou", "source")
ZOO_COLUMNS = ("dataset", "split", "model", "protocol", "metric", "value", "source")
SETTING_COLUMNS = (
    *("dataset", "model", "crop_hxw", "learning_rate", "momentum", "weight_decay", "optimizer", "schedule"),
    *("batch_size", "iterations", "source"),
)


@dataclass(frozen=True)
class Figure:
    """One published number: `metric` of `method` with `model` on the `split` of `dataset`, in percent."""

    dataset: str
    split: str
    model: str
    method: str
    metric: str
    value: float
    source: str

    @property
    def quoted(self) -> bool:
        """Whether it seems to be taken from another paper than its source, of mIoU on the split val (see `QUOTED`)."""
        quoted = (self.dataset, self.model, self.method) in QUOTED
        return quoted and (self.split, self.metric) == ("val", "miou")


@dataclass(frozen=True)
class Ablation:
    """One published row of an ablation of Contextrast++ (HRNet-W48, Cityscapes val): mIoU in percent."""

    ablation: str
    setting: str
    miou: float
    source: str


@dataclass(frozen=True)
class ZooFigure:
    """What mmsegmentation publishes for its own trained network, plain cross entropy, by one protocol, in percent."""

    dataset: str
    split: str
    model: str
    protocol: str
    metric: str
    value: float
    source: str


@dataclass(frozen=True)
class Settings:
    """A published row of training settings, in this project's names; `crop` is height, width in pixels."""

    dataset: str
    model: str
    crop: tuple[int, int]
    learning_rate: float
    momentum: float
    weight_decay: float
    optimizer: str
    policy: str
    batch: int
    iterations: int
    source: str


def figures(path: Path) -> list[Figure]:
    """The rows of a table of figures. Raises UserError, naming file and line, for a row without a source or number."""
    return [Figure(**_texts(row), value=_number(path, line, row, "value")) for line, row in _rows(path, FIGURE_COLUMNS)]


def ablations(path: Path) -> list[Ablation]:
    """The rows of the table of ablations; raises as `figures`."""
    return [
        Ablation(row["ablation"], row["setting"], _number(path, line, row, "miou"), row["source"])
        for line, row in _rows(path, ABLATION_COLUMNS)
    ]


def zoo_figures(path: Path) -> list[ZooFigure]:
    """The rows of a table of mmsegmentation's own figures; raises as `figures`."""
    return [ZooFigure(**_texts(row), value=_number(path, line, row, "value")) for line, row in _rows(path, ZOO_COLUMNS)]


def training_settings(path: Path) -> dict[tuple[str, str], Settings]:
    """The rows of the table of training settings by (data set, model); raises as `figures`."""
    found = {}
    for line, row in _rows(path, SETTING_COLUMNS):
        sides = row["crop_hxw"].split("x")
        if len(sides) != 2 or not all(side.isdecimal() for side in sides):
            raise UserError(f"{path}, line {line}: crop_hxw must be HEIGHTxWIDTH in pixels, not {row['crop_hxw']!r}")
        found[row["dataset"], row["model"]] = Settings(
            dataset=row["dataset"],
            model=row["model"],
            crop=(int(sides[0]), int(sides[1])),
            learning_rate=_number(path, line, row, "learning_rate"),
            momentum=_number(path, line, row, "momentum"),
            weight_decay=_number(path, line, row, "weight_decay"),
            optimizer=row["optimizer"].lower(),
            policy=row["schedule"],
            batch=int(_number(path, line, row, "batch_size")),
            iterations=int(_number(path, line, row, "iterations")),
            source=row["source"],
        )
    return found


def baseline_of(rows: list[Figure], figure: Figure) -> Figure | None:
    """The row that the gain of `figure` is counted from: same table, data set, split, model and metric, baseline."""
    same = {
        row.method: row
        for row in rows
        if (row.dataset, row.split, row.model, row.metric)
        == (figure.dataset, figure.split, figure.model, figure.metric)
    }
    return next((same[method] for method in BASELINES if method in same), None)


def _rows(path: Path, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != columns:
                raise UserError(f"{path}: its columns must be {', '.join(columns)}")
            rows = [(reader.line_num, row) for row in reader]
    except OSError:
        raise UserError(f"there is no {path}: take it from the project's repository") from None
    for line, row in rows:
        if None in row or None in row.values():
            raise UserError(f"{path}, line {line}: it must have a field for each of {', '.join(columns)}")
        if not row["source"].strip():
            raise UserError(f"{path}, line {line}: it has no source: say in which paper and table the figure stands")
    return rows


def _texts(row: dict[str, str]) -> dict[str, Any]:
    return {name: text for name, text in row.items() if name != "value"}


def _number(path: Path, line: int, row: dict[str, str], column: str) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{path}, line {line}: {column} must be a number, not {row[column]!r}")
    return value
