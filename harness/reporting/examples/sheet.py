"""The figure of examples: images across, arms down."""

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from harness.datasets import Dataset
from harness.datasets.pictures import WRONG, Pixels, errors, framed, painted
from harness.experiment.schema import Experiment
from harness.reporting.examples.choice import Examples
from harness.reporting.figures.style import PAGE, letters
from harness.reporting.names import arm_name, protocol_name, setting_name

FONT = 6.5  # points
MARGIN, GAP, BETWEEN = 0.05, 0.03, 0.1  # inches: around all, between pictures, between images
LINE = 0.115  # inches, the height of a line of text
NAMES = 0.95  # inches, of the arms' names


def examples_figure(experiment: Experiment, examples: Examples) -> Figure:
    """For every image two columns: the whole picture, and the window where the judged arm and the baseline differ most.

    Rows: the image, the ground truth, then for every arm what is wrong (left) and its prediction in the window.
    """
    dataset, chosen = examples.dataset, examples.chosen
    names = [
        "image",
        "ground truth",
        *(f"{arm_name(experiment, arm.arm)}, seed\u00a0{arm.seed}" for arm in examples.arms),
    ]
    picture = ((PAGE - 2 * MARGIN - NAMES) / len(chosen) - GAP - BETWEEN) / 2
    picture = min(picture, 1.6)
    tallest = max(each.label.shape[0] / each.label.shape[1] for each in chosen) * picture
    row = LINE + tallest + GAP
    width = PAGE
    note = textwrap.fill(
        "Left of each pair the whole image; right the framed window, a quarter as high and wide, where the two "
        "compared arms differ most in what they get right. Arms: errors left, prediction right. "
        f"{examples.rule} {protocol_name(experiment.protocols[0]).capitalize()}. mIoU averages the classes in an "
        "image's ground truth." + (f" Not shown: {'; '.join(examples.absent)}." if examples.absent else ""),
        letters(width - 2 * MARGIN, FONT),
    )
    handles = _handles(dataset, _classes_seen(examples))
    longest = max(len(str(handle.get_label())) for handle in handles)
    across = min(len(handles), max(1, letters(width, FONT) // (longest + 7)))  # 7: the patch and the space
    below = MARGIN + LINE * (1 + note.count("\n")) + 0.04
    head = 0.25
    height = head + row * len(names) + 0.14 * -(-len(handles) // across) + 0.06 + below

    figure = Figure(figsize=(width, height))

    def text(left: float, top: float, content: str, **style: Any) -> None:
        figure.text(left / width, 1 - top / height, content, **{"size": FONT} | style)

    def show(left: float, top: float, content: Pixels, zoomed: bool = False) -> None:
        tall = picture * content.shape[0] / content.shape[1]
        axis = figure.add_axes((left / width, 1 - (top + tall) / height, picture / width, tall / height))
        axis.imshow(content, interpolation="nearest" if zoomed else "antialiased")
        axis.set_axis_off()

    text(MARGIN, 0.06, setting_name(dataset.name, examples.model), va="top", size=8, weight="bold")
    for number, name in enumerate(names):
        wrapped = textwrap.fill(name, letters(NAMES, FONT))
        text(MARGIN, head + row * number + LINE + tallest / 2, wrapped, va="center", weight="bold")
    for column, each in enumerate(chosen):
        left = MARGIN + NAMES + column * (2 * (picture + GAP) + BETWEEN)
        limit = letters(2 * picture, FONT)
        titles = [textwrap.shorten(f"{each.why}: {each.id}", limit, placeholder="…"), ""]
        titles += [f"mIoU {each.scores[arm.arm]:.1f}" for arm in examples.arms]
        truth = painted(each.label, dataset)
        pairs = [(framed(each.image, each.window), each.image), (framed(truth, each.window), truth)]
        for arm in examples.arms:
            prediction = each.predictions[arm.arm]
            wrong = errors(each.image, prediction, each.label)
            pairs.append((framed(wrong, each.window), painted(prediction, dataset)))
        for number, (title, (whole, part)) in enumerate(zip(titles, pairs, strict=True)):
            top = head + row * number + LINE
            if title:
                text(left, top - 0.02, title, va="bottom")
            show(left, top, whole)
            show(left + picture + GAP, top, part[each.window], zoomed=True)
    text(MARGIN, height - MARGIN, note, va="bottom", linespacing=1.2)
    figure.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, below / height),
        ncols=across,
        frameon=False,
        fontsize=FONT,
        borderpad=0,
        borderaxespad=0.3,
        columnspacing=1.2,
    )
    return figure


def _classes_seen(examples: Examples) -> list[int]:
    """The train ids in ground truths and predictions, those of ignored pixels aside."""
    maps = [pixels for each in examples.chosen for pixels in (each.label, *each.predictions.values())]
    return sorted({int(value) for each in maps for value in np.unique(each)} - {examples.dataset.ignore_index})


def _handles(dataset: Dataset, classes: Sequence[int]) -> list[Patch]:
    colors = [*(dataset.colors[index] for index in classes), WRONG]
    names = [*(dataset.classes[index] for index in classes), "wrong"]
    handles = []
    for (red, green, blue), name in zip(colors, names, strict=True):
        face = (red / 255, green / 255, blue / 255)
        handles.append(Patch(facecolor=face, edgecolor="0.6", lw=0.3, label=name))
    return [*handles, Patch(facecolor="0.43", edgecolor="0.27", hatch="////////", lw=0.3, label="ignored")]
