"""Recognises common mistakes with a data set's files. Each function returns a phrase that says what to do, or ""."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import numpy as np

from harness.datasets import images
from harness.datasets.dataset import Dataset
from harness.datasets.readers import Sample
from harness.datasets.spec import Spec
from harness.errors import UserError

LOOKS = 200  # evenly spaced label files whose values are examined
SUSPECTS = 20  # unreadable files that are examined
FAR, NEAR = 0.3, 0.1  # distances between class shares
SCARCEST, CLEARLY = 0.01, 3.0  # see `id_order`
PHOTO_COLORS = 256  # a label map has fewer
FULL_ADE20K = (
    "this is ADE20K's full release with about 3,000 classes; the benchmark with 150 classes is another download: "
    "get ADEChallengeData2016.zip"
)
AS_PUBLISHED = "use the labels as the data set distributes them"


def wrong_root(dataset: Dataset, root: Path) -> str:
    """Which other data set is under a root that has none of this one's layouts."""
    from harness import datasets

    if dataset.name == "ade20k" and next(root.rglob("*_seg.png"), None):
        return FULL_ADE20K
    fitting = [name for name in datasets.names() if name != dataset.name and datasets.load(name, root).found_layout()]
    return f"the folders are those of {' or '.join(fitting)}: use --dataset {fitting[0]}" if fitting else ""


