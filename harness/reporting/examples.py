"""Example pictures: the same test images for every arm, with what it predicts and where it is wrong."""

import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from harness import atomic, datasets
from harness.datasets import Dataset, Sample
from harness.datasets.images import read_label
from harness.errors import UserError
from harness.evaluation.counts import REGION, Counts, count_image
from harness.experiment import Experiment
from harness.reporting.figures import PAGE, STYLE
from harness.reporting.records import Missing, arm_order, display_name, read_record
from harness.statistics.scores import miou

IMAGES = 4
ARMS_ACROSS = 3
DOTS_PER_INCH = 200
NARROWEST, WIDEST = 1.2, 2.2  # inches, of a picture
FONT = 6.5  # points
WRONG = (213, 94, 0)
STRIPES = (70, 110)  # grey levels of ignored pixels

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Shown:
    """An arm in the figure: the run that stands for it, its label maps uint8 [H, W] and counts int64 [K, 3]."""

    arm: str
    seed: int
    folder: Path
    predictions: list[Pixels]
    counts: list[NDArray[np.int64]]


def write_examples(experiment: Experiment, results: Path, roots: Mapping[str, Path] | None = None) -> list[Path]:
    """Write figures/examples.png of `results`/reports/<experiment> and return the files that were written.

    With several data sets or models, examples.png shows the first pair and examples_<dataset>_<model>.png the others.
    `roots` are the data sets' folders; default: the experiment's, else those that the environment names. What cannot
    be drawn (no data, no label maps) is left out, with a line on standard error that says why; if nothing can be, this
    line is what examples.png shows.
    """
    folder = Path(results) / "reports" / experiment.name / "figures"
    written: list[Path] = []
    reason = ""
    for dataset, model in experiment.pairs():
        path = folder / (f"examples_{dataset}_{model}.png" if written else "examples.png")
        try:
            opened = _open(experiment, dataset, results, roots or {})
            with sns.axes_style("white"), mpl.rc_context(STYLE):  # type: ignore[arg-type]
                _save(examples_figure(experiment, results, opened, model), path)
        except UserError as error:
            line = f"no examples of {dataset} with {model}: {error}"
            print(line, file=sys.stderr)
            reason = reason or line
        else:
            written.append(path)
    if not written:
        _save(_only_text(reason), folder / "examples.png")
    return written


def _save(figure: Figure, path: Path) -> None:
    with atomic.replacing(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH)


def _only_text(text: str) -> Figure:
    lines = textwrap.wrap(text, 100)
    figure = Figure(figsize=(PAGE, 0.4 + 0.15 * len(lines)))
    figure.text(0.02, 0.5, "\n".join(lines), va="center", fontsize=FONT)
    return figure


def chosen_samples(samples: Sequence[Sample], number: int = IMAGES) -> list[Sample]:
    """Cut the list in `number` equal parts and take the middle one of each; all samples if there are fewer."""
    number = min(number, len(samples))
    return [samples[int((part + 0.5) * len(samples) / number)] for part in range(number)]


def examples_figure(experiment: Experiment, results: Path, dataset: Dataset, model: str) -> Figure:
    """A row an image: itself and the ground truth, then for every arm its prediction and where that is wrong.

    More than three arms follow below, beside the same images. Raises UserError if no run has label maps, or if they do
    not belong to the data.
    """
    protocol = experiment.protocols[0]
    samples = chosen_samples(dataset.samples(dataset.evaluation_split))
    pairs = [dataset.read(sample) for sample in samples]
    arms, absent = _arms(experiment, results, dataset.name, model, samples)
    if not arms:
        raise UserError(f"no run has label maps of the protocol {protocol} ({'; '.join(absent)})")

    bands = [arms[start : start + ARMS_ACROSS] for start in range(0, len(arms), ARMS_ACROSS)]
    sheet = _Sheet(
        title=f"{dataset.name}, {model}",
        bands=[[f"{display_name(arm.arm)}, seed\u00a0{arm.seed}" for arm in band] for band in bands],
        shapes=[label.shape for _, label in pairs],
        handles=_handles(dataset, _classes_seen([label for _, label in pairs], arms, dataset)),
        note="Image and ground truth; for every arm its prediction and, beside it, its errors. "
        f"Protocol {protocol}. mIoU of a picture: over the classes in its ground truth. "
        f"Images: the middle one of each of {IMAGES} equal parts of the {dataset.evaluation_split} list."
        + (f" Not shown: {'; '.join(absent)}." if absent else ""),
    )
    for number, band in enumerate(bands):
        for row, (sample, (image, label)) in enumerate(zip(samples, pairs, strict=True)):
            sheet.show(number, row, 0, image, painted(label, dataset), sample.id)
            for column, arm in enumerate(band, start=1):
                _check(arm, row, sample, label, dataset)
                score = float(miou(arm.counts[row], "require_ground_truth"))  # as in miou_image
                prediction = arm.predictions[row]
                wrong = errors(image, prediction, label)
                sheet.show(number, row, column, painted(prediction, dataset), wrong, f"mIoU {score:.1f}")
    return sheet.figure


