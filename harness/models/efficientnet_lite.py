"""EfficientNet-Lite0 as an mmsegmentation backbone.

EfficientNet (Tan and Le, ICML 2019) without squeeze-and-excitation and with ReLU6 instead of Swish. Its ImageNet
weights come in a Python package, so it can be fine-tuned without a download; mmsegmentation has no such backbone.
"""

import math

import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

STEM_CHANNELS = 32
# One row per stage: blocks, kernel size, stride of the first block, expansion, output channels.
LITE0_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
TAPPED_BLOCKS = (2, 4, 10, 15)  # the last block at strides 4, 8, 16, 32: 24, 40, 112, 320 channels


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "SAME" padding: ceil(size / stride) outputs, any odd pixel right and below.

    At stride 2 and even sizes this is one pixel off torch's symmetric padding; the weights were trained with it.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] -> [B, C_out, ceil(H / stride), ceil(W / stride)]."""
        height, width = x.shape[-2:]
        top, bottom = self._padding(height)
        left, right = self._padding(width)
        return super().forward(F.pad(x, (left, right, top, bottom)))

    def _padding(self, size: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[0], self.stride[0]
        total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
        return total // 2, total - total // 2


class Block(BaseModule):
    """The mobile inverted bottleneck: expand 1x1, depthwise, project 1x1, with a shortcut if the shape is unchanged."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int, norm_cfg: dict
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.expands = expansion > 1
        if self.expands:
            self.expand_conv = nn.Conv2d(in_channels, hidden, 1, bias=False)
            self.bn0 = build_norm_layer(norm_cfg, hidden)[1]
        self.depthwise_conv = _conv(hidden, hidden, kernel, stride, groups=hidden)
        self.bn1 = build_norm_layer(norm_cfg, hidden)[1]
        self.project_conv = nn.Conv2d(hidden, out_channels, 1, bias=False)
        self.bn2 = build_norm_layer(norm_cfg, out_channels)[1]
        self.act = nn.ReLU6(inplace=True)
        self.shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, ceil(H / stride), ceil(W / stride)]."""
        y = self.act(self.bn0(self.expand_conv(x))) if self.expands else x
        y = self.act(self.bn1(self.depthwise_conv(y)))
        y = self.bn2(self.project_conv(y))
        return x + y if self.shortcut else y


@MODELS.register_module()
class EfficientNetLite(BaseModule):
    """EfficientNet-Lite0 up to its last block (the 1x1 convolution to 1280 channels belongs to the classifier).

    `norm_cfg`: the normalisation; the original batch norm has eps 1e-3 and momentum 0.01.
    """

    def __init__(self, norm_cfg: dict | None = None) -> None:
        super().__init__()
        norm_cfg = norm_cfg or {"type": "BN", "eps": 1e-3, "momentum": 0.01}
        self.conv_stem = _conv(3, STEM_CHANNELS, kernel=3, stride=2)
        self.bn0 = build_norm_layer(norm_cfg, STEM_CHANNELS)[1]
        self.act = nn.ReLU6(inplace=True)
        self.blocks = nn.ModuleList()
        channels = STEM_CHANNELS
        for repeats, kernel, first_stride, expansion, out_channels in LITE0_STAGES:
            for repeat in range(repeats):
                stride = first_stride if repeat == 0 else 1
                self.blocks.append(Block(channels, out_channels, kernel, stride, expansion, norm_cfg))
                channels = out_channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # as in the authors' code: normal, variance 2 / fan-out
                fan_out = module.kernel_size[0] ** 2 * module.out_channels // module.groups
                nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Normalised RGB [B, 3, H, W] -> maps with 24, 40, 112 and 320 channels at strides 4, 8, 16 and 32."""
        x = self.act(self.bn0(self.conv_stem(x)))
        tapped = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in TAPPED_BLOCKS:
                tapped.append(x)
        return tuple(tapped)


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int, groups: int = 1) -> nn.Conv2d:
    if stride == 1:  # "SAME" is symmetric here, and the convolution's own padding is faster
        return nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, groups=groups, bias=False)
    return SameConv2d(in_channels, out_channels, kernel, stride, groups=groups, bias=False)
