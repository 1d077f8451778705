"""What pixels look like to each layer, before and after training, in two dimensions."""

import textwrap
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from harness import datasets
from harness.datasets.dataset import Dataset
from harness.evaluation.groups import arm_order
from harness.experiment.schema import Experiment
from harness.reporting.figures.style import (
    PAGE,
    columns_that_fit,
    legend_height,
    note,
    note_height,
    only_text,
    sheet,
)
from harness.reporting.names import MARKERS, arm_name, setting_name

PHASES = ("before", "after")
SMALL = 6.0  # points
ROW = 0.93  # inches
PLATE = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6}  # behind text on points


@dataclass(frozen=True)
class Points:
    """The sample of one map: train ids [N], principal components [N, n], the share of the variance along each [n]."""

    labels: NDArray[np.uint8]
    points: NDArray[np.float64]
    variance: NDArray[np.float64]


@dataclass(frozen=True)
class Phase:
    """A run's maps before or after training, with their silhouettes and those of the encoder's maps."""

    maps: list[Points]
    silhouettes: list[float]
    encoder: list[float]


@dataclass(frozen=True)
class Embedded:
    """What embeddings.npz holds of a run; `own`: the maps are the method's, not the encoder's."""

    arm: str
    seed: int
    own: bool
    images: int
    phases: dict[str, Phase]


def read_embeddings(experiment: Experiment, results: Path, dataset: str, model: str) -> list[Embedded]:
    """Of every arm the embeddings of its lowest seed that has any; damaged files are passed over."""
    found, classes = [], datasets.load(dataset).num_classes
    for arm in arm_order(experiment):
        for seed in sorted(experiment.seeds_of(arm)):
            path = experiment.run(dataset, model, arm, seed).folder(results) / "embeddings.npz"
            if (read := _read(path, arm, seed, classes)) is not None:
                found.append(read)
                break
    return found


def _read(path: Path, arm: str, seed: int, classes: int) -> Embedded | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in file.files}
        phases = {phase: _phase(content, phase, classes) for phase in PHASES if f"{phase}/silhouette" in content}
        return Embedded(arm, seed, str(content["kind"]) == "embeddings", len(content["images"]), phases)
    except (OSError, ValueError, TypeError, KeyError, IndexError, EOFError, zipfile.BadZipFile):
        return None


def _phase(content: dict[str, NDArray[Any]], phase: str, classes: int) -> Phase:
    """Raises KeyError, ValueError or TypeError if something is missing or has another shape."""
    silhouettes, encoder = (
        content[f"{phase}/{name}"].astype(float).tolist() for name in ("silhouette", "encoder_silhouette")
    )
    maps = []
    for number in range(1, len(silhouettes) + 1):
        labels, points, variance = (content[f"{phase}/{name}{number}"] for name in ("labels", "points", "variance"))
        if points.shape != (len(labels), len(variance)) or len(variance) < 2 or labels.max(initial=0) >= classes:
            raise ValueError
        maps.append(Points(labels.astype(np.uint8), points.astype(np.float64), variance.astype(np.float64)))
    return Phase(maps, silhouettes, encoder)


def embeddings_figure(experiment: Experiment, dataset: str, model: str, found: Sequence[Embedded]) -> Figure:
    """Arms down; across the layers, fine to coarse, before and after training. A point is a pixel, coloured by class.

    Above each panel is the mean silhouette in all dimensions, in brackets that of the encoder's own map.
    """
    title = setting_name(dataset, model)
    if not found:
        return only_text(f"{title}: no run has embeddings; records of earlier versions have none.")
    opened = datasets.load(dataset)
    text = _explained(experiment, title, found)
    shown = sorted({int(label) for each in found for of in each.phases.values() for m in of.maps for label in m.labels})
    names = [opened.classes[label] for label in shown]
    layers = max(len(of.encoder) for each in found for of in each.phases.values())
    figure = sheet(PAGE, 0.25 + note_height(text, PAGE) + legend_height(names, PAGE) + ROW * len(found))
    axes = figure.subplots(len(found), 2 * layers, squeeze=False)
    for each, line in zip(found, axes, strict=True):
        for place, axis in enumerate(line):
            layer, phase = divmod(place, 2)
            axis.set_gid(f"row={each.arm}")
            _panel(axis, each, PHASES[phase], layer, opened)
        name = "\n".join(textwrap.wrap(arm_name(experiment, each.arm), 12))
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontweight="bold", fontsize=6.5)
    for place, axis in enumerate(axes[0]):
        layer, phase = divmod(place, 2)
        axis.set_title(f"layer {layer + 1}\n{PHASES[phase]}\n{axis.get_title()}", fontsize=SMALL, pad=2)
    handles = [
        Line2D(
            [],
            [],
            ls="none",
            marker=_marker(label),
            mfc=_color(opened, label),
            mec=_edge(_color(opened, label)),
            mew=0.3,
            ms=4.5,
            label=name,
        )
        for label, name in zip(shown, names, strict=True)
    ]
    across = columns_that_fit(names, PAGE)
    figure.legend(handles=handles, loc="outside upper left", ncols=across, frameon=False, columnspacing=1.2)
    note(figure, text)
    return figure


