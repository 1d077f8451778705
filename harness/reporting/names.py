"""What arms are called, and their colour and marker: fixed by method, the same in every figure and experiment."""

from zlib import crc32

from harness.evaluation.groups import arm_order, display_name
from harness.experiment import discovery
from harness.experiment.schema import Experiment
from harness.runs.external_arms import EXTERNAL
from harness.statistics.scores import METRICS

# Of a luminance that stands out from white and from the page's dark ground alike (a test computes it).
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


def arm_name(experiment: Experiment, name: str) -> str:
    """The name that people read: the method's title, and what the arm adds to it.

    "Pixel contrast", "Pixel contrast + memory" (the arm pixel_contrast_memory), "Cross entropy, 2.9× longer", and
    "Cross entropy, equal compute" with `compute_of`. Another arm that is not named after its method keeps its own name.
    """
    arm = experiment.arms[name]
    if arm.compute_of is not None:
        return f"{discovery.about(arm.method).title}, equal compute"
    if arm.longer > 1 and name in (arm.method, f"{arm.method}_longer"):
        return f"{discovery.about(arm.method).title}, {arm.longer:g}× longer"
    return name_by_method(name, arm.method)


def name_by_method(name: str, method: str | None) -> str:
    """The name of an arm of which its method alone is known, as from a record of another experiment."""
    if method is None or not discovery.is_method(method) or not name.startswith(method):
        return display_name(name)
    title, addition = discovery.about(method).title, display_name(name.removeprefix(method)).strip()
    if addition.isdigit():
        return f"{title}, {int(addition):,} iterations"
    return f"{title} + {addition}" if addition else title


def method_name(method: str) -> str:
    """The title of a method, "Contextrast++", and what follows its name: "cross_entropy (again)"."""
    name, space, rest = method.partition(" ")
    return name_by_method(name, name) + space + rest


def metric_title(name: str) -> str:
    """A metric as people read it: "boundary_miou@3px" is "Boundary mIoU (3px)", "miou_tail" "mIoU, tail classes"."""
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
    """What the gains of an experiment are over, inside a sentence."""
    return in_sentence(experiment, experiment.baseline)


def arm_styles(experiment: Experiment) -> dict[str, tuple[str, str]]:
    """Colour and marker of every arm, the baseline first.

    An arm that is the only one of its method has the method's, whatever it is called. One without a colour of its own
    takes a spare one by its name, and another where two of an experiment would share it, as long as there are any.
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
