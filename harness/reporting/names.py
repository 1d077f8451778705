"""Names that readers see, of arms, data sets, networks, protocols and metrics; and every arm's color and marker.

Colors and markers are fixed by method, the same in every figure and experiment.
"""

from zlib import crc32

from harness import datasets, models
from harness.evaluation.groups import arm_order, display_name
from harness.experiment import discovery
from harness.experiment.schema import Experiment
from harness.runs.external_arms import EXTERNAL
from harness.statistics.scores import METRICS

# Readable on white and on the page's dark background alike (a test computes the contrast).
COLORS = {
    "cross_entropy": "#7a818c",
    "pixel_contrast": "#3b82c4",
    "pixel_contrast_memory": "#16929f",
    "pixel_contrast_synthetic": "#8c6bd1",
    "region_contrast": "#2e9452",
    "multiscale_contrast": "#b97a16",
    "contextrast": "#dd5236",
    "contextrast_pp": "#d23f8b",
    "car": "#868b1f",
    "pne": "#a5674a",
    "cross_entropy_longer": "#8d7f5f",
    "deep_supervision": "#5b6ee1",
    "lovasz_softmax": "#4f8f3a",
    "jaccard_metric": "#b8489f",
    "ohem": "#3f8a86",
    "active_boundary": "#c0564f",
    "conditional_boundary": "#6d7fa8",
    "supervised_pixel_contrast": "#2a8ab5",
    "prototypes": "#a8683a",
}
SPARE_COLORS = ("#a06cc4", "#9c7b1e", "#c45f86", "#4a7fd0", "#7f8a3c", "#b06a38", "#5f7f96", "#a2577f", "#38908f")
MARKERS = "osD^v<>ph"
PROTOCOLS = {"whole": "whole image", "slide": "sliding window", "ms_flip": "multi-scale and flip"}


def dataset_name(key: str) -> str:
    """The title in the data set's YAML, "CamVid"; the key itself for a data set that is not installed."""
    return datasets.load(key).title if key in datasets.names() else key


def model_name(key: str) -> str:
    """The title in the network's YAML, "HRNet-W48"; the key itself for a YAML without one, or no YAML."""
    return (key in models.names() and models.load_spec(key).title) or key


def setting_name(dataset: str, model: str) -> str:
    """A data set with a network: "CamVid, HRNet-W48"."""
    return f"{dataset_name(dataset)}, {model_name(model)}"


def protocol_name(key: str) -> str:
    """An evaluation protocol: "multi-scale and flip" for ms_flip."""
    return PROTOCOLS.get(key, key)


def arm_name(experiment: Experiment, name: str) -> str:
    """The arm's method by its title, and how the arm differs from it.

    "Pixel contrast", "Pixel contrast + memory" (an option that the method has), "Contextrast, tenth" (a variant),
    "Cross entropy, 2.9× longer", "Cross entropy, equal compute" (`compute_of`). An arm that is not named after its
    method keeps its own name.
    """
    arm = experiment.arms[name]
    if arm.compute_of is not None:
        return f"{discovery.about(arm.method).title}, equal compute"
    if arm.longer > 1 and name in (arm.method, f"{arm.method}_longer"):
        return f"{discovery.about(arm.method).title}, {arm.longer:g}× longer"
    return name_by_method(name, arm.method)


def name_by_method(name: str, method: str | None) -> str:
    """The same when only the arm's method is known, as from another experiment's record."""
    if method is None or not discovery.is_method(method) or not name.startswith(method):
        return display_name(name)
    title, difference = discovery.about(method).title, display_name(name.removeprefix(method)).strip()
    if not difference:
        return title
    if difference.isdigit():
        return f"{title}, {int(difference):,} iterations"
    return f"{title}{' +' if difference in discovery.options(method) else ','} {difference}"


def method_name(method: str) -> str:
    """A method's title, "Contextrast++", with what follows the key: "cross_entropy (again)"."""
    name, space, rest = method.partition(" ")
    return name_by_method(name, name) + space + rest


def metric_title(name: str) -> str:
    """A metric's name: "Boundary mIoU (3px)" for boundary_miou@3px, "mIoU, tail classes" for miou_tail."""
    if name in METRICS:
        return METRICS[name].title
    name, _, width = name.partition("@")
    if name.startswith("miou_"):
        part = name.removeprefix("miou_")
        shown = f"mIoU, {part.removeprefix('objects_')} {'objects' if part.startswith('objects_') else 'classes'}"
    else:
        shown = name.replace("_", " ").replace("miou", "mIoU").replace("dice", "Dice")
        shown = shown if shown.startswith("mIoU") else shown[:1].upper() + shown[1:]
    if width:
        shown += f" ({width})" if width.endswith("px") else f" ({width} of the diagonal)"
    return shown


def in_sentence(experiment: Experiment, name: str) -> str:
    """The arm's name inside a sentence: "cross entropy", but "Contextrast" and "CAR"."""
    shown, arm = arm_name(experiment, name), experiment.arms[name]
    titled = arm.method != EXTERNAL and (name.startswith(arm.method) or arm.compute_of is not None)
    if titled and " " in discovery.about(arm.method).title:
        return shown[0].lower() + shown[1:]
    return shown


def baseline_name(experiment: Experiment) -> str:
    """The experiment's baseline inside a sentence."""
    return in_sentence(experiment, experiment.baseline)


def arm_styles(experiment: Experiment) -> dict[str, tuple[str, str]]:
    """{arm: (color, marker)}, the baseline first.

    The only arm of a method has the method's color, whatever the arm is called. An arm without a fixed color takes a
    spare one, chosen by its name; two arms of an experiment share a color only when none is left.
    """
    methods = [arm.method for arm in experiment.arms.values()]
    styles: dict[str, tuple[str, str]] = {}
    later = []
    for name in arm_order(experiment):
        method = experiment.arms[name].method
        key = name if name in COLORS or methods.count(method) > 1 else method
        if key in COLORS and COLORS[key] not in {color for color, _ in styles.values()}:
            styles[name] = COLORS[key], MARKERS[list(COLORS).index(key) % len(MARKERS)]
        else:
            later.append(name)
    palette = [*SPARE_COLORS, *COLORS.values()]
    for name in sorted(later):
        first = crc32(name.encode()) % len(SPARE_COLORS)
        order = [*SPARE_COLORS[first:], *SPARE_COLORS[:first], *COLORS.values()]
        taken = {color for color, _ in styles.values()}
        color = next((each for each in order if each not in taken), order[0])
        marks = {marker for _, marker in styles.values()}
        start = palette.index(color) % len(MARKERS)
        around = MARKERS[start:] + MARKERS[:start]
        styles[name] = color, next((each for each in around if each not in marks), around[0])
    return {name: styles[name] for name in arm_order(experiment)}