def wrong_labels(dataset: Dataset, failed: Sequence[Sample], samples: Sequence[Sample]) -> tuple[Sample, str] | None:
    """One of the `failed` samples and why it could not be read; None if no common mistake fits.

    samples: all of the split.
    """
    if dataset.spec.layout.encoding == "mat":
        return None
    suspects = failed[:SUSPECTS]
    for sample in suspects:
        if why := _wrong_file(dataset, sample):
            return sample, why
    if dataset.spec.layout.encoding == "colors":
        return None
    wrong = [sample for sample in suspects if _stored(sample) - _values(dataset.spec)]
    found = set().union(*map(_stored, [*wrong, *samples[:: -(-len(samples) // LOOKS)]])) if wrong else set()
    others = {spec.layout.values: _values(spec) for spec in dataset.specs if spec.layout.encoding == "ids"}
    why = explain_values(found, dataset.spec, {str(name): values for name, values in others.items()})
    return (wrong[0], why) if why else None


def explain_values(found: AbstractSet[int], spec: Spec, others: Mapping[str, AbstractSet[int]]) -> str:
    """Why labels hold the values `found`, some of which `spec` does not allow.

    others: {name of label values: the values} for all layouts; `found` may be another layout's raw ids. Labels are
    shifted by one if all values fit after a shift and the value at the far end is missing (255 and 0 are neighbours, as
    in mmsegmentation's reduce_zero_label).
    """
    allowed = _values(spec)
    classes, wrong = {value for entry in spec.classes for value in entry.labels}, found - allowed
    if not wrong:
        return ""
    for name, values in others.items():
        if name != spec.layout.values and found <= values and len(wrong) > 1:
            return f"the labels hold {name}, but {spec.layout.values} are expected: {AS_PUBLISHED}"
    reasons = []
    for shift, how, ends in ((-1, "subtracted", {min(allowed)}), (1, "added", {max(classes), max(allowed)})):
        if ends - found and {(value + shift) % 256 for value in found} <= allowed:
            reasons.append(f"all labels fit when 1 is {how}: they are shifted by one")
    if wrong == {max(classes) + 1} and spec.ignored_labels and not found & set(spec.ignored_labels):
        reasons.append("it is one past the last class, so void was stored as a class")
    return f"{', or '.join(reasons)}: {AS_PUBLISHED}" if reasons else ""


def wrong_classes(dataset: Dataset, split: str, pixels: Sequence[int]) -> str:
    """The mistake that the pixel counts of a split (of each class and, last, ignored) suggest."""
    if (known := dataset.class_pixels.get(split)) and (why := explain_pixels(pixels, known, dataset.classes)):
        return why
    orders = _orders(dataset)
    stored = {entry.labels[0]: int(n) for entry, n in zip(dataset.spec.classes, pixels, strict=False)}
    order = id_order(stored, orders) if len(orders) > 1 else None
    if order in (None, dataset.name):
        return ""
    return f"sky, trees and buildings say that the ids are in the order of {order}: use --dataset {order}"


def explain_pixels(found: Sequence[int], known: Sequence[int], classes: Sequence[str]) -> str:
    """Why the class pixels `found` differ from the published `known` ones; the last number is the ignored pixels."""
    *shares, ignored = found
    *expected, void = known
    shifted = ((shares[1:], expected[:-1]), (shares[:-1], expected[1:]))
    if share_distance(shares, expected) > FAR and any(share_distance(*pair) < NEAR for pair in shifted):
        return f"each class has the pixels of its neighbour, so the labels are shifted by one: {AS_PUBLISHED}"
    if ignored == 0 and void >= 0.001 * sum(known):
        gained = classes[int((np.asarray(shares) - np.asarray(expected)).argmax())]
        return (
            f"no pixel is ignored, but {100 * void / sum(known):.1f} % should be, and {gained} has gained most, so "
            f"void is trained as a class: {AS_PUBLISHED}"
        )
    return ""


def share_distance(found: Sequence[float], known: Sequence[float]) -> float:
    """Total variation distance of two class distributions: 0 for equal shares, 1 for disjoint or empty ones."""
    a, b = np.asarray(found, float), np.asarray(known, float)
    return float(np.abs(a / a.sum() - b / b.sum()).sum() / 2) if a.any() and b.any() else 1.0


def id_order(pixels: Mapping[int, int], orders: Mapping[str, Mapping[int, str]]) -> str | None:
    """The name of the id order that PASCAL-Context labels are in, or None if it is unclear.

    pixels: {stored value: number of pixels}; orders: {name: {stored value: class}}. Sky, tree and building are common
    and appear together in outdoor pictures; the classes with their ids in the wrong order (table, truck, fence) do not.
    So in the right order the rarest of the three has at least 1 % of the pixels, and three times its share in any other
    order.
    """
    total = sum(pixels.values())

    def scarcest(order: Mapping[int, str]) -> float:
        share = {name: pixels.get(value, 0) / max(total, 1) for value, name in order.items()}
        return min(share.get(name, 0.0) for name in ("sky", "tree", "building"))

    (best, most), *others = sorted(((name, scarcest(orders[name])) for name in orders), key=lambda pair: -pair[1])
    return best if most >= SCARCEST and all(most >= CLEARLY * share for _, share in others) else None


def _wrong_file(dataset: Dataset, sample: Sample) -> str:
    """Why one label cannot be read or does not fit its image, if it is a common mistake."""
    try:
        with images.opened(sample.label_path) as label, images.opened(sample.image_path) as image:
            content, size, image_size = np.asarray(label), label.size, image.size
            is_photo = label.mode != "P" and label.convert("RGB").getcolors(PHOTO_COLORS) is None
    except (OSError, SyntaxError, ValueError):  # damaged; reported when the file is read
        return ""
    colors = content.dtype == np.uint8 and content.ndim == 3 and dataset.spec.layout.encoding == "ids"
    if colors and dataset.name == "ade20k" and content[..., 0].any() and not (content[..., 0] % 10).any():
        return FULL_ADE20K
    if size == image_size[::-1] and images.orientation(sample.image_path) > 4:
        return (
            "the label was drawn on the photograph after its EXIF rotation: rotate the photograph itself "
            "(mogrify -auto-orient)"
        )
    if size != image_size:
        same_shape = abs(size[0] * image_size[1] - size[1] * image_size[0]) <= max(image_size)
        return "the shape is the same, so one of the two was resized: take both originals" if same_shape else ""
    if colors and (content[..., :1] == content[..., : 3 if content.shape[2] > 2 else 1]).all():  # not the transparency
        return "its channels are equal: save one of them as 8-bit greyscale"
    if colors and is_photo:
        return "it looks like a photograph: swap the folders of images and labels"
    if colors:
        return "it holds colours, not class indices: replace each colour by its class's index"
    if content.dtype != np.uint8 and content.ndim == 2:
        return (
            f"values up to {content.max()} are too many for classes (instances, perhaps): take the labels of classes"
            if content.max() > 255
            else "save the same values as 8-bit greyscale"
        )
    return ""


def _values(spec: Spec) -> frozenset[int]:
    """All valid label values."""
    return frozenset([value for entry in spec.classes for value in entry.labels] + list(spec.ignored_labels))


def _stored(sample: Sample) -> frozenset[int]:
    """The values in a label file; empty if it cannot be read."""
    try:
        return frozenset(np.unique(images.read_label(sample.label_path)).tolist())
    except UserError:
        return frozenset()


def _orders(dataset: Dataset) -> dict[str, dict[int, str]]:
    """{data set: {label value: class}} for every data set with this one's files and classes."""
    from harness import datasets

    if not {"sky", "tree", "building"} <= set(dataset.classes):
        return {}

    def files(spec: Spec) -> dict[str, object]:
        return spec.layout.model_dump(exclude={"name", "values"})

    specs = {
        name: spec
        for name in datasets.names()
        for spec in datasets.load(name).specs[::-1]
        if files(spec) == files(dataset.spec) and [c.name for c in spec.classes] == list(dataset.classes)
    }
    return {name: {v: c.name for c in spec.classes for v in c.labels} for name, spec in specs.items()}
