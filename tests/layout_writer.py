"""Writes rendered scenes into the layouts of the data sets: true names, suffixes, lists and label values.

An as_is.json in each root holds the number of images and their size.
"""

import re
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from scipy.io import savemat

from harness import datasets
from harness.datasets import as_is
from harness.datasets.dataset import Dataset
from harness.datasets.readers import FolderLayout
from harness.datasets.scenes import render
from harness.datasets.sizes import Sizes

# File names by the beginning of the data set's name; n differs between splits.
IDS = {
    "camvid": ("0006R0_f{n:05}", "Seq05VD_f{n:05}"),
    "cityscapes": ("aachen_{n:06}_000019", "bochum_{n:06}_000019"),
    "pascal_context": ("2008_{n:06}",),
    "coco_stuff10k": ("COCO_train2014_{n:012}",),
    "coco_stuff164k": ("{n:012}",),
    "ade20k": ("ADE_{split}_{n:08}",),
}
COUNTS = {"train": 4, "val": 2, "test": 2}
SIZE = (48, 64)
SCENE_CLASSES = 11  # the scenes' label 11 is void

scene = cache(render)


def write_all(folder: Path, counts=COUNTS, size=SIZE) -> dict[str, Path]:
    """Write every layout of every data set under `folder`; returns the root of each "data set/layout"."""
    keys = {
        f"{name}/{spec.layout.name}".rstrip("/"): spec
        for name in datasets.names()
        for spec in datasets.load(name).specs
        if spec.generator is None
    }
    return {key: write_scenes(folder / key, spec, counts, size) for key, spec in keys.items()}


def write_scenes(root: Path, spec, counts=COUNTS, size=SIZE) -> Path:
    """Render street scenes into the data set's layout under `root`; returns `root`.

    Class c of the scenes, 0..10, becomes class (c + 11 i) mod K in the i-th image of a split, so that a few images hold
    many of the K classes; void becomes ignored or, where nothing is ignored, class 0. Images take turns with the label
    values of a class. counts: images of each split, by default those of "train". size: height and width in pixels.
    """
    pictures = {}
    for split in spec.splits:
        pictures[split] = []
        for index in range(counts.get(split, counts["train"])):
            image, label = scene(0, "train", index, *size)
            train_ids = np.where(
                label < SCENE_CLASSES, (label.astype(int) + SCENE_CLASSES * index) % len(spec.classes), 255
            )
            pictures[split].append((sample_id(spec, split, index), image, label_values(spec, train_ids, index)))
    return write(root, spec, pictures)


def label_values(spec, train_ids, turn=0):
    """The label values [H, W] of train ids [H, W], 255 ignored."""
    values = np.zeros(256, np.int64)
    for train_id, entry in enumerate(spec.classes):
        values[train_id] = entry.labels[turn % len(entry.labels)]
    ignored = spec.ignored_labels or spec.classes[0].labels
    values[255] = ignored[turn % len(ignored)]
    return values[train_ids]


def sample_id(spec, split: str, index: int) -> str:
    """An id as the data set has them, different for every split and index below 1000."""
    layout = spec.layout
    if isinstance(layout, FolderLayout) and layout.ids:
        runs = layout.ids[split]
        stem, number = re.fullmatch(r"(.*?)(\d+)", runs[index % len(runs)][0]).groups()
        return f"{stem}{int(number) + index // len(runs):0{len(number)}}"
    patterns = next((found for prefix, found in IDS.items() if spec.name.startswith(prefix)), ("{split}_{n:05}",))
    number = 1000 * list(spec.splits).index(split) + index + 1
    return patterns[index % len(patterns)].format(n=number, split=split)


def write(root: Path, spec, pictures) -> Path:
    """Write pictures, (id, image [H, W, 3] RGB, label values [H, W]) of each split, in the data set's layout."""
    layout, base = spec.layout, root / spec.layout.inside
    for split, of_split in pictures.items():
        lines = []
        for key, image, values in of_split:
            if isinstance(layout, FolderLayout):
                names = {"split": layout.split_names.get(split, split), "folder": Dataset(spec).cluster(key), "id": key}
                image_name, label_name = layout.images.format(**names), layout.labels.format(**names)
                lines.append(f"{key}\n")
            else:
                image_name, label_name = f"{split}/{key}.png", f"{split}annot/{key}.png"
                lines.append(f"/SegNet/CamVid/{image_name} /SegNet/CamVid/{label_name}\n")
            save(base / image_name, image[..., ::-1])
            if layout.encoding == "mat":
                (base / label_name).parent.mkdir(parents=True, exist_ok=True)
                savemat(base / label_name, {layout.field: values.astype(np.uint16)}, do_compression=True)
            elif layout.encoding == "colors":
                save(base / label_name, np.stack([values & 255, values >> 8 & 255, values >> 16], axis=-1))
            else:
                save(base / label_name, values)
        if layout.lists:
            path = base / layout.lists.format(split=split)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("".join(lines))
    shapes = [image.shape[1::-1] for of_split in pictures.values() for _, image, _ in of_split]
    counts = {split: len(of_split) for split, of_split in pictures.items()}
    as_is.write(root, spec.name, as_is.Declared(counts, Sizes.around(shapes)))
    return root


def save(path: Path, pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.ascontiguousarray(pixels.astype(np.uint8)))
