"""What is said under a table: protocols, rules, noise, what it could have shown, and what is missing."""

from collections.abc import Mapping, Sequence

from harness.evaluation.external_arms import EXTERNAL
from harness.experiment import Experiment
from harness.reporting.markup import points
from harness.reporting.records import Cell, display_name, is_control
from harness.reporting.summary import demonstration
from harness.reporting.verdicts import NOT_VERIFIED
from harness.statistics.noise import ENOUGH_SEEDS
from harness.statistics.pooled import Pooled

PROTOCOLS = {
    "whole": "the image as it is, one scale",
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
    "objects": "mIoU by object size, our definition: TP and FN over the ground truth's objects (connected components "
    "of a class) of a size, FP over the predicted ones; tiny up to 16x16 pixels, small 32x32, medium 96x96, large "
    "above.",
}
POOLED = (
    "An arm's interval takes the arm's own scatter over its seeds; here all arms have one, estimated from all of them "
    "(as Dunnett, 1955). Narrower, and right as long as no arm scatters several times as much as the others "
    "(docs/metrics.md)."
)
# Of the intervals in a column; the others can have no verdict.
CORRECTION = f"with Holm's correction over the arms of a column with {ENOUGH_SEEDS} seeds or more, A/A controls aside"


def notes(experiment: Experiment, found: Sequence[Cell], baselines: Sequence[str] = ()) -> list[str]:
    """What must be said under a table of these cells; their differences are to `baselines`, else the experiment's."""
    baseline = " or ".join(map(display_name, baselines or [experiment.baseline]))
    said = [
        *([demonstration(experiment)] if experiment.demonstration else []),
        "In percent: the mean over seeds, with its range and n, the number of seeds (asked for: "
        f"{', '.join(map(str, experiment.seeds))}).",
        f"With a sign: the difference to {baseline} in percentage points, paired "
        f"by seed and by image, and its 95 % interval, {CORRECTION}.",
        *(
            f"Protocol {protocol}: {PROTOCOLS[protocol]}."
            for protocol in dict.fromkeys(cell.protocol for cell in found)
        ),
        f"Absent classes ({experiment.absent}): {ABSENT[experiment.absent]}.",
        *_controls(experiment),
    ]
    for dataset in dict.fromkeys(cell.dataset for cell in found):
        of_set = [cell for cell in found if cell.dataset == dataset]
        images = max(cell.images for cell in of_set)
        units = dict.fromkeys(cell.interval.unit for cell in of_set if cell.interval)
        drawn = f"; the interval resamples them by {' or '.join(units)}" if units else ""
        fits = (experiment.schedule_of(dataset, cell.model).fit for cell in of_set)
        boxes = sorted({"x".join(map(str, fit)) for fit in fits if fit})
        drawn += f"; they are scaled into {' or '.join(boxes)} first" if boxes else ""
        remarks = dict.fromkeys(origin.data for cell in of_set for origin in cell.origins.values() if origin.data)
        drawn += "".join(f"; NOT the published data set ({remark})" for remark in remarks)
        said.append(f"{dataset}: {images} images{drawn}." if images else f"{dataset}: no run was evaluated.")
    if elsewhere := [display_name(name) for name, arm in experiment.arms.items() if arm.method == EXTERNAL]:
        said.append(f"Predictions made elsewhere and scored here, training unknown: {', '.join(elsewhere)}.")
    for name, arm in experiment.arms.items():
        if arm.method in NOT_VERIFIED:
            said.append(f"{display_name(name)}: {NOT_VERIFIED[arm.method]}.")
    said += _origins(found)
    said += _cautions({cell.interval.seeds for cell in found if cell.interval})
    return said + _holes(found)


