"""Networks from any Python function: a torch module with the methods `features` and `logits`."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import UserError
from harness.models.code import import_module
from harness.models.segmenter import Segmenter
from harness.models.spec import Input, ModelSpec

CHECKED = 64  # side in pixels of the image on which a new network is tested


class TappedMaps(list[Tensor]):
    """The tapped maps, and `every` map of the network, for its `logits`."""

    def __init__(self, every: Sequence[Tensor], taken: Sequence[int]) -> None:
        super().__init__(every[index] for index in taken)
        self.every = list(every)


class FunctionSegmenter(Segmenter):
    """A network with `features(images) -> maps` and `logits(maps) -> [B, K, h, w]`, stored under `network.*`.

    images: normalised RGB [B, 3, H, W]. The network's attribute `align_corners` (default False) is used for resizing.
    """

    root = "network."

    def __init__(self, network: nn.Module, spec: ModelSpec, num_classes: int) -> None:
        given = spec.input or Input()
        super().__init__(spec, num_classes, given.mean, given.std, bool(getattr(network, "align_corners", False)))
        self.network: Any = network
        has_backbone = isinstance(getattr(network, spec.backbone, None), nn.Module)
        self.backbone_prefix = f"{self.root}{spec.backbone}." if has_backbone else self.root
        self.taken = spec.taps.maps

    def features(self, images: Tensor) -> list[Tensor]:
        """The network's maps, or those in `taps.maps`."""
        every = list(self.network.features(self.normalized(images)))
        return TappedMaps(every, range(len(every)) if self.taken is None else self.taken)

    def decode(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The network's logits; no auxiliary ones."""
        return self.network.logits(features.every if isinstance(features, TappedMaps) else list(features)), []

    def compilable(self) -> list[tuple[nn.Module, str]]:
        """Also the network's two functions."""
        return [*super().compilable(), (self.network, "features"), (self.network, "logits")]


def build(spec: ModelSpec, num_classes: int) -> FunctionSegmenter:
    """The network that `spec`'s function returns, tested on a small image.

    Raises UserError if the function does not exist, fails, or returns a network without the YAML's taps.
    """
    module_name, _, name = spec.source.partition(":")
    where = f"model {spec.name}: {spec.source}"
    function = getattr(import_module(spec, module_name), name, None)
    if not callable(function):
        raise UserError(f"{where}: the module has no function {name}")
    try:
        network = function(num_classes=num_classes, **spec.arguments)
    except TypeError as error:
        raise UserError(f"{where} refuses num_classes and the YAML's arguments: {error}") from None
    if not isinstance(network, nn.Module) or not all(hasattr(network, each) for each in ("features", "logits")):
        raise UserError(f"{where} must return a torch module with the methods features and logits")
    if spec.weights.given and spec.backbone != "backbone" and not hasattr(network, spec.backbone):
        raise UserError(f"{where}: the network has no part {spec.backbone}: correct the YAML's backbone")
    segmenter = FunctionSegmenter(network, spec, num_classes)
    _try(segmenter, where)
    return segmenter


def _try(segmenter: FunctionSegmenter, where: str) -> None:
    """Raise UserError if the network's maps or logits do not match the YAML."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        try:
            maps = segmenter.eval().features(torch.zeros(1, 3, CHECKED, CHECKED))
            logits, _ = segmenter.decode(maps)
        except (RuntimeError, ValueError, TypeError, AttributeError, IndexError) as error:
            raise UserError(
                f"{where} fails on an image of {CHECKED}x{CHECKED}: {' '.join(str(error).split())}"
            ) from None
        finally:
            segmenter.train()
    channels = [map_.shape[1] for map_ in maps]
    strides = [round(CHECKED / map_.shape[-1]) for map_ in maps]
    if (channels, strides) != (segmenter.channels, segmenter.strides):
        raise UserError(
            f"{where}: its maps have channels {channels} and strides {strides}, but the YAML's taps say "
            f"{segmenter.channels} and {segmenter.strides}: correct taps"
        )
    if logits.dim() != 4 or logits.shape[1] != segmenter.num_classes:
        raise UserError(f"{where}: logits are {list(logits.shape)}, but must be [1, {segmenter.num_classes}, h, w]")
