"""Networks from mmsegmentation's configurations, with its parameter names, so that its checkpoints load."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any

from torch import Tensor, nn

from harness.errors import UserError, reason
from harness.models.configuration import network_config, quiet
from harness.models.pyramid import PyramidMaps, pyramid_logits, pyramid_maps
from harness.models.segmenter import Segmenter
from harness.models.spec import ModelSpec


class MMSegmenter(Segmenter):
    """mmsegmentation's backbone, neck and heads."""

    def __init__(self, network: Any, spec: ModelSpec, mean: Sequence[float], std: Sequence[float]) -> None:
        """`network`: a built mmseg EncoderDecoder; `mean`, `std`: of its input, RGB on 0 to 255."""
        super().__init__(spec, int(network.num_classes), mean, std, bool(network.align_corners))
        self.backbone: nn.Module = network.backbone
        self.neck: nn.Module | None = getattr(network, "neck", None)
        self.decode_head: nn.Module = network.decode_head
        self.auxiliary_head = getattr(network, "auxiliary_head", None)
        self.tapped = spec.taps.at

    def features(self, images: Tensor) -> list[Tensor]:
        """The backbone's outputs, or those of a UPerNet head's pyramid."""
        stages = list(self.backbone(self.normalized(images)))
        return pyramid_maps(self.decode_head, stages) if self.tapped == "fpn" else stages

    def decode(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The main head's logits; in training mode also those of a cascade's earlier heads and of auxiliary heads."""
        if self.tapped == "fpn":
            outputs = [pyramid_logits(self.decode_head, features)]
            inputs: Sequence[Tensor] = features.stages if isinstance(features, PyramidMaps) else []
        else:
            inputs = self.neck(features) if self.neck is not None else features
            first, *later = _each(self.decode_head)
            outputs = [first(inputs)]
            for head in later:
                outputs.append(head(inputs, outputs[-1]))
        auxiliary = [head(inputs) for head in _each(self.auxiliary_head)] if self.training else []
        return outputs[-1], [*outputs[:-1], *auxiliary] if self.training else []

    def compilable(self) -> list[tuple[nn.Module, str]]:
        """Also backbone, neck and heads. A UPerNet head with a tapped pyramid is called in parts and stays eager."""
        parts = [self.backbone, self.neck, *_each(self.decode_head), *_each(self.auxiliary_head)]
        return super().compilable() + [(part, "forward") for part in parts if part is not None]

    def auxiliary_weights(self) -> list[float]:
        """The weights in the configuration, usually 0.4 each."""
        heads = [*_each(self.decode_head)[:-1], *_each(self.auxiliary_head)]
        return [float(head.loss_decode.loss_weight) for head in heads]


def build(spec: ModelSpec, num_classes: int) -> MMSegmenter:
    """The network of `spec`'s configuration with mmsegmentation's random initialisation."""
    config = network_config(spec, num_classes)
    with quiet():
        import mmseg.models  # noqa: F401  fills the registry
        from mmengine.registry import DefaultScope
        from mmseg.registry import MODELS

        import harness.models.efficientnet_lite  # noqa: F401  adds ours

        with DefaultScope.overwrite_default_scope("mmseg"):
            try:
                network = MODELS.build(config)
            except (KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
                why = reason(error, spec.folder)
                raise UserError(f"model {spec.name}: mmsegmentation cannot build {spec.config}: {why}") from None
        with _silent_init():
            network.init_weights()
    if spec.taps.at == "fpn" and config.decode_head.get("type") != "UPerHead":
        raise UserError(f"model {spec.name}: taps at fpn need a UPerHead: tap the backbone")
    preprocessor = config.data_preprocessor
    return MMSegmenter(network, spec, list(preprocessor.mean), list(preprocessor.std))


def _each(heads: Any) -> list[Any]:
    """One head, several, or None, as a list."""
    if heads is None:
        return []
    return list(heads) if isinstance(heads, nn.ModuleList) else [heads]


@contextmanager
def _silent_init() -> Iterator[None]:
    """Silence `init_weights`, which logs two lines per parameter."""
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        logger.setLevel(level)
