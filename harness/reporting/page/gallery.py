"""The page's examples as a comparison: the baseline on the left, one arm on the right, the ground truth on request."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from harness.datasets import Dataset
from harness.datasets.pictures import STRIPES, WRONG, Pixels, narrowed, stripes
from harness.experiment.schema import Experiment
from harness.reporting.examples.choice import Example, Examples
from harness.reporting.markup import points
from harness.reporting.names import arm_name, baseline_name, setting_name
from harness.reporting.page.graphics import address

WIDEST = 640  # pixels of a picture
QUALITY = 85  # of a photograph
NOTHING, ERROR = 0, 1  # indices of a map of errors


@dataclass(frozen=True)
class View:
    """What an arm predicts of an image and where it is wrong, as data addresses; `gain` is over the baseline."""

    arm: str
    name: str
    score: str
    gain: str
    labels: str
    errors: str
    alt: str


@dataclass(frozen=True)
class Compared:
    """An image: photograph, ground truth, and the views of the arms, the one on the left first."""

    title: str
    photo: str
    truth: str
    left: View
    right: list[View]


@dataclass(frozen=True)
class Gallery:
    """The examples of a data set and a model; `arms` are (key, name) of those that can be on the right."""

    key: str
    title: str
    note: str
    ratio: float
    arms: list[tuple[str, str]]
    classes: list[tuple[str, str]]
    images: list[Compared]


def gallery(experiment: Experiment, examples: Examples, key: str) -> Gallery:
    """The pictures of `examples`; `key` is the gallery's id in the document. On the right is the best arm first."""
    names = [arm.arm for arm in examples.arms]
    left = experiment.baseline if experiment.baseline in names else names[0]
    others = [name for name in names if name != left] or [left]
    if examples.judged in others:
        others.sort(key=lambda name: name != examples.judged)
    seen = {int(value) for each in examples.chosen for shown in _maps(each) for value in np.unique(shown)}
    dataset = examples.dataset
    classes = [
        (dataset.classes[index], "#{:02x}{:02x}{:02x}".format(*dataset.colors[index]))
        for index in sorted(seen - {dataset.ignore_index})
    ]
    note = f"{examples.rule} mIoU averages the classes in an image's ground truth. Stripes: ignored pixels."
    note += f" Not shown: {'; '.join(examples.absent)}." if examples.absent else ""
    height, width = examples.chosen[0].label.shape
    images = [
        Compared(
            f"{each.id} ({each.why})",
            _photo(each.image),
            _indexed(each.label, dataset),
            _view(experiment, examples, each, left, left),
            [_view(experiment, examples, each, arm, left) for arm in others],
        )
        for each in examples.chosen
    ]
    arms = [(arm, f"{arm_name(experiment, arm)}, seed {_seed(examples, arm)}") for arm in others]
    return Gallery(key, setting_name(dataset.name, examples.model), note, width / height, arms, classes, images)


def _maps(each: Example) -> list[Pixels]:
    return [each.label, *each.predictions.values()]


def _seed(examples: Examples, name: str) -> int:
    return next(arm.seed for arm in examples.arms if arm.arm == name)


def _view(experiment: Experiment, examples: Examples, each: Example, arm: str, left: str) -> View:
    prediction, name = each.predictions[arm], arm_name(experiment, arm)
    wrong = (prediction != each.label) & (each.label != examples.dataset.ignore_index)
    difference = each.scores[arm] - each.scores[left]
    gain = "" if arm == left else f"{points(difference, True)} over {baseline_name(experiment)}"
    return View(
        arm=arm,
        name=name,
        score=f"mIoU {each.scores[arm]:.1f}",
        gain=gain,
        labels=_indexed(prediction, examples.dataset),
        errors=_errors(wrong),
        alt=f"What {name} predicts of {each.id}",
    )


def _photo(image: Pixels) -> str:
    content = cv2.imencode(".webp", narrowed(image, WIDEST)[..., ::-1], [cv2.IMWRITE_WEBP_QUALITY, QUALITY])[1]
    return address("image/webp", bytes(content))


def _indexed(labels: Pixels, dataset: Dataset) -> str:
    """Labels uint8 [H, W] in the classes' colours; ignored pixels are striped. One byte a pixel, well compressed."""
    shown = _shrunk(labels)
    dark, pale = dataset.num_classes, dataset.num_classes + 1
    content = np.where(shown == dataset.ignore_index, np.where(stripes(shown.shape), pale, dark), shown)
    palette = [*dataset.colors, *((level, level, level) for level in STRIPES)]
    return _png(content.astype(np.uint8), palette)


def _errors(wrong: NDArray[np.bool_]) -> str:
    """Wrong pixels [H, W] in one colour, all else transparent."""
    return _png(_shrunk(wrong.astype(np.uint8)), [(0, 0, 0), WRONG], transparent=NOTHING)


def _shrunk(labels: Pixels) -> Pixels:
    if labels.shape[1] <= WIDEST:
        return labels
    height = round(labels.shape[0] * WIDEST / labels.shape[1])
    return np.asarray(cv2.resize(labels, (WIDEST, height), interpolation=cv2.INTER_NEAREST), np.uint8)


def _png(indices: Pixels, palette: Sequence[Sequence[int]], transparent: int | None = None) -> str:
    picture = Image.fromarray(indices, "P")
    picture.putpalette([part for color in palette for part in color])
    content = io.BytesIO()
    options = {} if transparent is None else {"transparency": transparent}
    picture.save(content, "PNG", optimize=True, **options)
    return address("image/png", content.getvalue())
