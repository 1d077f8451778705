"""The interface of a segmentation network for training, evaluation and timing: features, decode, losses."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from harness.datasets.spec import IGNORE_INDEX
from harness.errors import UserError
from harness.models.spec import ModelSpec


@dataclass(frozen=True)
class InitialWeights:
    """A weights file that was loaded: its path, sha256, and the names that had no counterpart."""

    path: Path
    sha256: str
    unused: tuple[str, ...]  # names in the file that were not used and that the model's YAML does not expect
    unfilled: tuple[str, ...]  # names in the part that the file covers (backbone or all) that kept random values

    def as_record(self) -> dict[str, Any]:
        """The value of `initial_weights` in record.json."""
        return {"file": self.path.name, "unused": list(self.unused), "unfilled": list(self.unfilled)}


class Segmenter(nn.Module):
    """A segmentation network whose feature maps methods can tap; one subclass per source.

    channels, strides: of the tapped maps, fine to coarse. align_corners: how logits are resized. pad_value: the rounded
    mean colour (RGB, 0 to 255), about zero after normalisation. initial_weights: what was loaded before training. root,
    backbone_prefix: prefixes of names in the state dict; initial weights fill the backbone, and `head_rate` does not
    apply to it.
    """

    root = ""
    backbone_prefix = "backbone."
    auxiliary_head: nn.Module | None
    mean: Tensor
    std: Tensor

    def __init__(
        self, spec: ModelSpec, num_classes: int, mean: Sequence[float], std: Sequence[float], align_corners: bool
    ) -> None:
        """`mean`, `std`: of the network's input, RGB on 0 to 255."""
        super().__init__()
        self.channels = list(spec.taps.channels)
        self.strides = list(spec.taps.strides)
        self.name, self.smallest_image = spec.name, spec.smallest_image
        self.align_corners = align_corners
        self.num_classes = num_classes
        self.pad_value = tuple(round(value) for value in mean)
        self.initial_weights: InitialWeights | None = None
        self.auxiliary_head = None
        # Not in the state dict, as in mmsegmentation.
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)

    @property
    def initial_weights_sha256(self) -> str | None:
        """sha256 of the initial weights' file; None after random initialisation."""
        return self.initial_weights.sha256 if self.initial_weights else None

    def features(self, images: Tensor) -> list[Tensor]:
        """RGB images [B, 3, H, W], 0 to 255, uint8 or float -> maps [B, channels[i], ~H/strides[i], ~W/strides[i]]."""
        raise NotImplementedError

    def decode(self, features: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Maps of `features` -> the main head's logits [B, K, h, w] and, in training mode, those of other heads."""
        raise NotImplementedError

    def auxiliary_weights(self) -> list[float]:
        """Loss weights of the other heads' logits, in the order of `decode`."""
        return []

    def compilable(self) -> list[tuple[nn.Module, str]]:
        """The methods that `compile: true` compiles, as (owner, method name); subclasses add theirs."""
        return [(self, "_cross_entropy")]

    def normalized(self, images: Tensor) -> Tensor:
        """The input images normalised by `mean` and `std`, in the parameters' dtype.

        Raises UserError for images that are too small for the network.
        """
        if not torch.jit.is_tracing() and min(images.shape[-2:]) < self.smallest_image:
            height, width = images.shape[-2:]
            raise UserError(
                f"model {self.name} needs images of at least {self.smallest_image}x{self.smallest_image} pixels, but "
                f"one is {width}x{height} (width x height): leave it out, or use another model"
            )
        return ((images.float() - self.mean.float()) / self.std.float()).to(self.mean.dtype)

    def forward(self, images: Tensor) -> Tensor:
        """Inference: images [B, 3, H, W] -> logits [B, K, h, w]."""
        return self.decode(self.features(images))[0]

    def inference_state(self) -> dict[str, Tensor]:
        """The tensors that inference needs, in order of name: all but the auxiliary heads'."""
        state = self.state_dict()
        return {name: state[name] for name in sorted(state) if not name.startswith("auxiliary_head.")}

    def load_inference_state(self, state: dict[str, Tensor]) -> None:
        """Load an `inference_state`. Raises UserError if it is another network's."""
        own = self.inference_state()
        wrong = sorted(name for name in own.keys() | state.keys() if _shape(own, name) != _shape(state, name))
        if wrong:
            shown = ", ".join(f"{name} ({_size(state, name)} there, {_size(own, name)} here)" for name in wrong[:3])
            raise UserError(f"these weights are another network's: {shown} differ ({len(wrong)} in all)")
        self.load_state_dict(state, strict=False)  # names were checked above; auxiliary heads may be missing

    def losses(
        self, logits: Tensor, auxiliary: Sequence[Tensor], labels: Tensor, class_weights: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Cross entropy at the labels' size: {"cross_entropy": scalar} and, with auxiliary heads, "auxiliary".

        labels [B, H, W] int64, 255 ignored. class_weights [K] or None: weights of the mean, as in torch. "auxiliary" is
        the sum over the auxiliary heads, weighted by `auxiliary_weights`. The mean is over the valid pixels of all
        ranks; mmsegmentation divides by all pixels, so there a crop's loss depends on its padding. Without a valid
        pixel the loss is 0 and differentiable.
        """
        summed = self._cross_entropy(logits, labels, class_weights)
        total = total_weight(labels, class_weights).to(summed.dtype)
        found = {"cross_entropy": summed / total}
        if auxiliary:
            terms = [
                weight * self._cross_entropy(logits, labels, class_weights) / total
                for weight, logits in zip(self.auxiliary_weights(), auxiliary, strict=True)
            ]
            found["auxiliary"] = torch.stack(terms).sum()
        return found

    def _cross_entropy(self, logits: Tensor, labels: Tensor, class_weights: Tensor | None) -> Tensor:
        if logits.dtype in (torch.float16, torch.bfloat16):
            logits = logits.float()
        if logits.is_cuda:
            # Otherwise the softmax would copy them to this layout, and their gradient back, at the labels' size.
            logits = logits.contiguous()
        resized = F.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=self.align_corners)
        # reduction="sum" has no fixed order on a GPU.
        return F.cross_entropy(resized, labels, class_weights, ignore_index=IGNORE_INDEX, reduction="none").sum()


def state_hash(state: dict[str, Tensor]) -> str:
    """The `weights_hash` of a record: sha256 over the names and bytes of all tensors, in order of name."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _shape(state: dict[str, Tensor], name: str) -> torch.Size | None:
    return state[name].shape if name in state else None


def _size(state: dict[str, Tensor], name: str) -> str:
    return "x".join(map(str, state[name].shape)) or "a number" if name in state else "none"


def total_weight(labels: Tensor, class_weights: Tensor | None) -> Tensor:
    """The divisor of the loss: the total weight of all ranks' valid pixels divided by world_size, float64."""
    valid = labels != IGNORE_INDEX
    if class_weights is None:
        total = valid.sum().double()
    else:
        total = class_weights.double()[labels.where(valid, 0)].where(valid, 0).sum()
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(total)  # data parallelism averages gradients, so divide by the ranks' mean
        total = total / dist.get_world_size()
    return torch.where(total > 0, total, 1)
