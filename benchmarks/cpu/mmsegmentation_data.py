"""mmsegmentation's data set and usual pipeline for the same training images, as the reference for timings."""

from typing import Any

from harness.datasets.dataset import Dataset
from harness.experiment.schema import Schedule


def training_set(dataset: Dataset, schedule: Schedule, cat_max_ratio: float = 0.75) -> Any:
    """The training images with `schedule`'s random resize, crop, flip and photometric distortion, for a data loader."""
    from mmseg.datasets import BaseSegDataset
    from mmseg.utils import register_all_modules

    register_all_modules()
    first = dataset.samples("train")[0]
    height, width = dataset.read(first)[1].shape
    return BaseSegDataset(
        metainfo={"classes": dataset.classes, "palette": [list(color) for color in dataset.colors]},
        data_root=str(dataset.folder()),
        data_prefix={"img_path": first.image_path.parent.name, "seg_map_path": first.label_path.parent.name},
        img_suffix=first.image_path.suffix,
        seg_map_suffix=first.label_path.suffix,
        pipeline=[
            {"type": "LoadImageFromFile"},
            {"type": "LoadAnnotations"},
            {"type": "RandomResize", "scale": (width, height), "ratio_range": schedule.scale, "keep_ratio": True},
            {"type": "mmseg.RandomCrop", "crop_size": schedule.crop, "cat_max_ratio": cat_max_ratio},
            {"type": "RandomFlip", "prob": schedule.flip},
            {"type": "mmseg.PhotoMetricDistortion", **schedule.photometric.model_dump()},
            {"type": "mmseg.PackSegInputs"},
        ],
    )