def painted(labels: Pixels, dataset: Dataset) -> Pixels:
    """Labels uint8 [H, W] in the classes' colours, uint8 [H, W, 3]; ignored pixels are striped."""
    table = np.zeros((256, 3), np.uint8)
    table[: dataset.num_classes] = dataset.colors
    picture = table[labels]
    ignored = labels == dataset.ignore_index
    picture[ignored] = _stripes(labels.shape)[ignored]
    return picture


def errors(image: Pixels, prediction: Pixels, label: Pixels) -> Pixels:
    """The image [H, W, 3] in pale grey with wrong pixels in one colour and ignored ones (255 in `label`) striped."""
    grey = 120 + 0.5 * image.mean(axis=-1, keepdims=True)
    picture = np.repeat(grey.round().astype(np.uint8), 3, axis=-1)
    picture[prediction != label] = WRONG
    ignored = label == datasets.IGNORE_INDEX
    picture[ignored] = _stripes(label.shape)[ignored]
    return picture


def _open(experiment: Experiment, name: str, results: Path, roots: Mapping[str, Path]) -> Dataset:
    root = datasets.resolve_root(name, roots.get(name) or experiment.roots.get(name), Path(results))
    dataset = datasets.load(name, root)
    datasets.prepare(dataset)
    return dataset


def _arms(
    experiment: Experiment, results: Path, dataset: str, model: str, samples: Sequence[Sample]
) -> tuple[list[Shown], list[str]]:
    """Of every arm the first seed that has a label map of all samples; and for the other arms why they have none."""
    shown, absent = [], []
    for arm in arm_order(experiment):
        reasons = []
        for seed in experiment.seeds:
            run = experiment.run(dataset, model, arm, seed)
            record = read_record(experiment, run, results)
            folder = run.folder(results)
            paths = [folder / "predictions" / experiment.protocols[0] / f"{sample.id}.png" for sample in samples]
            if isinstance(record, Missing):
                reasons.append(record.status)
            elif not all(path.is_file() for path in paths):
                reasons.append("no label maps")
            else:
                regions = _regions(folder, experiment.protocols[0], samples)
                shown.append(Shown(arm, seed, folder, [read_label(path) for path in paths], regions))
                break
        else:
            absent.append(f"{display_name(arm)}, {', '.join(dict.fromkeys(reasons))}")
    return shown, absent


def _regions(folder: Path, protocol: str, samples: Sequence[Sample]) -> list[NDArray[np.int64]]:
    """The region counts int64 [K, 3] of `samples`. Raises UserError if the run's counts do not hold them."""
    try:
        counts = Counts.load(folder / "counts.npz").select([sample.id for sample in samples])
        return list(counts.tables[protocol][REGION])
    except KeyError as error:
        raise UserError(f"{folder / 'counts.npz'} holds no {error}: evaluate the run again") from None


def _check(arm: Shown, row: int, sample: Sample, label: Pixels, dataset: Dataset) -> None:
    """Raise UserError if an arm's label map, held against `label`, does not give the counts of its run."""
    try:
        found = count_image(arm.predictions[row], label, dataset.num_classes, widths=())[REGION]
        same = np.array_equal(found, arm.counts[row])
    except ValueError:  # another size, a class that the data set does not have
        same = False
    if not same:
        raise UserError(
            f"the label map of {sample.id} in {arm.folder} does not fit the data in {dataset.root}: "
            "pass the root that it was evaluated on, or evaluate the run again"
        )


def _classes_seen(labels: Sequence[Pixels], arms: Sequence[Shown], dataset: Dataset) -> list[int]:
    """The train ids in `labels` and predictions, those of ignored pixels aside."""
    maps = [*labels, *(prediction for arm in arms for prediction in arm.predictions)]
    return sorted({int(value) for each in maps for value in np.unique(each)} - {dataset.ignore_index})


