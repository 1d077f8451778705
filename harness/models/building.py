"""Builds the network that a model's YAML describes and loads its initial weights."""

from pathlib import Path

import torch

from harness.errors import UserError, reason
from harness.models import weights as weights_files
from harness.models.code import import_modules
from harness.models.segmenter import Segmenter
from harness.models.spec import DETECTRON2, FOLDER, MMSEGMENTATION, ModelSpec

CHECKED = 64  # side in pixels of the image on which a network is tested


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
    if spec.folder != FOLDER:  # tests check ours
        _check(segmenter, spec)
    if file is not None:
        segmenter.initial_weights = weights_files.load(segmenter, file, spec)
    return segmenter


def _check(segmenter: Segmenter, spec: ModelSpec) -> None:
    """Raise UserError if the network's maps or logits on a small image do not match the YAML."""
    where, side = f"model {spec.name}: {spec.config or spec.source}", max(CHECKED, spec.smallest_image)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            maps = segmenter.eval().features(torch.zeros(1, 3, side, side))
            are_maps = all(isinstance(each, torch.Tensor) and each.dim() == 4 for each in maps)
            logits = segmenter.decode(maps)[0] if are_maps else None
        except Exception as error:  # a user's network can raise anything
            why = reason(error, spec.folder)
            raise UserError(f"{where} fails on an image of {side}x{side}: {why}") from None
        finally:
            segmenter.train()
    if not are_maps:
        raise UserError(f"{where}: features must return a list of maps [B, C, h, w]")
    channels = [map_.shape[1] for map_ in maps]
    strides = [round(side / map_.shape[-1]) for map_ in maps]
    if (channels, strides) != (segmenter.channels, segmenter.strides):
        raise UserError(
            f"{where}: its maps have channels {channels} and strides {strides}, but the YAML's taps say "
            f"{segmenter.channels} and {segmenter.strides}: correct taps"
        )
    expected = f"{where}: logits must be a tensor [1, {segmenter.num_classes}, h, w]"
    if not isinstance(logits, torch.Tensor):
        raise UserError(f"{expected}, not {type(logits).__name__}")
    if logits.dim() != 4 or logits.shape[1] != segmenter.num_classes:
        raise UserError(f"{expected}, not {list(logits.shape)}")