def pooled_notes(pools: Mapping[str, Pooled]) -> list[str]:
    """What must be said under the table of pooled differences, {protocol: of its column}."""
    said = [
        f"The differences of the table above. {POOLED}",
        "95 % intervals, with Holm's correction over the arms of a column, from n seeds in common with the baseline, "
        "two at least. A/A controls, whose seeds are others, are left out. Bold: the interval leaves out 0.",
    ]
    for protocol, each in pools.items():
        least, most = (choose(bounds.detectable for bounds in each.bounds.values()) for choose in (min, max))
        said.append(
            f"{protocol}: standard deviation of a run beside its seed {points(each.deviation)} points, {each.freedom} "
            f"degrees of freedom (by single arms {points(each.smallest)} to {points(each.largest)}); detectable "
            f"{points(least)} to {points(most)} points."
        )
    return said


def _controls(experiment: Experiment) -> list[str]:
    """Which arms are the baseline again, and which train longer than the schedule says."""
    said = []
    for name, arm in experiment.arms.items():
        if is_control(experiment, name):
            seeds = ", ".join(str(seed + arm.seed_offset) for seed in experiment.seeds)
            said.append(
                f"A/A control: {display_name(name)} is {display_name(experiment.baseline)} once more (seeds {seeds}); "
                "what it gains is noise, and its interval shows how much of it."
            )
        if arm.longer != 1:
            said.append(f"{display_name(name)} trains {arm.longer:g} times as many iterations as the others.")
    return said


def _origins(found: Sequence[Cell]) -> list[str]:
    """On what machines the runs were trained, and which arms mix several versions of their method's code."""
    by_pair: dict[str, dict[str, list[str]]] = {}
    mixed: dict[str, list[str]] = {}
    for cell in found:
        machines = by_pair.setdefault(f"{cell.dataset} with {cell.model}", {})
        for origin in cell.origins.values():
            arms = machines.setdefault(origin.machine, [])
            arms += [display_name(cell.arm)] if display_name(cell.arm) not in arms else []
        if len({origin.source for origin in cell.origins.values()}) > 1:
            mixed[display_name(cell.arm)] = list(dict.fromkeys(each.commit for each in cell.origins.values()))
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


def _cautions(seeds: set[int]) -> list[str]:
    """How to read bold type, and intervals from `seeds` pairs of runs."""
    notes = [
        f"Bold: the interval leaves out 0, with {ENOUGH_SEEDS} seeds or more. Nothing is bold that is inside the noise."
    ]
    if 1 in seeds:
        notes.append(
            "An interval from one seed (images only, one seed) knows the noise of the test images and not that of "
            "training: it settles nothing about a method."
        )
    if 2 in seeds:
        notes.append(
            "An interval from two seeds is up to 12.7 standard errors wide to each side: too few for a verdict."
        )
    return notes


def _holes(found: Sequence[Cell]) -> list[str]:
    """The runs that are missing, each reason once, but for those that the table itself says all about."""
    seeds: dict[tuple[str, str, str, str], list[int]] = {}
    for cell in found:
        for seed, missing in cell.missing.items():
            if missing.reason or cell.values:
                listed = seeds.setdefault((cell.dataset, cell.model, str(missing), cell.arm), [])
                listed += [seed] if seed not in listed else []
    arms: dict[tuple[str, str, str, str], list[str]] = {}
    for (dataset, model, reason, arm), listed in seeds.items():
        arms.setdefault((dataset, model, reason, ", ".join(map(str, listed))), []).append(display_name(arm))
    return [
        f"Missing: {', '.join(names)} on {dataset} with {model}, seed {numbers}: {reason}."
        for (dataset, model, reason, numbers), names in arms.items()
    ]


def detectable(found: Sequence[Cell]) -> list[str]:
    """What the comparisons of mIoU could have shown: a line for every data set, model and protocol."""
    by_column: dict[tuple[str, str, str], list[str]] = {}
    for cell in found:
        if cell.metric == "miou" and cell.interval and cell.interval.detectable is not None:
            texts = by_column.setdefault((cell.dataset, cell.model, cell.protocol), [])
            texts.append(f"{display_name(cell.arm)} {points(cell.interval.detectable)}")
    return [
        f"Detectable on {dataset} with {model}, {protocol}: {', '.join(texts)} points. A true difference of that size "
        "would be found in four of five such experiments (with one seed: between these very networks)."
        for (dataset, model, protocol), texts in by_column.items()
    ]
