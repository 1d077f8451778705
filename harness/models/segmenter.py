"""The segmentation network as training, evaluation and timing see it: features, decode, losses."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from harness.errors import UserError
from harness.models import ModelSpec
from harness.models import weights as weights_files
from harness.models.configuration import network_config, quiet
from harness.models.pyramid import PyramidMaps, pyramid_logits, pyramid_maps

IGNORE_INDEX = 255


class Segmenter(nn.Module):
    """mmsegmentation's backbone, neck and heads, under its names, so that its checkpoints load.

    channels, strides: of the tapped maps, fine to coarse. align_corners: how logits are resized.
    pad_value: the mean colour (RGB, 0 to 255) in whole numbers: padding with it is about zero after normalisation.
    initial_weights: what was loaded before training, None for a random start.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Any, spec: ModelSpec, mean: Sequence[float], std: Sequence[float]) -> None:
        """`network`: a built mmseg EncoderDecoder; `mean`, `std`: of its input, RGB on 0 to 255."""
        super().__init__()
        self.backbone: nn.Module = network.backbone
        self.neck: nn.Module | None = getattr(network, "neck", None)
        self.decode_head: nn.Module = network.decode_head
        self.auxiliary_head: nn.Module | None = getattr(network, "auxiliary_head", None)
        self.tapped = spec.taps.at
        self.channels = list(spec.taps.channels)
        self.strides = list(spec.taps.strides)
        self.name, self.smallest_image = spec.name, spec.smallest_image
        self.align_corners = bool(network.align_corners)
        self.num_classes = int(network.num_classes)
        self.pad_value = tuple(round(value) for value in mean)
        self.initial_weights: weights_files.InitialWeights | None = None
        # Not in the state dict, as in mmsegmentation.
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)

    @property
    def initial_weights_sha256(self) -> str | None:
        """sha256 of the file that the weights were loaded from before training; None for a random start."""
        return self.initial_weights.sha256 if self.initial_weights else None

    def features(self, images: Tensor) -> list[Tensor]:
        """RGB images [B, 3, H, W], 0 to 255, uint8 or float -> maps [B, channels[i], ~H/strides[i], ~W/strides[i]].

        Raises UserError for images that are smaller than the network takes (scaled ones of ms_flip, too).
        """
        if not torch.jit.is_tracing() and min(images.shape[-2:]) < self.smallest_image:
            height, width = images.shape[-2:]
            raise UserError(
                f"model {self.name} takes images of {self.smallest_image}x{self.smallest_image} pixels or more, and "
                f"one is {width}x{height} (width x height) where it goes in: leave it out, or take another model"
            )
        normalised = (images.float() - self.mean.float()) / self.std.float()
        stages = list(self.backbone(normalised.to(self.mean.dtype)))  # the buffers follow the parameters' dtype
        return pyramid_maps(self.decode_head, stages) if self.tapped == "fpn" else stages

    def decode(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """What `features` gave -> the main head's logits [B, K, h, w] and, in training mode alone, the others'.

        The others are a cascade's heads but the last, then the auxiliary heads.
        """
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

    def forward(self, images: Tensor) -> Tensor:
        """Inference, what is evaluated, timed and exported: images [B, 3, H, W] -> logits [B, K, h, w]."""
        return self.decode(self.features(images))[0]

    def inference_state(self) -> dict[str, Tensor]:
        """The tensors that inference needs, in order of name: all but the auxiliary heads'."""
        state = self.state_dict()
        return {name: state[name] for name in sorted(state) if not name.startswith("auxiliary_head.")}

    def load_inference_state(self, state: dict[str, Tensor]) -> None:
        """Load what `inference_state` gave. Raises UserError if it is another network's."""
        own = self.inference_state()
        wrong = sorted(name for name in own.keys() | state.keys() if _shape(own, name) != _shape(state, name))
        if wrong:
            shown = ", ".join(f"{name} ({_size(state, name)} there, {_size(own, name)} here)" for name in wrong[:3])
            raise UserError(f"these weights are another network's: {shown} differ ({len(wrong)} in all)")
        self.load_state_dict(state, strict=False)  # strict but for the auxiliary heads, as just checked

    def losses(
        self, logits: Tensor, auxiliary: Sequence[Tensor], labels: Tensor, class_weights: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Cross entropy at the labels' size: {"cross_entropy": scalar} and, with auxiliary heads, "auxiliary".

        labels [B, H, W] int64, 255 ignored. class_weights [K] or None: the weighted mean, as torch's. The auxiliary
        term is the sum over the heads that `decode` gives beside the main one, weighted as in mmsegmentation's
        configuration (0.4 as a rule). The mean is over the valid pixels of all processes (mmsegmentation's default
        divides by all pixels, ignored ones too, which makes the loss of a crop depend on its padding). Without any
        valid pixel it is 0 with a graph.
        """
        summed = self._cross_entropy(logits, labels, class_weights)
        total = total_weight(labels, class_weights).to(summed.dtype)
        found = {"cross_entropy": summed / total}
        if auxiliary:
            heads = [*_each(self.decode_head)[:-1], *_each(self.auxiliary_head)]
            terms = [
                head.loss_decode.loss_weight * self._cross_entropy(logits, labels, class_weights) / total
                for head, logits in zip(heads, auxiliary, strict=True)
            ]
            found["auxiliary"] = torch.stack(terms).sum()
        return found

    def _cross_entropy(self, logits: Tensor, labels: Tensor, class_weights: Tensor | None) -> Tensor:
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        resized = F.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=self.align_corners)
        # Summed here and not by cross_entropy, whose own sum has no fixed order on a GPU.
        return F.cross_entropy(resized, labels, class_weights, ignore_index=IGNORE_INDEX, reduction="none").sum()


def from_spec(spec: ModelSpec, num_classes: int, weights: str | Path = "auto") -> Segmenter:
    """Build the network that `spec` describes; see `harness.models.build`."""
    file = weights_files.locate(spec, weights)
    config = network_config(spec, num_classes)
    with quiet():
        import mmseg.models  # noqa: F401  fills the registry
        from mmengine.registry import DefaultScope
        from mmseg.registry import MODELS

        import harness.models.efficientnet_lite  # noqa: F401  adds ours

        with DefaultScope.overwrite_default_scope("mmseg"):
            network = MODELS.build(config)
        with _no_word_of_every_parameter():
            network.init_weights()
    if spec.taps.at == "fpn" and config.decode_head.get("type") != "UPerHead":
        raise UserError(f"model {spec.name}: only a UPerHead has the pyramid of taps at fpn: tap the backbone")
    preprocessor = config.data_preprocessor
    segmenter = Segmenter(network, spec, list(preprocessor.mean), list(preprocessor.std))
    if file is not None:
        segmenter.initial_weights = weights_files.load(segmenter, file, spec)
    return segmenter


def state_hash(state: dict[str, Tensor]) -> str:
    """sha256 over the names and bytes of tensors, in order of name: the `weights_hash` of a record."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _each(heads: Any) -> list[Any]:
    """One head, several, or None, as a list."""
    if heads is None:
        return []
    return list(heads) if isinstance(heads, nn.ModuleList) else [heads]


def _shape(state: dict[str, Tensor], name: str) -> torch.Size | None:
    return state[name].shape if name in state else None


def _size(state: dict[str, Tensor], name: str) -> str:
    return "x".join(map(str, state[name].shape)) or "a number" if name in state else "none"


def total_weight(labels: Tensor, class_weights: Tensor | None) -> Tensor:
    """The divisor of the mean: the weights of all processes' valid pixels, divided by their number; float64."""
    valid = labels != IGNORE_INDEX
    if class_weights is None:
        total = valid.sum().double()
    else:
        total = class_weights.double()[labels.where(valid, 0)].where(valid, 0).sum()
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(total)  # data parallelism averages gradients, so the processes' mean count is the divisor
        total = total / dist.get_world_size()
    return torch.where(total > 0, total, 1)


@contextmanager
def _no_word_of_every_parameter() -> Iterator[None]:
    """For mmengine's `init_weights`, which logs two lines a parameter, and mmsegmentation's, which may print one."""
    from mmengine.logging import MMLogger

    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with redirect_stdout(StringIO()):
            yield
    finally:
        logger.setLevel(level)
