"""Which test images are shown, and with which runs: by a rule, never by hand."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from harness import datasets
from harness.datasets import Dataset, Sample
from harness.datasets.images import read_label
from harness.datasets.pictures import Pixels, Window, best_window
from harness.errors import UserError
from harness.evaluation.counts import REGION, Counts, count_image
from harness.evaluation.groups import arm_order
from harness.experiment.schema import Experiment
from harness.reporting.names import arm_name, baseline_name, in_sentence
from harness.runs.state import Missing, read_record
from harness.statistics.scores import miou


@dataclass(frozen=True)
class Shown:
    """An arm in the figure: the run that represents it, and its region counts int64 [K, 3] by image id."""

    arm: str
    seed: int
    folder: Path
    counts: dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Example:
    """A test image: image [H, W, 3], ground truth [H, W], label map and mIoU in percent by arm, why it was chosen.

    `window` is where the judged arm and the baseline differ most in what they get right. The mIoU of a picture is over
    the classes in its ground truth, as in `miou_image`.
    """

    id: str
    why: str
    image: Pixels
    label: Pixels
    predictions: dict[str, Pixels]
    scores: dict[str, float]
    window: Window


@dataclass(frozen=True)
class Examples:
    """The examples of a data set and a model: the arms that have label maps, and why the others are not shown.

    By the mIoU of `judged`, less that of the baseline if that is shown, the images were chosen.
    """

    dataset: Dataset
    model: str
    arms: list[Shown]
    chosen: list[Example]
    absent: list[str]
    rule: str
    judged: str


def choose(values: Mapping[str, float]) -> dict[str, str]:
    """Of image ids with a figure each those with the largest, the smallest and the middle one: {id: which}.

    Undefined figures (NaN) are left out; of equal ones the first image comes first. Fewer than three ids: all of them.
    """
    defined = [image_id for image_id, value in values.items() if not np.isnan(value)]
    order = sorted(defined, key=lambda image_id: values[image_id])  # stable: ties stay in the images' order
    chosen: dict[str, str] = {}
    for place, which in ((len(order) - 1, "largest"), (0, "smallest"), (len(order) // 2, "median")):
        if order:
            chosen.setdefault(order[place], which)
    return chosen


def gather(experiment: Experiment, results: Path, name: str, model: str, root: Path | None = None) -> Examples:
    """Choose images of the data set `name` and read what is shown of them.

    `root` is the data set's folder; default: the experiment's, else the one that the environment names.

    Every arm is shown by its first seed that has label maps. The judged arm is the one with the highest mIoU except the
    baseline; images are chosen by its per-image mIoU less that of the baseline. Without the baseline (or without
    another arm) they are chosen by the mIoU of what is there. Raises UserError if no run has label maps, if there is no
    data, or if the two do not belong together.
    """
    arms, absent = _arms(experiment, results, name, model)
    if not arms:
        raise UserError(f"no run kept its label maps of the protocol {experiment.protocols[0]} ({'; '.join(absent)})")
    dataset = _open(experiment, results, name, root)
    samples = {sample.id: sample for sample in dataset.samples(dataset.evaluation_split)}
    ids = [image_id for image_id in samples if all(_label_map(experiment, arm, image_id).is_file() for arm in arms)]
    if not ids:
        raise UserError(f"no image of {dataset.name} has label maps of all of {', '.join(arm.arm for arm in arms)}")

    overall = {arm.arm: float(miou(np.sum([arm.counts[each] for each in ids], axis=0))) for arm in arms}
    rivals = [arm for arm in arms if arm.arm != experiment.baseline]
    judged = max(rivals or arms, key=lambda arm: overall[arm.arm])
    baseline = next((arm for arm in arms if arm.arm == experiment.baseline and arm is not judged), None)
    values = {each: _score(judged, each) - (_score(baseline, each) if baseline else 0.0) for each in ids}
    found = choose(values)
    if not found:
        raise UserError(f"no image of {dataset.name} has a labelled pixel, so none can be chosen by its mIoU")
    over = f" less that of {baseline_name(experiment)}" if baseline else ""
    rule = (
        f"Images chosen by the mIoU of {in_sentence(experiment, judged.arm)}"
        + (", the arm with the highest mIoU of those shown," if len(rivals) > 1 else "")
        + f"{over}: the largest, the smallest and the median."
    )
    examples = []
    for image_id, which in found.items():
        why = _gain(which, values[image_id]) if baseline else f"{which}, {values[image_id]:.1f}"
        examples.append(_example(experiment, samples[image_id], dataset, arms, judged, baseline, why))
    return Examples(dataset, model, arms, examples, absent, rule, judged.arm)


def _open(experiment: Experiment, results: Path, name: str, root: Path | None) -> Dataset:
    dataset = datasets.load(name, datasets.resolve_root(name, root or experiment.roots.get(name), results))
    datasets.prepare(dataset)
    return dataset


def _example(
    experiment: Experiment,
    sample: Sample,
    dataset: Dataset,
    arms: list[Shown],
    judged: Shown,
    baseline: Shown | None,
    why: str,
) -> Example:
    image, label = dataset.read(sample)
    predictions = {arm.arm: read_label(_label_map(experiment, arm, sample.id)) for arm in arms}
    for arm in arms:
        _check(arm, predictions[arm.arm], sample, label, dataset)
    valid = label != datasets.IGNORE_INDEX
    right = predictions[judged.arm] == label
    other = predictions[baseline.arm] == label if baseline else np.ones_like(right)
    scores = {arm.arm: _score(arm, sample.id) for arm in arms}
    return Example(sample.id, why, image, label, predictions, scores, best_window(valid & (right != other)))


def _gain(which: str, difference: float) -> str:
    """What a chosen difference is called: the largest is a loss if no arm gains, and the other way round."""
    if which == "largest":
        which = "largest gain" if difference > 0 else "smallest loss"
    elif which == "smallest":
        which = "largest loss" if difference < 0 else "smallest gain"
    return f"{which}, {difference:+.1f}"


def _score(arm: Shown, image_id: str) -> float:
    return float(miou(arm.counts[image_id], "require_ground_truth"))  # as in miou_image


def _label_map(experiment: Experiment, arm: Shown, image_id: str) -> Path:
    return arm.folder / "predictions" / experiment.protocols[0] / f"{image_id}.png"


def _arms(experiment: Experiment, results: Path, dataset: str, model: str) -> tuple[list[Shown], list[str]]:
    """Of every arm the first seed that has label maps; and for the other arms why they have none."""
    shown: list[Shown] = []
    absent: dict[str, list[str]] = {}
    for arm in arm_order(experiment):
        reasons = []
        for seed in experiment.seeds_of(arm):
            run = experiment.run(dataset, model, arm, seed)
            record = read_record(experiment, run, results)
            folder = run.folder(results)
            if isinstance(record, Missing):
                reasons.append(record.status)
            elif not (folder / "predictions" / experiment.protocols[0]).is_dir():
                reasons.append("no label maps")
            else:
                counts = Counts.load(folder / "counts.npz")
                region = counts.tables[experiment.protocols[0]][REGION]
                shown.append(Shown(arm, seed, folder, dict(zip(counts.image_ids, region, strict=True))))
                break
        else:
            absent.setdefault(", ".join(dict.fromkeys(reasons)), []).append(arm_name(experiment, arm))
    if not shown and len(absent) == 1:  # the names of all arms would say no more
        return shown, list(absent)
    return shown, [f"{', '.join(names)}: {reason}" for reason, names in absent.items()]


def _check(arm: Shown, prediction: Pixels, sample: Sample, label: Pixels, dataset: Dataset) -> None:
    """Raise UserError if an arm's label map, held against `label`, does not give the counts of its run."""
    try:
        found = count_image(prediction, label, dataset.num_classes, widths=())[REGION]
        same = np.array_equal(found, arm.counts[sample.id])
    except ValueError:  # another size, a class that the data set does not have
        same = False
    if not same:
        raise UserError(
            f"the label map of {sample.id} in {arm.folder} does not fit the data in {dataset.root}: "
            "pass the root that it was evaluated on, or evaluate the run again"
        )