def _handles(dataset: Dataset, classes: Sequence[int]) -> list[Patch]:
    colors = [*(dataset.colors[index] for index in classes), WRONG]
    names = [*(dataset.classes[index] for index in classes), "wrong"]
    handles = []
    for (red, green, blue), name in zip(colors, names, strict=True):
        face = (red / 255, green / 255, blue / 255)
        handles.append(Patch(facecolor=face, edgecolor="0.6", lw=0.3, label=name))
    return [*handles, Patch(facecolor="0.43", edgecolor="0.27", hatch="////////", lw=0.3, label="ignored")]


class _Sheet:
    """A figure laid out in inches: bands of arms, in each a row for every image, then the legend and a note.

    A column is two pictures wide: the image and its ground truth, then an arm's prediction and errors. `bands` holds
    the names of the arms; `shapes` are those of the images.
    """

    margin, gap, line = 0.05, 0.03, 0.115  # `line` is the height of a line of text

    def __init__(
        self,
        title: str,
        bands: Sequence[Sequence[str]],
        shapes: Sequence[tuple[int, ...]],
        handles: Sequence[Patch],
        note: str,
    ) -> None:
        columns = 1 + max(map(len, bands))
        self.picture = min(WIDEST, max(NARROWEST, PAGE / (2 * columns)))
        self.column = 2 * (self.picture + self.gap) + 0.06
        self.width = 2 * self.margin + columns * self.column
        self.heights = [self.picture * height / width for height, width in shapes]
        names = [[textwrap.fill(name, _letters(self.column)) for name in band] for band in bands]
        name_lines = [1 + max(name.count("\n") for name in band) for band in names]
        self.tops, top = [], 0.25
        for lines in name_lines:
            top += self.line * lines
            self.tops.append([top + sum(map(self._row, self.heights[:row])) for row in range(len(shapes))])
            top = self.tops[-1][-1] + self._row(self.heights[-1]) + 0.06

        note = textwrap.fill(note, _letters(self.width))
        longest = max(len(str(handle.get_label())) for handle in handles)
        across = min(len(handles), max(1, _letters(self.width) // (longest + 7)))  # 7: the patch and the space
        below = self.margin + self.line * (1 + note.count("\n")) + 0.04
        self.height = top + 0.14 * -(-len(handles) // across) + 0.06 + below

        self.figure = Figure(figsize=(self.width, self.height))
        self._text(self.margin, 0.06, title, va="top", size=8, weight="bold")
        self._text(self.margin, self.height - self.margin, note, va="bottom", linespacing=1.2)
        self.figure.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=(0, below / self.height),
            ncols=across,
            frameon=False,
            fontsize=FONT,
            borderpad=0,
            borderaxespad=0.3,
            columnspacing=1.2,
        )
        for tops, band in zip(self.tops, names, strict=True):
            for column, name in enumerate(band, start=1):
                self._text(self._left(column), tops[0], name, va="bottom", weight="bold")

    def show(self, band: int, row: int, column: int, first: Pixels, second: Pixels, title: str) -> None:
        """Put two pictures of image `row` side by side in their places."""
        top, height = self.tops[band][row] + self.line, self.heights[row]
        self._text(self._left(column), top - 0.02, title, va="bottom")
        for index, picture in enumerate((first, second)):
            left = self._left(column) + index * (self.picture + self.gap)
            place = (left, self.height - top - height, self.picture, height)
            scale = (self.width, self.height, self.width, self.height)
            axis = self.figure.add_axes(tuple(np.divide(place, scale)))
            axis.imshow(picture)
            axis.set_axis_off()

    def _left(self, column: int) -> float:
        return self.margin + column * self.column

    def _row(self, height: float) -> float:
        return self.line + height + self.gap

    def _text(self, left: float, top: float, text: str, **style: Any) -> None:
        self.figure.text(left / self.width, 1 - top / self.height, text, **{"size": FONT} | style)


def _letters(inches: float) -> int:
    """How many letters of ordinary width fit."""
    return int(inches * 72 / (0.56 * FONT))


def _stripes(shape: Sequence[int]) -> Pixels:
    """Diagonal stripes uint8 [H, W, 3], as wide as shows in a small picture of that size."""
    height, width = shape
    thickness = max(2, width // 80)
    diagonal = np.add.outer(np.arange(height), np.arange(width)) // thickness % 2
    return np.repeat(np.where(diagonal[..., None], *STRIPES).astype(np.uint8), 3, axis=-1)
