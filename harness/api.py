"""Functions for notebooks and scripts: records as data frames, comparisons, and the evaluator for label maps.

>>> import numpy as np
>>> label = np.zeros((64, 64), np.uint8)
>>> label[:, 32:] = 1
>>> prediction = np.roll(label, 1, axis=1)
>>> scores = evaluate_label_maps([prediction], [label], num_classes=2)
>>> round(scores["miou"], 2)
93.94
>>> boundary_iou(prediction, label, num_classes=2, width="3px").round(2)
array([63.14, 71.9 ])

`harness.load_records`, `harness.compare`, `harness.evaluate_label_maps` and `harness.boundary_iou` are these functions.
The methods' losses need none of them: `from methods import Contextrast`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import UserError, unknown
from harness.evaluation.frames import load_records as load_records

if TYPE_CHECKING:
    import pandas as pd

LabelMaps = Sequence[NDArray[np.integer[Any]]] | str | Path


def compare(
    experiment: str | Path,
    results: str | Path = "results",
    metric: str = "miou",
    baseline: str | None = None,
    overrides: Sequence[str] = (),
) -> "pd.DataFrame":
    """The comparison table of an experiment: a row for each data set, network, protocol and arm, the baseline first.

    experiment: its YAML file, or a name in config/. metric: a name in `METRICS` ("miou", "mean_dice", ...) or another
    table's mIoU, such as "boundary_miou@3px" or "trimap_miou@5px". baseline: the arm to compare with, by default the
    experiment's. Columns are those of results/reports/EXPERIMENT/tables/miou.csv: runs, mean and sd in percent, gain
    and its 95 % interval `low`, `high` in percentage points, p. Raises UserError for an experiment or metric that does
    not exist.
    """
    import pandas as pd

    from harness import comparison
    from harness.evaluation.counts import DEFAULT_WIDTHS
    from harness.evaluation.groups import groups
    from harness.evaluation.objects import SIZES
    from harness.experiment.project import experiment_path
    from harness.experiment.schema import Experiment
    from harness.statistics.scores import METRICS, miou_of

    tables = [*(f"{kind}@{width}" for kind in ("boundary", "trimap") for width in DEFAULT_WIDTHS)]
    tables += [f"objects@{size}" for size in SIZES]
    metrics = METRICS | {each.name: each for each in map(miou_of, tables)}
    if metric not in metrics:
        raise unknown("metric", metric, metrics)
    loaded = Experiment.load(experiment_path(experiment), list(overrides))
    if baseline is not None and baseline not in loaded.arms:
        raise unknown("arm", baseline, loaded.arms, " as baseline")
    rows = [
        comparison.csv_row(cell)
        for group in groups(loaded, Path(results), [metrics[metric].table])
        for cell in comparison.cells(loaded, group, [metrics[metric]], baseline)
    ]
    return pd.DataFrame(rows, columns=list(comparison.COLUMNS))


def evaluate_label_maps(
    predictions: LabelMaps,
    labels: LabelMaps,
    num_classes: int,
    *,
    absent: str = "skip",
    class_pixels: Sequence[int] | None = None,
) -> dict[str, float]:
    """Every score of a set of label maps, in percent: {metric: score}, NaN if a score is undefined.

    predictions, labels: integer arrays [H, W] of class ids 0..num_classes - 1, in the same order (255 in a label is
    ignored), or two folders of PNG files with the same names. absent: the rule for absent classes
    (harness/statistics/scores.py). class_pixels: pixels of each class in the training split, for head, mid and tail.
    The metrics are those of this project's tables (docs/metrics.md). Raises UserError if the two do not match.
    """
    from harness.evaluation.counts import count_image, stack
    from harness.statistics.scores import score

    pairs = _pairs(predictions, labels)
    if not pairs:
        raise UserError("there are no label maps to evaluate")
    counted = []
    for name, (prediction, label) in pairs.items():
        try:
            counted.append(count_image(prediction, label, num_classes))
        except ValueError as error:
            raise UserError(f"{name}: {error}") from None
    try:
        found, _ = score(stack(counted), [str(place) for place in range(num_classes)], absent, class_pixels)
    except ValueError as error:
        raise UserError(str(error)) from None
    return {metric: np.nan if value is None else value for metric, value in found.items()}


def boundary_iou(
    prediction: NDArray[np.integer[Any]], label: NDArray[np.integer[Any]], num_classes: int, width: str = "0.02"
) -> NDArray[np.float64]:
    """Boundary IoU of every class of one image in percent, float64 [num_classes] (Cheng et al., CVPR 2021).

    width: width of the band in pixels ("3px") or as a share of the image's diagonal ("0.02", as in the paper). NaN for
    a class that neither map has. Raises UserError for maps that do not match and for an invalid width.
    """
    from harness.evaluation.counts import count_image
    from harness.statistics.scores import iou

    try:
        return iou(count_image(prediction, label, num_classes, [width])[f"boundary@{width}"])
    except ValueError as error:
        raise UserError(str(error)) from None


def _pairs(predictions: LabelMaps, labels: LabelMaps) -> Mapping[str, tuple[NDArray[Any], NDArray[Any]]]:
    """{image's name: (prediction, label)}."""
    if isinstance(predictions, str | Path) and isinstance(labels, str | Path):
        return _read(Path(predictions), Path(labels))
    if isinstance(predictions, str | Path) or isinstance(labels, str | Path):
        raise UserError("give two folders or two lists of arrays, not one of each")
    guesses, truths = ([np.asarray(each) for each in given] for given in (predictions, labels))
    if len(guesses) != len(truths):
        raise UserError(f"there are {len(guesses)} predictions for {len(truths)} labels")
    return {f"image {place}": pair for place, pair in enumerate(zip(guesses, truths, strict=True))}


def _read(predictions: Path, labels: Path) -> Mapping[str, tuple[NDArray[Any], NDArray[Any]]]:
    from harness.datasets.images import read_label

    paths = sorted(labels.glob("*.png"))
    if not paths:
        raise UserError(f"{labels} holds no PNG file")
    if missing := [path.name for path in paths if not (predictions / path.name).is_file()]:
        raise UserError(f"{predictions} lacks {missing[0]}" + (f" and {len(missing) - 1} more" if missing[1:] else ""))
    return {path.name: (read_label(predictions / path.name), read_label(path)) for path in paths}
