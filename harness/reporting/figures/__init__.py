"""Figures of an experiment, as PNG and PDF, one module a family."""

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.experiment.schema import Experiment
from harness.reporting.lengths import lengths
from harness.reporting.names import dataset_name, setting_name

if TYPE_CHECKING:
    from harness.reporting.measured import Measured

# What each figure shows: captions of the report, in its order.
CAPTIONS = {
    "settings": "Gains over the baseline in all data sets and networks, and their means.",
    "miou": "mIoU of every arm and its gain over the baseline.",
    "gains": "Gains over the baseline with their 95 % intervals, by protocol.",
    "schedules": "mIoU and gain by number of iterations.",
    "boundary": "Boundary mIoU and trimap mIoU by the width of the band, and the gains over the baseline.",
    "frequency": "Gains over the baseline in frequent, medium and rare classes.",
    "classes": "Gains over the baseline by class.",
    "confusion": "Which classes are confused, relative to the baseline.",
    "latency": "mIoU against inference time per image.",
    "training": "Training losses.",
    "diagnostics": "Diagnostics that the methods log during training.",
    "negatives": "Boundary-aware sampling: the kept negatives, their similarity and distance from the error's edge.",
    "embeddings": "Features of each class at each layer, before and after training.",
}


PER_DATASET = ("gains", "boundary", "frequency")
PER_PAIR = ("classes", "confusion", "negatives", "embeddings")
FIGURES_A_PROCESS = 8  # fewer are drawn sooner than a process has started


def figure_names(experiment: Experiment) -> dict[str, str]:
    """The figures that `write_figures` writes, without suffixes, and a caption for each. Imports nothing heavy."""
    names: dict[str, str] = {}
    for family, caption in CAPTIONS.items():
        if family == "settings" and len(experiment.pairs()) < 2:
            continue
        if family == "schedules":
            pairs = [pair for pair in experiment.pairs() if lengths(experiment, *pair)]
            names |= {f"{family}_{'_'.join(pair)}": f"{setting_name(*pair)}: {caption}" for pair in pairs}
        elif family in PER_DATASET:
            names |= {f"{family}_{dataset}": f"{dataset_name(dataset)}: {caption}" for dataset in experiment.datasets}
        elif family in PER_PAIR:
            names |= {f"{family}_{'_'.join(pair)}": f"{setting_name(*pair)}: {caption}" for pair in experiment.pairs()}
        else:
            names[family] = caption
    return names


def write_figures(
    experiment: Experiment,
    results: Path,
    measured: "Sequence[Measured] | None" = None,
    processes: int | None = None,
    folder: Path | None = None,
) -> list[Path]:
    """Write figures/<name>.{png,pdf,svg} of `results`/reports/<experiment> for all `figure_names`; returns the PNGs.

    A figure without data says so. `measured` saves reading the records again; many figures are drawn by up to
    `processes` processes, by default one a core. `folder` is where they go instead.
    """
    from harness.reporting.figures import (
        classes,
        confusion,
        curves,
        edges,
        embeddings,
        gains,
        latency,
        negatives,
        schedules,
        training,
    )
    from harness.reporting.measured import measure

    measured = measure(experiment, results) if measured is None else measured
    found = curves.read_curves(experiment, results)
    jobs: dict[str, tuple[Any, ...]] = {"miou": (gains.miou_figure, experiment, measured)}
    if len(experiment.pairs()) > 1:
        jobs["settings"] = (gains.settings_figure, experiment, measured)
    for dataset in experiment.datasets:
        of_set = [each for each in measured if each.dataset == dataset]
        jobs[f"gains_{dataset}"] = (gains.gains_figure, experiment, of_set)
        jobs[f"boundary_{dataset}"] = (edges.boundary_figure, experiment, of_set)
        jobs[f"frequency_{dataset}"] = (classes.frequency_figure, experiment, of_set)
    for each in measured:
        if each.schedules:
            jobs[f"schedules_{each.dataset}_{each.model}"] = (
                *(schedules.schedules_figure, experiment, each.title),
                each.schedules,
            )
        jobs[f"classes_{each.dataset}_{each.model}"] = (classes.classes_figure, experiment, each)
        jobs[f"confusion_{each.dataset}_{each.model}"] = (confusion.confusion_figure, experiment, each)
    jobs["latency"] = (latency.latency_figure, experiment, measured, latency.read_latency(results))
    jobs["training"] = (training.training_figure, experiment, found)
    jobs["diagnostics"] = (training.diagnostics_figure, experiment, found)
    for each in measured:
        pair = each.dataset, each.model
        jobs[f"negatives_{'_'.join(pair)}"] = (negatives.negatives_figure, experiment, each.title, found[each.title])
        sample = embeddings.read_embeddings(experiment, results, *pair)
        jobs[f"embeddings_{'_'.join(pair)}"] = (embeddings.embeddings_figure, experiment, *pair, sample)

    folder = folder or Path(results) / "reports" / experiment.name / "figures"
    processes = min(processes or os.cpu_count() or 1, len(jobs) // FIGURES_A_PROCESS)
    if processes < 2:
        for name, job in jobs.items():
            _draw(folder / name, *job)
    else:
        with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
            for drawn in [pool.submit(_draw, folder / name, *job) for name, job in jobs.items()]:
                drawn.result()
    return [folder / f"{name}.png" for name in figure_names(experiment)]


def _draw(path: Path, figure: Callable[..., Any], *arguments: Any) -> None:
    import matplotlib as mpl
    import seaborn as sns

    from harness.reporting.figures.style import STYLE, save

    with sns.axes_style("ticks"), mpl.rc_context(STYLE):  # type: ignore[arg-type]
        save(figure(*arguments), path)
