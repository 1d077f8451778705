"""Looks at the files of a data set that failed a check, and says so if the reason is one of the usual mistakes."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from harness.datasets import images
from harness.datasets.dataset import Dataset
from harness.datasets.declared import RENDERED
from harness.datasets.mistakes import COCO_STUFF_NAMES, coco_stuff_kind, explain_pixels, explain_values, id_order
from harness.datasets.readers import FolderLayout, Sample
from harness.datasets.spec import Spec, read_specs
from harness.errors import UserError

LOOKS = 200  # label files, spread evenly, that are looked at to explain wrong values
SUSPECTS = 20  # files that are looked at otherwise
PHOTO_COLORS = 256  # a picture of labels has fewer
FULL_ADE20K = (
    "labels with a class in red and green are ADE20K's full release, of some 3,000 classes; the benchmark of 150 is "
    "another one with 8-bit greyscale labels: download ADEChallengeData2016.zip"
)
FULL_ADE20K_FILES = tuple(
    f"{above}{inside}*_seg.png" for above in ("", "*/") for inside in ("", "*/", "images/*/*/*/*/")
)
DEPTH = 4  # levels of folders below a root in which images are looked for


def wrong_folders(dataset: Dataset, root: Path) -> str:
    """A sentence if a folder for labels holds photographs, and that for their images labels; else ""."""
    for spec in dataset.specs:
        for pictures, labels in _folders(spec, root):
            first, second = (
                list(islice(filter(Path.is_file, folder.glob("*")), SUSPECTS)) for folder in (pictures, labels)
            )
            if any(_is_label(spec, path) for path in first) and second and all(map(_is_photograph, second)):
                names = [folder.relative_to(root).as_posix() for folder in (labels, pictures)]
                return f"{names[0]} holds photographs and {names[1]} labels: exchange the names of the two folders"
    return ""


def wrong_images(dataset: Dataset, names: Iterable[str]) -> str:
    """A sentence if images of these names, without suffix, are of the other COCO-Stuff; else ""."""
    expected = next((kind for kind in COCO_STUFF_NAMES if dataset.name.endswith(kind)), None)
    if expected is None:
        return ""
    first = list(islice(names, SUSPECTS))
    found = coco_stuff_kind(first)
    if found in (None, expected):
        return ""
    other = dataset.name.removesuffix(expected) + str(found)
    return f"images named as {first[0]} are of COCO-Stuff {found}, which is another data set: use --dataset {other}"


def wrong_root(dataset: Dataset, root: Path) -> str:
    """A sentence if the root holds none of the data set's layouts because of a usual mistake; else ""."""
    pictures = chain.from_iterable(root.glob("*/" * depth + "*.jpg") for depth in range(DEPTH))
    named = wrong_images(dataset, (path.stem for path in pictures)) or wrong_folders(dataset, root)
    if not named and dataset.name == "ade20k" and any(chain.from_iterable(map(root.glob, FULL_ADE20K_FILES))):
        named = FULL_ADE20K
    return named or _other(dataset, root)


def _other(dataset: Dataset, root: Path) -> str:
    """A sentence that names the data sets whose layout the root holds, if there are any."""
    from harness import datasets

    fitting = [name for name in datasets.names() if name != dataset.name and datasets.load(name, root).found_layout()]
    return f"the folders are those of {' or '.join(fitting)}: use --dataset {fitting[0]}" if fitting else ""