def _explained(experiment: Experiment, title: str, found: Sequence[Embedded]) -> str:
    there = {each.arm for each in found}
    own = [arm_name(experiment, each.arm) for each in found if not each.own]
    seeds = sorted({each.seed for each in found})
    text = (
        f"{title}; seed {', '.join(map(str, seeds))}; before the first iteration and after the last. The same pixels "
        f"of {max(each.images for each in found)} evaluation images for all arms, drawn at random, equally many of "
        "every class if there are so many; unit vectors. "
        "Every panel has its own two principal axes and its own scale, and says what share of the variance they "
        "hold: compare how the classes part, not places. "
        "Number: the mean silhouette of the classes by cosine distance in all dimensions (1: apart, 0: mixed), in "
        "brackets that of the encoder's own map of that layer, which alone is like for like between arms. A method "
        "that makes one map of all layers is under layer 1."
    )
    if own:
        text += f" No embeddings of its own, so the encoder's maps are shown: {', '.join(own)}."
    if missing := [arm_name(experiment, arm) for arm in arm_order(experiment) if arm not in there]:
        text += f" Without embeddings (not run, or made before they were kept): {', '.join(missing)}."
    return text


def _panel(axis: Axes, each: Embedded, phase: str, layer: int, dataset: Dataset) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_box_aspect(1)
    for side in axis.spines.values():
        side.set_color("0.8")
    of = each.phases.get(phase)
    if of is None or layer >= max(len(of.encoder), len(of.maps)):
        axis.text(0.5, 0.5, "not recorded", transform=axis.transAxes, ha="center", va="center", size=SMALL, c="0.45")
        return
    encoder = f"({of.encoder[layer]:z.2f})" if each.own and layer < len(of.encoder) else ""
    if layer >= len(of.maps):
        axis.set_title(encoder, fontsize=SMALL, pad=2, color="0.3")
        for side in axis.spines.values():
            side.set_visible(False)
        return
    points = of.maps[layer]
    axis.set_title(f"{of.silhouettes[layer]:z.2f} {encoder}".strip(), fontsize=SMALL, pad=2)
    places = points.points[:, :2]
    for label in np.unique(points.labels):
        here = places[points.labels == label]
        color = _color(dataset, int(label))
        axis.scatter(
            here[:, 0],
            here[:, 1],
            s=4.5,
            marker=_marker(int(label)),
            color=color,
            edgecolors=_edge(color),
            linewidths=0.2,
        )
    if len(places):
        low, high = places.min(0), places.max(0)
        middle, reach = (low + high) / 2, 0.55 * max(float((high - low).max()), 1e-6)
        axis.set_xlim(middle[0] - reach, middle[0] + reach)
        axis.set_ylim(middle[1] - reach, middle[1] + reach)
    share = f"{100 * points.variance[:2].sum():.0f} %"
    axis.text(0.98, 0.02, share, transform=axis.transAxes, ha="right", va="bottom", size=5, bbox=PLATE)


def _marker(label: int) -> str:
    return MARKERS[label % len(MARKERS)]


def _color(dataset: Dataset, label: int) -> tuple[float, ...]:
    return tuple(part / 255 for part in dataset.colors[label])


def _edge(color: tuple[float, ...]) -> str:
    """Of a marker: dark around pale colours, which would be lost on the page, light between dark ones."""
    return "0.3" if np.dot(color, (0.3, 0.59, 0.11)) > 0.6 else "white"
