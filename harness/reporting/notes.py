"""The notes under a table: a few short ones, and folded below them the facts about its runs."""

from collections.abc import Iterable, Sequence

import numpy as np

from harness.comparison import Cell, halves
from harness.experiment.schema import Experiment
from harness.reporting.markup import DETAILS, points
from harness.reporting.names import arm_name, in_sentence
from harness.reporting.published import not_verified
from harness.reporting.summary import demonstration
from harness.runs.external_arms import EXTERNAL
from harness.statistics.scores import METRICS

PROTOCOLS = {
    "whole": "the whole image at one scale",
    "slide": "a window slid over the image, softmax averaged where windows overlap",
    "ms_flip": "scales 0.75 to 2.0 in steps of 0.25, each with its mirror image, softmax averaged",
}
ABSENT = {
    "skip": "a class in neither ground truth nor prediction is left out of the mean",
    "zero": "every class counts in the mean, an absent one as 0",
    "require_ground_truth": "a class without ground truth is left out of the mean",
}
MEANING = {
    "region": "mIoU: TP, FP and FN summed over all images, then IoU = TP / (TP + FP + FN), then the mean over classes.",
    "boundary": "Boundary mIoU (Cheng et al., CVPR 2021): the IoU of the bands along each class's edge in prediction "
    "and ground truth. A column is the band's width: pixels, or a share of the image's diagonal.",
    "trimap": "Trimap mIoU: the mIoU of the pixels near an edge of the ground truth. A column is how near: pixels, or "
    "a share of the image's diagonal.",
    "frequency": "Mean IoU of a third of the classes each, from the most frequent (head) to the rarest (tail) by "
    "pixels of the training split.",
    "metrics": "; ".join(f"{each.title}: {each.about}" for name, each in METRICS.items() if name != "miou") + ".",
    "objects": "mIoU by object size, our definition: TP and FN over the ground truth's objects (connected components "
    "of a class) of a size, FP over the predicted ones; tiny up to 16x16 pixels, small 32x32, medium 96x96, large "
    "above.",
}
MANY = "one of many comparisons: no verdicts here"  # why a table is folded and without bold type


def notes(experiment: Experiment, found: Sequence[Cell], bold: bool = True, baselines: Sequence[str] = ()) -> list[str]:
    """What a reader needs under a table of these cells, in four notes of a line each or fewer.

    `baselines` are what the gains are over, by default the experiment's. `bold`: the table prints verdicts bold.
    """
    over = " or ".join(in_sentence(experiment, arm) for arm in baselines or [experiment.baseline])
    said = f"Percent, mean ± SD over seeds; gain over {over} in points"
    if any(cell.gain and cell.gain.low is not None for cell in found):
        said += ", 95 % interval for all arms at once"
        said += " (bold: it leaves out 0)" if bold else ""
    control = [aa_text(cell, found) for cell in found if bold and cell.is_baseline][:1]
    shown = [demonstration(experiment)] if experiment.demonstration else []
    last = f"How the intervals are made, and what they do not know: {DETAILS}."
    if reasons := dict.fromkeys(cell.no_interval for cell in found if cell.gain and cell.gain.low is None):
        last = f"{'; '.join(reasons).capitalize()}. More: {DETAILS}."
    return [*shown, f"{said}.", *filter(None, control), *_images(found), last]


def aa_text(baseline: Cell, found: Sequence[Cell]) -> str:
    """What two halves of the baseline's runs differ by, in a sentence; empty for fewer than four runs.

    A second sentence says what the gains of the arms in `found` would be over the baseline's runs with their own seeds,
    if all have the same ones and the baseline has more.
    """
    two = halves(baseline)
    if two is None or len(baseline.values) < 4:
        return ""
    first, second, difference = two
    seeds = " and ".join(_listed(half) for half in (first, second))
    said = f"A/A: the baseline's seeds {seeds} differ by {points(abs(difference))} points."
    rivals = [cell for cell in found if cell.gain and cell.column == baseline.column]
    (shared, *others) = {frozenset(cell.values) for cell in rivals} or {frozenset()}
    if others or not shared or not shared < set(baseline.values):
        return said
    of_all, of_shared = (np.mean([baseline.values[seed] for seed in each]) for each in (baseline.values, shared))
    change = f"{points(abs(float(of_all - of_shared)))} points {'lower' if of_all < of_shared else 'higher'}"
    return f"{said} Over seeds {_listed(shared)} alone, the other arms' own, all gains are {change}."


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))


def _images(found: Sequence[Cell]) -> list[str]:
    """How many images of which data set, by which protocol."""
    images = {cell.dataset: cell.images for cell in found if cell.images}
    said = ", ".join(f"{dataset} {number} images{_remarks(found, dataset)}" for dataset, number in images.items())
    protocols = " and ".join(dict.fromkeys(cell.protocol for cell in found))
    return [f"Test set: {said}, protocol {protocols}."] if said else []


