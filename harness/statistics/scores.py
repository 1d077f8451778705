"""Scores in percent from integer counts (metrics.md); every figure of every table is computed by these.

`counts` are integers or floats [..., K, 3], the last axis TP, FP, FN, already summed over images. `absent` is the rule
for absent classes, each used by published tools:

- "skip": a class is left out of the mean if it is in neither ground truth nor prediction (mmsegmentation).
- "zero": every class counts, an absent one as 0 (ADE20K's official code, HRNet).
- "require_ground_truth": a class is left out if it is not in the ground truth (COCO-Stuff's official code, detectron2).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Absent = Literal["skip", "zero", "require_ground_truth"]
Values = NDArray[np.float64]


def iou(counts: NDArray[Any], absent: str = "skip") -> Values:
    """IoU per class in percent, NaN if left out of the mean: `counts` [..., K, 3] -> float64 [..., K]."""
    hits, false, missed = (counts[..., column].astype(np.float64) for column in range(3))
    return _percent(hits, hits + false + missed, _left_out(hits, false, missed, absent), absent)


def accuracy(counts: NDArray[Any], absent: str = "skip") -> Values:
    """Recall per class in percent, TP / (TP + FN): `counts` [..., K, 3] -> float64 [..., K], NaN without ground truth.

    With "zero" it is 0 instead of NaN, as in HRNet's code.
    """
    hits, missed = (counts[..., column].astype(np.float64) for column in (0, 2))
    return _percent(hits, hits + missed, _left_out(hits, np.zeros_like(hits), missed, absent), absent)


def dice(counts: NDArray[Any], absent: str = "skip") -> Values:
    """Dice (F1) per class in percent, 2 TP / (2 TP + FP + FN): [..., K, 3] -> float64 [..., K].

    NaN for the same classes as IoU.
    """
    hits, false, missed = (counts[..., column].astype(np.float64) for column in range(3))
    return _percent(2 * hits, 2 * hits + false + missed, _left_out(hits, false, missed, absent), absent)


def fwiou(counts: NDArray[Any]) -> Values:
    """IoU weighted by the classes' pixels in the ground truth, in percent: `counts` [..., K, 3] -> float64 [...].

    Long et al., CVPR 2015. NaN without ground truth.
    """
    truth = counts[..., 0].astype(np.float64) + counts[..., 2]
    total = truth.sum(-1)
    weighted = (truth * np.nan_to_num(iou(counts))).sum(-1)
    return np.where(total > 0, weighted / np.where(total > 0, total, 1.0), np.nan)


def miou(counts: NDArray[Any], absent: str = "skip") -> Values:
    """Mean IoU over classes in percent: `counts` [..., K, 3] -> float64 [...], NaN if no class is defined."""
    return mean_defined(iou(counts, absent))


def mean_defined(values: Values, axis: int = -1) -> Values:
    """The mean along `axis` over values that are not NaN; NaN if there are none."""
    defined = ~np.isnan(values)
    number = defined.sum(axis)
    return np.where(number > 0, np.where(defined, values, 0.0).sum(axis) / np.maximum(number, 1), np.nan)


def pixel_accuracy(counts: NDArray[Any], absent: str = "skip") -> Values:
    """The share of valid pixels that are correct, in percent: `counts` [..., K, 3] -> float64 [..., 1]."""
    return accuracy(counts.sum(-2, keepdims=True))


@dataclass(frozen=True)
class Metric:
    """A score in percent from summed counts: the mean over classes of a per-class score.

    table      the table of counts that it uses
    of_class   maps counts [..., K, 3] and the rule for absent classes to [..., C], NaN for a class that is left out of
               the mean; C is K, or 1 for a score that is not a mean over classes
    classes    indices of the classes in the mean, None for all
    title      its name in tables
    about      one line for docs/metrics.md
    per_class  its key in a record's `per_class`; "" if the record has no per-class scores of it
    """

    name: str
    table: str
    of_class: Callable[[NDArray[Any], str], Values] = iou
    classes: tuple[int, ...] | None = None
    title: str = ""
    about: str = ""
    per_class: str = ""

    def by_class(self, counts: NDArray[Any], absent: str = "skip") -> Values:
        """The score of each class in `classes`, in percent: `counts` [..., K, 3] -> float64 [..., C]."""
        chosen = counts if self.classes is None else counts[..., list(self.classes), :]
        return self.of_class(chosen, absent)

    def score(self, counts: NDArray[Any], absent: str = "skip") -> Values:
        """The score in percent: `counts` [..., K, 3] -> float64 [...], NaN if no class is defined."""
        return mean_defined(self.by_class(counts, absent))


# Scores of the region counts. A metric that is added here appears in records, `load_records`, `compare`, the tables
# metrics.csv, .md and .tex (with intervals), on the page and in docs/metrics.md.
METRICS = {
    metric.name: metric
    for metric in (
        Metric(
            name="miou",
            table="region",
            of_class=iou,
            title="mIoU",
            about="TP / (TP + FP + FN), the mean over classes",
            per_class="iou",
        ),
        Metric(
            name="pixel_accuracy",
            table="region",
            of_class=lambda counts, absent: pixel_accuracy(counts),
            title="Pixel accuracy",
            about="the share of valid pixels that are right",
        ),
        Metric(
            name="mean_accuracy",
            table="region",
            of_class=accuracy,
            title="Mean accuracy",
            about="TP / (TP + FN), the mean over classes",
            per_class="accuracy",
        ),
        Metric(
            name="fwiou",
            table="region",
            of_class=lambda counts, absent: fwiou(counts)[..., None],
            title="Frequency-weighted IoU",
            about="the mean of the classes' IoU, weighted by their pixels in the ground truth (Long et al., CVPR 2015)",
        ),
        Metric(
            name="mean_dice",
            table="region",
            of_class=dice,
            title="Dice",
            about="2 TP / (2 TP + FP + FN), which is F1, the mean over classes",
            per_class="dice",
        ),
    )
}


def miou_of(table: str) -> Metric:
    """The mIoU of a table of counts."""
    return Metric(metric_name(table), table)


def frequency_metrics(thirds: Mapping[str, Sequence[int]]) -> list[Metric]:
    """The mIoU of head, mid and tail; `thirds`: their class indices."""
    return [Metric(f"miou_{name}", "region", classes=tuple(places)) for name, places in thirds.items()]


def metric_name(table: str, figure: str = "miou") -> str:
    """The name of a metric of a table of counts: "region" -> "miou", "boundary@3px" -> "boundary_miou@3px"."""
    kind, _, part = table.partition("@")
    if kind == "region":
        return figure
    return f"{figure}_objects_{part}" if kind == "objects" else f"{kind}_{figure}@{part}"


def groups(class_pixels: Sequence[int]) -> dict[str, list[int]]:
    """Class indices of head, mid and tail by pixel frequency in the training split, the most frequent first.

    Their sizes differ by at most one, and head is never smaller than tail.
    """
    order = sorted(range(len(class_pixels)), key=lambda index: (-class_pixels[index], index))
    parts = np.array_split(np.array(order, dtype=np.intp), 3)
    return {name: part.tolist() for name, part in zip(("head", "mid", "tail"), parts, strict=True)}


def score(
    tables: Mapping[str, NDArray[np.int64]],
    classes: Sequence[str],
    absent: str = "skip",
    class_pixels: Sequence[int] | None = None,
) -> tuple[dict[str, float | None], dict[str, dict[str, float | None]]]:
    """All metrics of N images: ({metric: percent}, {metric: {class: percent}}), unrounded, None if undefined.

    `tables`: {name: int64 [N, K, 3]} with "region" and any of "boundary@WIDTH", "trimap@WIDTH" and "objects@SIZE".
    `class_pixels`, the pixels per class in the training split, adds head, mid and tail.

    `miou_image` and `miou_class_image` (Wang et al., NeurIPS 2023, mIoU^I and mIoU^C) average the IoU per image and
    class over the classes in each image's ground truth, whatever `absent` is. Raises ValueError for an unknown `absent`
    and for tables or `class_pixels` that do not match `classes`.
    """
    if absent not in get_args(Absent):
        raise ValueError(f"absent is {absent!r}: it must be one of {', '.join(get_args(Absent))}")
    for name, table in tables.items():
        if table.ndim != 3 or table.shape[1:] != (len(classes), 3):
            raise ValueError(f"table {name} is {list(table.shape)}, not [images, {len(classes)}, 3]")
    if class_pixels is not None and len(class_pixels) != len(classes):
        raise ValueError(f"class_pixels has {len(class_pixels)} numbers for {len(classes)} classes")

    region = tables["region"]
    totals = {name: table.sum(0) for name, table in tables.items()}
    image_class = iou(region, "require_ground_truth")
    scores = {
        **{name: metric.score(totals[metric.table], absent) for name, metric in METRICS.items()},
        "miou_image": mean_defined(mean_defined(image_class)),
        "miou_class_image": mean_defined(mean_defined(image_class, axis=0)),
    }
    per_class = {
        each.per_class: each.by_class(totals[each.table], absent) for each in METRICS.values() if each.per_class
    }
    if class_pixels is not None:
        for group, members in groups(class_pixels).items():
            scores[f"miou_{group}"] = mean_defined(per_class["iou"][members])
    for name, total in totals.items():
        if name != "region":
            values = iou(total, absent)
            scores[metric_name(name)] = mean_defined(values)
            per_class[metric_name(name, "iou")] = values
    return (
        {metric: _number(value) for metric, value in scores.items()},
        {
            metric: {name: _number(value) for name, value in zip(classes, values, strict=True)}
            for metric, values in per_class.items()
        },
    )


def _left_out(hits: Values, false: Values, missed: Values, absent: str) -> NDArray[np.bool_]:
    return hits + missed + (0.0 if absent == "require_ground_truth" else false) == 0


def _percent(part: Values, whole: Values, left_out: NDArray[np.bool_], absent: str) -> Values:
    undefined = 0.0 if absent == "zero" else np.nan
    return np.where(left_out, undefined, 100.0 * part / np.where(whole > 0, whole, 1.0))


def _number(value: Any) -> float | None:
    return None if np.isnan(value) else float(value)