def wrong_labels(dataset: Dataset, failed: Sequence[Sample], samples: Sequence[Sample]) -> tuple[Sample, str] | None:
    """One of the samples that could not be read, and a clause that says why; None if nothing fits.

    failed: those samples; samples: all of the split.
    """
    for sample in failed[:SUSPECTS]:
        if clause := _wrong_file(dataset, sample):
            return sample, clause
    if dataset.spec.layout.encoding != "ids":
        return None
    classes, ignored = _values(dataset.spec)
    suspects = {sample: _stored(sample) for sample in failed[:SUSPECTS]}
    suspects = {sample: values for sample, values in suspects.items() if values - classes - ignored}
    if not suspects:
        return None
    step = -(-len(samples) // LOOKS)
    looked = {sample: _stored(sample) for sample in samples[::step]} | suspects
    clause = explain_values([values for values in looked.values() if values], classes, ignored, _others(dataset))
    return (next(iter(suspects)), clause) if clause else None


def wrong_classes(dataset: Dataset, split: str, pixels: Sequence[int]) -> str:
    """A sentence if the pixels of a complete split (of each class and, last, ignored) show a mistake; else ""."""
    if dataset.is_rendered:  # the shares of its classes are made up, but it says what it is
        found = json.loads((dataset.folder() / RENDERED).read_text(encoding="utf-8")).get("dataset")
        other = found != dataset.name and found in _stored_alike(dataset)
        return f"the root was rendered as {found}: use --dataset {found}" if other else ""
    if orders := {name: _names(spec) for name, spec in _stored_alike(dataset).items()}:
        stored = {entry.labels[0]: int(n) for entry, n in zip(dataset.spec.classes, pixels, strict=False)}
        order = id_order(stored, orders | {dataset.name: _names(dataset.spec)})
        if order not in (None, dataset.name):
            return f"sky, trees and buildings say that the ids are in the order of {order}: use --dataset {order}"
    known = dataset.class_pixels.get(split)
    return explain_pixels(pixels, known, dataset.classes) if known else ""


def _wrong_file(dataset: Dataset, sample: Sample) -> str:
    """Why one label cannot be read, or not with its image: a clause, or ""."""
    encoding = dataset.spec.layout.encoding
    if encoding == "mat":
        return ""
    try:
        with images.opened(sample.label_path) as label, images.opened(sample.image_path) as image:
            content, size, image_size = np.asarray(label), label.size, image.size
    except (OSError, SyntaxError, ValueError):  # what PIL raises for damaged files, about which the reader says all
        return ""
    colors = content.dtype == np.uint8 and content.ndim == 3 and encoding == "ids"
    if colors and dataset.name == "ade20k" and content[..., 0].any() and not (content[..., 0] % 10).any():
        return FULL_ADE20K
    if size == image_size[::-1] and images.orientation(sample.image_path) > 4:
        return (
            "the image's EXIF orientation says to turn it, and the label was drawn on the turned one: turn the image "
            "for good (mogrify -auto-orient)"
        )
    if size != image_size:
        same_shape = abs(size[0] * image_size[1] - size[1] * image_size[0]) <= max(image_size)
        return "the shape is the same, so one of the two was resized: take the originals of both" if same_shape else ""
    if colors:
        if (content[..., :1] == content[..., :3]).all():
            return "its channels are equal: save one of them as 8-bit greyscale"
        return "it holds colours where indices of classes are expected: replace each colour by its class's index"
    if content.dtype != np.uint8 and content.max() > 255:
        return f"with values up to {content.max()} it holds no classes (instances, perhaps): take the labels of classes"
    return ""


def _folders(spec: Spec, root: Path) -> Iterator[tuple[Path, Path]]:
    """The folders that hold the images and the labels of the same samples."""
    layout = spec.layout
    base = layout.base(root)
    for split in spec.splits:
        if isinstance(layout, FolderLayout):
            name = layout.split_names.get(split, split)
            pictures, labels = (
                str(PurePosixPath(pattern.replace("{split}", name)).parent)
                for pattern in (layout.images, layout.labels)
            )
            for folder in base.glob(pictures.replace("{folder}", "*")):
                yield folder, base / labels.replace("{folder}", folder.name)
        else:
            with suppress(OSError, UnicodeDecodeError):
                words = (base / layout.lists.format(split=split)).read_text(encoding="utf-8-sig").split()
                folders = [base / PurePosixPath(word).parent.name for word in words[:2]]
                if len(folders) == 2:
                    yield folders[0], folders[1]


def _is_label(spec: Spec, path: Path) -> bool:
    try:
        Dataset(spec).read_label(Sample(path, path, path.stem))
    except UserError:
        return False
    return True


def _is_photograph(path: Path) -> bool:
    try:
        with images.opened(path) as image:
            colors = image.convert("RGB").getcolors(PHOTO_COLORS)
            return image.format == "JPEG" or (image.mode != "P" and colors is None)
    except (OSError, SyntaxError, ValueError):
        return False


def _values(spec: Spec) -> tuple[frozenset[int], frozenset[int]]:
    """The label values that stand for classes, and those that are ignored."""
    return frozenset(value for entry in spec.classes for value in entry.labels), frozenset(spec.ignored_labels)


def _others(dataset: Dataset) -> dict[str, frozenset[int]]:
    """The values that the data set's labels hold in other layouts, by what they are."""
    expected = dataset.spec.layout.values
    found: dict[str, frozenset[int]] = {}
    for spec in dataset.specs:
        values = spec.layout.values
        if spec.layout.encoding == "ids" and values not in (expected, None):
            found.setdefault(f"{values}, where {expected} are expected", frozenset().union(*_values(spec)))
    return found


def _stored_alike(dataset: Dataset) -> dict[str, Spec]:
    """The data sets whose files and classes are those of this one, but whose label values are in another order."""
    from harness import datasets

    own, found = dataset.spec, {}
    if not {"sky", "tree", "building"} <= set(dataset.classes):
        return {}
    for name in datasets.names():
        for spec in read_specs(datasets.FOLDER / f"{name}.yaml"):
            same_files = _files(spec) == _files(own)
            same_classes = [entry.name for entry in spec.classes] == list(dataset.classes)
            if same_files and same_classes and _names(spec) != _names(own):
                found[name] = spec
    return found


def _files(spec: Spec) -> dict[str, Any]:
    """Where and how a layout stores files, whatever their label values are."""
    return spec.layout.model_dump(exclude={"name", "values"})


def _names(spec: Spec) -> dict[int, str]:
    """The class of each label value."""
    return {value: entry.name for entry in spec.classes for value in entry.labels}


def _stored(sample: Sample) -> frozenset[int]:
    """The values in a label file; none if it cannot be read."""
    try:
        return frozenset(np.unique(images.read_label(sample.label_path)).tolist())
    except UserError:
        return frozenset()
