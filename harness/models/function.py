"""Networks from any Python function: a torch module with the methods `features` and `logits`."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from harness.errors import UserError, reason
from harness.models.code import import_module
from harness.models.segmenter import Segmenter
from harness.models.spec import Input, ModelSpec


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
    """The network that `spec`'s function returns.

    Raises UserError if the function does not exist, fails, or returns what is no network or has no such backbone.
    """
    module_name, _, name = spec.source.partition(":")
    where = f"model {spec.name}: {spec.source}"
    function = getattr(import_module(spec, module_name), name, None)
    if not callable(function):
        raise UserError(f"{where}: the module has no function {name}")
    try:
        network = function(num_classes=num_classes, **spec.arguments)
    except Exception as error:  # a user's function can raise anything
        why = reason(error, spec.folder)
        raise UserError(f"{where} refuses num_classes and the YAML's arguments: {why}") from None
    if not isinstance(network, nn.Module) or not all(hasattr(network, each) for each in ("features", "logits")):
        raise UserError(f"{where} must return a torch module with the methods features and logits")
    if spec.backbone != "backbone" and not isinstance(getattr(network, spec.backbone, None), nn.Module):
        raise UserError(f"{where}: the network has no part {spec.backbone}: correct the YAML's backbone")
    return FunctionSegmenter(network, spec, num_classes)