def _remarks(found: Sequence[Cell], dataset: str) -> str:
    """A remark in parentheses if the data of these runs are not the published set; else empty."""
    origins = [origin for cell in found if cell.dataset == dataset for origin in cell.origins.values()]
    remarks = dict.fromkeys(origin.data for origin in origins if origin.data)
    return f" (NOT the published data set: {'; '.join(remarks)})" if remarks else ""


def facts(experiment: Experiment, found: Sequence[Cell]) -> list[str]:
    """All else about the runs of these cells: protocols, rules, machines, odd arms, and what is missing and why."""
    said = [f"Protocol {name}: {PROTOCOLS[name]}." for name in dict.fromkeys(cell.protocol for cell in found)]
    said.append(f"Absent classes ({experiment.absent}): {ABSENT[experiment.absent]}.")
    for dataset in dict.fromkeys(cell.dataset for cell in found):
        of_set = [cell for cell in found if cell.dataset == dataset]
        images = max(cell.images for cell in of_set)
        units = dict.fromkeys(cell.unit for cell in of_set if cell.unit)
        drawn = f"; resampled by {' or '.join(units)}" if units else ""
        fits = (experiment.schedule_of(dataset, cell.model).fit for cell in of_set)
        boxes = sorted({"x".join(map(str, fit)) for fit in fits if fit})
        drawn += f"; scaled into {' or '.join(boxes)} first" if boxes else ""
        said.append(f"{dataset}: {images} images{drawn}." if images else f"{dataset}: no run was evaluated.")
    lengths: dict[float, list[str]] = {}
    for name, arm in experiment.arms.items():
        lengths.setdefault(arm.longer, []).append(arm_name(experiment, name))
    said += [
        f"{factor:g} times the schedule's iterations: {'; '.join(names)}."
        for factor, names in lengths.items()
        if factor != 1
    ]
    for name, arm in experiment.arms.items():
        if arm.compute_of is not None:
            ratios = [f"{ratio:g} on {pair}" for pair, ratio in arm.compute_ratio.items()]
            paced = in_sentence(experiment, arm.compute_of)
            said.append(
                f"{arm_name(experiment, name)} trains as long as {paced} takes, by measured step time: "
                f"{', '.join(ratios)} times as many iterations."
            )
    if elsewhere := [arm_name(experiment, name) for name, arm in experiment.arms.items() if arm.method == EXTERNAL]:
        said.append(f"Predictions made elsewhere and scored here, training unknown: {', '.join(elsewhere)}.")
    for name, arm in experiment.arms.items():
        if text := not_verified(arm.method):
            said.append(f"{arm_name(experiment, name)}: {text}.")
    return said + _origins(experiment, found) + _holes(experiment, found)


def _origins(experiment: Experiment, found: Sequence[Cell]) -> list[str]:
    """On what machines the runs were trained, and which arms mix several versions of their method's code."""
    by_pair: dict[str, dict[str, list[str]]] = {}
    mixed: dict[str, list[str]] = {}
    for cell in found:
        name = arm_name(experiment, cell.arm)
        machines = by_pair.setdefault(f"{cell.dataset} with {cell.model}", {})
        for origin in cell.origins.values():
            arms = machines.setdefault(origin.machine, [])
            arms += [name] if name not in arms else []
        if len({origin.source for origin in cell.origins.values()}) > 1:
            mixed[name] = list(dict.fromkeys(each.commit for each in cell.origins.values()))
    alike: dict[str, list[str]] = {}
    said = []
    for pair, machines in by_pair.items():
        if len(machines) == 1:
            alike.setdefault(next(iter(machines)), []).append(pair)
        elif machines:
            listed = "; ".join(f"{machine} ({', '.join(arms)})" for machine, arms in machines.items())
            said.append(f"Not all trained on one kind of machine, {pair}: {listed}.")
    for machine, pairs in alike.items():
        where = "" if len(alike) == 1 and not said else f": {', '.join(pairs)}"
        said.append(f"Trained on {machine}{where}.")
    for weights in dict.fromkeys(each.weights for cell in found for each in cell.origins.values() if each.weights):
        said.append(f"Initial weights that do not fit in full: {weights}.")
    for arm, commits in mixed.items():
        said.append(f"{arm}: the source of its method was not the same for all seeds (commits {', '.join(commits)}).")
    return said


def _holes(experiment: Experiment, found: Sequence[Cell]) -> list[str]:
    """The runs that are missing, each reason once, but for those that the table itself says all about."""
    seeds: dict[tuple[str, str, str, str], list[int]] = {}
    for cell in found:
        for seed, missing in cell.missing.items():
            if missing.reason or cell.values:
                listed = seeds.setdefault((cell.dataset, cell.model, str(missing), cell.arm), [])
                listed += [seed] if seed not in listed else []
    arms: dict[tuple[str, str, str, str], list[str]] = {}
    for (dataset, model, reason, arm), listed in seeds.items():
        arms.setdefault((dataset, model, reason, ", ".join(map(str, listed))), []).append(arm_name(experiment, arm))
    return [
        f"Missing: {'; '.join(names)} on {dataset} with {model}, seed {numbers}: {reason}."
        for (dataset, model, reason, numbers), names in arms.items()
    ]
