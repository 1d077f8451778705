"""Networks from detectron2's configurations: a SemanticSegmentor's backbone and head, under detectron2's names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import UserError
from harness.models.code import import_module
from harness.models.segmenter import Segmenter
from harness.models.spec import ModelSpec


class BackboneMaps(list[Tensor]):
    """The tapped maps, and the head's inputs: the backbone's outputs and the images' size."""

    def __init__(self, tapped: Sequence[Tensor], outputs: Mapping[str, Tensor], size: tuple[int, int]) -> None:
        super().__init__(tapped)
        self.outputs, self.size = outputs, size


class Detectron2Segmenter(Segmenter):
    """detectron2's backbone and semantic-segmentation head, trained with our cross entropy.

    Images are padded to a multiple of the backbone's divisor as in detectron2: after normalisation, with zeros at the
    right and bottom. Maps and logits are cropped to the image.
    """

    def __init__(self, network: Any, spec: ModelSpec, num_classes: int, config: Any) -> None:
        """`network`: a built SemanticSegmentor; `config`: the configuration it was built from."""
        bgr = config.INPUT.FORMAT == "BGR"
        mean, std = (list(each)[:: -1 if bgr else 1] for each in (config.MODEL.PIXEL_MEAN, config.MODEL.PIXEL_STD))
        super().__init__(spec, num_classes, mean, std, align_corners=False)
        self.bgr = bgr
        self.backbone: Any = network.backbone
        self.sem_seg_head: Any = network.sem_seg_head
        self.has_pyramid = hasattr(self.backbone, "bottom_up")
        self.backbone_prefix = "backbone.bottom_up." if self.has_pyramid else "backbone."
        self.tapped = spec.taps.at

    def features(self, images: Tensor) -> list[Tensor]:
        """The encoder's outputs or, with taps at `fpn`, the pyramid maps that the head uses."""
        images = self.normalized(images)
        images = images.flip(1) if self.bgr else images
        height, width = images.shape[-2:]
        divisor = max(1, self.backbone.size_divisibility)
        images = F.pad(images, (0, -width % divisor, 0, -height % divisor))
        if self.has_pyramid:
            stages = self.backbone.bottom_up(images)
            outputs = type(self.backbone).forward(_WithoutEncoder(self.backbone), stages)
        else:
            stages = outputs = self.backbone(images)
        source, shapes = (stages, _encoder(self.backbone)) if self.tapped == "backbone" else (outputs, self.backbone)
        strides = {name: shape.stride for name, shape in shapes.output_shape().items()}
        chosen = self.sem_seg_head.in_features if self.tapped == "fpn" else list(strides)
        tapped = [
            source[name][..., : -(-height // strides[name]), : -(-width // strides[name])]
            for name in sorted(chosen, key=lambda name: strides[name])
        ]
        return BackboneMaps(tapped, outputs, (height, width))

    def decode(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The head's logits on its own grid, or at the images' size if the images were padded."""
        assert isinstance(features, BackboneMaps)
        head = self.sem_seg_head
        if hasattr(head, "layers"):
            logits = head.layers(features.outputs)
        else:  # in training mode its forward pass would compute losses; its layers keep their mode
            head.training = False
            logits, _ = head(features.outputs)
            head.training = self.training
        height, width = features.size
        stride = head.common_stride if hasattr(head, "layers") else 1
        if (logits.shape[-2] * stride, logits.shape[-1] * stride) != (height, width):
            if stride > 1:
                logits = F.interpolate(logits, scale_factor=stride, mode="bilinear", align_corners=False)
            logits = logits[..., :height, :width]
        return logits, []

    def compilable(self) -> list[tuple[nn.Module, str]]:
        """Also the encoder; the pyramid and the head are called in parts."""
        return [*super().compilable(), (self.backbone.bottom_up if self.has_pyramid else self.backbone, "forward")]


class _WithoutEncoder:
    """A feature pyramid whose forward pass takes the encoder's outputs."""

    def __init__(self, pyramid: Any) -> None:
        self._pyramid = pyramid

    def bottom_up(self, stages: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return stages

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pyramid, name)


def build(spec: ModelSpec, num_classes: int) -> Detectron2Segmenter:
    """The network of `spec`'s configuration with detectron2's random initialisation, on the CPU.

    Raises UserError if detectron2 does not import, or if the network is not a SemanticSegmentor.
    """
    config = configuration(spec)
    config.MODEL.SEM_SEG_HEAD.NUM_CLASSES = num_classes
    from detectron2.modeling import SemanticSegmentor, build_model

    try:
        network = build_model(config)
    except (KeyError, ValueError, AssertionError, AttributeError) as error:
        raise UserError(f"model {spec.name}: detectron2 cannot build {spec.config}: {error}") from None
    if not isinstance(network, SemanticSegmentor):
        raise UserError(f"model {spec.name}: {spec.config} builds a {type(network).__name__}, not a SemanticSegmentor")
    if spec.taps.at == "fpn" and not hasattr(network.backbone, "bottom_up"):
        raise UserError(f"model {spec.name}: its backbone has no feature pyramid for taps at fpn: tap the backbone")
    return Detectron2Segmenter(network, spec, num_classes, config)


def configuration(spec: ModelSpec) -> Any:
    """detectron2's CfgNode with the YAML's overrides, for the CPU.

    `config` is a file next to the YAML or in detectron2's model zoo. First, all functions add_..._config of the
    imported modules add their keys. Raises UserError for an unknown file or key.
    """
    try:
        import detectron2
        from detectron2.config import CfgNode, get_cfg
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision does not match torch's version
        raise UserError(
            f"model {spec.name} needs detectron2, which does not import here ({error}): see docs/other-frameworks.md"
        ) from None
    config = get_cfg()
    for name in spec.imports:
        module = import_module(spec, name)
        for each in vars(module):
            if each.startswith("add_") and each.endswith("_config"):
                getattr(module, each)(config)
    places = [spec.folder / spec.config, Path(detectron2.__file__).parent / "model_zoo" / "configs" / spec.config]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise UserError(f"model {spec.name}: detectron2 has no configuration {spec.config}: correct its `config`")
    try:
        config.merge_from_file(str(path))
        config.merge_from_other_cfg(CfgNode(spec.overrides))
    except (KeyError, ValueError) as error:
        why = " ".join(str(error).split())
        raise UserError(f"model {spec.name}: detectron2 refuses its configuration or overrides: {why}") from None
    config.MODEL.DEVICE = "cpu"
    config.INPUT.CROP.ENABLED = False  # otherwise ASPP pools with a kernel of the crop's size
    _replace_sync_bn(config)
    return config


def initial_weights(spec: ModelSpec) -> str:
    """The URL of the configuration's initial weights. Raises UserError if it names none."""
    address = str(configuration(spec).MODEL.WEIGHTS)
    if not address:
        raise UserError(f"model {spec.name}: {spec.config} names no initial weights: correct its `weights`")
    return address


def _encoder(backbone: Any) -> Any:
    return getattr(backbone, "bottom_up", backbone)


def _replace_sync_bn(config: Any) -> None:
    """Plain batch norm: SyncBN does not run on a CPU. The trainer converts it back on several GPUs."""
    for key, value in config.items():
        if isinstance(value, dict):
            _replace_sync_bn(value)
        elif value == "SyncBN":
            config[key] = "BN"
