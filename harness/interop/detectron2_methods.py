"""Methods in detectron2's training: a SemanticSegmentor with a method's terms among its losses.

    from harness.interop.detectron2_methods import add_method_config

    cfg = get_cfg()
    add_method_config(cfg)
    cfg.merge_from_file(...)
    cfg.MODEL.META_ARCHITECTURE = "MethodSegmentor"
    cfg.MODEL.METHOD.NAME = "contextrast"

Data, schedule and checkpoints are detectron2's. The plain SemanticSegmentor loads the trained file for inference; only
the method's tensors, `method.*`, are unused.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

try:
    from detectron2.config import CfgNode
    from detectron2.modeling import META_ARCH_REGISTRY, SemanticSegmentor
    from detectron2.structures import ImageList
    from detectron2.utils.events import get_event_storage
except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision does not match torch's version
    raise ImportError(
        f"harness.interop.detectron2_methods needs detectron2 ({error}): see docs/other-frameworks.md"
    ) from None

from harness.experiment import discovery


def add_method_config(config: Any) -> None:
    """Add the keys MODEL.METHOD to a detectron2 configuration.

    NAME: a file of methods/. OPTIONS: its options. IN_FEATURES: the backbone's maps to tap; default the head's inputs.
    """
    config.MODEL.METHOD = CfgNode({"NAME": "contextrast", "OPTIONS": CfgNode(new_allowed=True), "IN_FEATURES": []})


@META_ARCH_REGISTRY.register()
class MethodSegmentor(SemanticSegmentor):
    """detectron2's SemanticSegmentor, trained with a method.

    Its head needs `layers` and `losses`, as in SemSegFPNHead and DeepLabV3PlusHead.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        shapes = self.backbone.output_shape()
        given = config.MODEL.METHOD
        chosen = list(given.IN_FEATURES) or list(self.sem_seg_head.in_features)
        self.method_features = sorted(chosen, key=lambda name: shapes[name].stride)
        self.method = discovery.load(given.NAME)(
            [shapes[name].channels for name in self.method_features],
            config.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            config.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
            **given.OPTIONS,
        )
        self.method.observing = False  # nobody reads its diagnostics here

    def forward(self, batched_inputs: Sequence[Mapping[str, Any]]) -> Any:
        """The result of SemanticSegmentor; in training, its losses {name: scalar} with the method's weighted terms."""
        if not self.training:
            return super().forward(batched_inputs)
        images = self._batch(
            [(each["image"].to(self.device) - self.pixel_mean) / self.pixel_std for each in batched_inputs]
        )
        labels = self._batch(
            [each["sem_seg"].to(self.device) for each in batched_inputs], self.sem_seg_head.ignore_value
        )
        features = self.backbone(images)
        logits = self.sem_seg_head.layers(features)
        weight = self.method.cross_entropy_weight
        losses = {name: weight * loss for name, loss in self.sem_seg_head.losses(logits, labels).items()}
        maps = [features[name] for name in self.method_features]
        return losses | self.method(maps, logits, labels.long(), get_event_storage().iter)

    def _batch(self, tensors: list[Tensor], padding: float = 0.0) -> Tensor:
        constraints = self.backbone.padding_constraints
        batch: Tensor = ImageList.from_tensors(tensors, self.backbone.size_divisibility, padding, constraints).tensor
        return batch
