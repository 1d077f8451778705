"""Writes pictures into the true layouts of the data sets, so that their readers can be tried without their data.

The trees have the names, suffixes, lists and label values of the real ones; a file rendered.json in the root says that
they are not, and how many images they hold.
"""

import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from harness import datasets
from harness.compute import atomic
from harness.datasets.dataset import Dataset
from harness.datasets.declared import RENDERED
from harness.datasets.readers import FolderLayout
from harness.datasets.spec import IGNORE_INDEX, Spec
from harness.errors import UserError

# An id, an image uint8 [H, W, 3] RGB, and a label [H, W] of label values as the layout stores them.
Picture = tuple[str, NDArray[np.uint8], NDArray[np.integer]]

# What files are called, by the beginning of the data set's name; n differs between splits.
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
SCENE_CLASSES = 11  # of the rendered scenes, whose label 11 is void


def write_all(
    folder: Path, counts: Mapping[str, int] = COUNTS, size: tuple[int, int] = SIZE, seed: int = 0
) -> dict[str, Path]:
    """Write every layout of every data set under `folder`; returns "data set/layout" and its root.

    counts, size, seed: as of `write_scenes`. A layout without a name lies in the data set's own folder.
    """
    roots: dict[str, Path] = {}
    for name in datasets.names():
        for spec in datasets.load(name).specs:
            if spec.generator is None:
                key = f"{name}/{spec.layout.name}".rstrip("/")
                roots[key] = write_scenes(folder / key, spec, counts, size, seed)
    return roots


def write_scenes(
    root: Path, spec: Spec, counts: Mapping[str, int] = COUNTS, size: tuple[int, int] = SIZE, seed: int = 0
) -> Path:
    """Render street scenes into the data set's layout under `root`, unless that has been done; returns `root`.

    Class c of the scenes, 0..10, becomes class (c + 11 i) mod K in the i-th image of a split, so that a few images hold
    many of the K classes; void becomes ignored or, where nothing is, class 0. Where several label values stand for a
    class, images take turns.

    counts: images of each split; a split without a number has as many as "train". size: height and width in pixels.
    Raises UserError if the root holds anything else.
    """
    if (root / RENDERED).is_file():
        return root
    pictures: dict[str, list[Picture]] = {}
    for number, split in enumerate(spec.splits):
        pictures[split] = []
        for index in range(counts.get(split, counts["train"])):
            image, label = _scene(seed, 1000 * number + index, size)
            train_ids = np.where(
                label < SCENE_CLASSES, (label.astype(int) + SCENE_CLASSES * index) % len(spec.classes), IGNORE_INDEX
            )
            pictures[split].append((sample_id(spec, split, index), image, label_values(spec, train_ids, index)))
    return write(root, spec, pictures)


@lru_cache(maxsize=64)  # every layout shows the same scenes
def _scene(seed: int, index: int, size: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    from harness.datasets.scenes import render

    return render(seed, "train", index, *size)


def label_values(spec: Spec, train_ids: NDArray[np.integer], turn: int = 0) -> NDArray[np.int64]:
    """The label values [H, W] of train ids [H, W] (255 ignored): of several values of a class, that of `turn`."""
    values = np.zeros(IGNORE_INDEX + 1, np.int64)
    for train_id, entry in enumerate(spec.classes):
        values[train_id] = entry.labels[turn % len(entry.labels)]
    ignored = spec.ignored_labels or spec.classes[0].labels
    values[IGNORE_INDEX] = ignored[turn % len(ignored)]
    return values[train_ids]


def sample_id(spec: Spec, split: str, index: int) -> str:
    """An id as the data set has them: different for every split and index, 0 <= index < 1000."""
    layout = spec.layout
    if isinstance(layout, FolderLayout) and layout.ids:
        runs = layout.ids[split]
        first = re.fullmatch(r"(.*?)(\d+)", runs[index % len(runs)][0])
        assert first is not None
        return f"{first[1]}{int(first[2]) + index // len(runs):0{len(first[2])}}"
    patterns = next((found for prefix, found in IDS.items() if spec.name.startswith(prefix)), ("{split}_{n:05}",))
    number = 1000 * list(spec.splits).index(split) + index + 1
    return patterns[index % len(patterns)].format(n=number, split=split)


def write(root: Path, spec: Spec, pictures: Mapping[str, Sequence[Picture]]) -> Path:
    """Write the pictures of each split in the data set's layout under `root`, which is complete afterwards or absent.

    Raises UserError if the root holds anything.
    """
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"{root} is not empty: rendered pictures must not mix with anything, choose another folder")
    root.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}."))
    try:
        for split, of_split in pictures.items():
            _write_split(temporary / spec.layout.inside, spec, split, of_split)
        counts = {split: len(of_split) for split, of_split in pictures.items()}
        atomic.write_json(temporary / RENDERED, {"dataset": spec.name, "layout": spec.layout.name, "splits": counts})
        temporary.chmod(0o755)  # mkdtemp's folders are for their owner only
        temporary.replace(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return root


def _write_split(base: Path, spec: Spec, split: str, pictures: Sequence[Picture]) -> None:
    layout, lines = spec.layout, []
    for key, image, values in pictures:
        if isinstance(layout, FolderLayout):
            folder = Dataset(spec).cluster(key)
            image_name, label_name = (
                pattern.format(split=layout.split_names.get(split, split), folder=folder, id=key)
                for pattern in (layout.images, layout.labels)
            )
            lines.append(f"{key}\n")
        else:
            image_name, label_name = f"{split}/{key}.png", f"{split}annot/{key}.png"
            lines.append(f"/SegNet/CamVid/{image_name} /SegNet/CamVid/{label_name}\n")
        _save(base / image_name, image)
        _save_label(base / label_name, spec, values)
    if layout.lists:
        atomic.write_text(base / layout.lists.format(split=split), "".join(lines))


def _save_label(path: Path, spec: Spec, values: NDArray[np.integer]) -> None:
    if spec.layout.encoding == "ids":
        _save(path, values.astype(np.uint8))
    elif spec.layout.encoding == "colors":
        _save(path, np.stack([values >> 16, values >> 8 & 255, values & 255], axis=-1).astype(np.uint8))
    else:
        from scipy.io import savemat

        path.parent.mkdir(parents=True, exist_ok=True)
        savemat(path, {str(spec.layout.field): values.astype(np.uint16)}, do_compression=True)


def _save(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Encode greyscale [H, W] or RGB [H, W, 3] by the path's suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded, content = cv2.imencode(
        path.suffix, pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    )
    if not encoded:
        raise OSError(f"cannot encode {path}")
    path.write_bytes(content.tobytes())
