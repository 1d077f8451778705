"""Builds the network that a model's YAML describes and loads its initial weights."""

from pathlib import Path

from harness.models import weights as weights_files
from harness.models.code import import_modules
from harness.models.segmenter import Segmenter
from harness.models.spec import DETECTRON2, MMSEGMENTATION, ModelSpec


def from_spec(spec: ModelSpec, num_classes: int, weights: str | Path = "auto") -> Segmenter:
    """The network that `spec` describes; see `harness.models.build`."""
    file = weights_files.locate(spec, weights)
    if spec.source != DETECTRON2:  # detectron2 imports them with its configuration
        import_modules(spec)
    segmenter: Segmenter
    if spec.source == MMSEGMENTATION:
        from harness.models import mmsegmentation

        segmenter = mmsegmentation.build(spec, num_classes)
    elif spec.source == DETECTRON2:
        from harness.models import detectron2

        segmenter = detectron2.build(spec, num_classes)
    else:
        from harness.models import function

        segmenter = function.build(spec, num_classes)
    if file is not None:
        segmenter.initial_weights = weights_files.load(segmenter, file, spec)
    return segmenter
