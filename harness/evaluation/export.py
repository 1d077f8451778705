"""Exports the inference network of a trained run for use outside this project."""

import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from harness import datasets
from harness.compute import atomic
from harness.config import size_name
from harness.errors import UserError, unknown
from harness.evaluation.evaluate import load_network
from harness.models.segmenter import Segmenter, state_hash
from harness.runs.record import TRAINING, Record

SUFFIXES = {"safetensors": ".safetensors", "torchscript": ".pt"}


def export(folder: Path, kind: str, out: Path | None = None, size: tuple[int, int] | None = None) -> Path:
    """Write the inference network of the run in `folder` to `out` (default: `folder`/export/); returns `out`.

    kind: "safetensors", the tensors under mmsegmentation's names; or "torchscript", the network itself, which needs
    only torch and takes images of one `size` only (height, width; default: the training crop). Auxiliary heads and the
    method are left out. A JSON file of the same name describes model, classes, normalisation and the weights' hash.

    Raises UserError for an unknown kind, a run that was not trained to the end, and weights that are not the run's.
    """
    if kind not in SUFFIXES:
        raise unknown("format", kind, SUFFIXES)
    training = Record.load(folder / TRAINING)
    if training.status != "done":
        raise UserError(f"{folder} ended as {training.status}: only a run that was trained to the end can be exported")
    key, classes = training.key, datasets.load(training.key.dataset).classes
    network = load_network(folder, key.model, len(classes), torch.device("cpu"))
    state = {name: tensor.contiguous() for name, tensor in network.inference_state().items()}
    if state_hash(state) != training.weights_hash:
        raise UserError(f"the weights in {folder} are not those of its training.json: train it again with --restart")
    out = out or folder / "export" / f"inference{SUFFIXES[kind]}"
    about: dict[str, Any] = {
        "format": kind,
        "key": key.key(),
        "model": key.model,
        "model_spec": training.settings["model_spec"],
        "classes": list(classes),
        "weights_hash": training.weights_hash,
        "mean": network.mean.flatten().tolist(),
        "std": network.std.flatten().tolist(),
        "align_corners": network.align_corners,
    }
    if kind == "safetensors":
        about["input"] = "RGB, 0 to 255, normalised by you: (input - mean) / std"
        with atomic.replacing(out) as path:
            save_file(state, path, metadata={"model": key.model, "weights_hash": state_hash(state)})
    else:
        height, width = size or training.schedule.crop
        about["size"] = size_name((height, width))
        about["input"] = f"float32 [1, 3, {height}, {width}], RGB, 0 to 255; normalised inside"
        traced = trace(network, height, width)
        with atomic.replacing(out) as path:
            traced.save(str(path))
    about["output"] = "logits on the network's grid, to be resized bilinearly to the image's size"
    atomic.write_json(out.with_suffix(".json"), about)
    return out


def trace(network: Segmenter, height: int, width: int) -> torch.jit.ScriptModule:
    """`network`, in eval mode, as TorchScript for images float32 [1, 3, height, width], its state under `network.`

    Tracing turns sizes into constants, so other sizes would give wrong logits and are refused. Removes the network's
    auxiliary heads. Raises UserError if the traced network's logits differ.
    """
    network.auxiliary_head = None
    example = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)) * 255
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated; sizes become constants
        traced = torch.jit.trace(network, example)
        scripted = torch.jit.script(_OneSize(traced, height, width))
        ours, theirs = network(example), scripted(example)
        if not torch.allclose(theirs, ours, rtol=0, atol=1e-5 * float(ours.abs().max())):
            raise UserError("TorchScript changes this network's logits: export it as safetensors")
    return scripted


class _OneSize(nn.Module):
    """A traced network that checks the shape of its input."""

    def __init__(self, network: torch.jit.ScriptModule, height: int, width: int) -> None:
        super().__init__()
        self.network = network
        self.shape = [1, 3, height, width]

    def forward(self, images: Tensor) -> Tensor:
        if list(images.shape) != self.shape:
            raise ValueError(f"this network takes images of shape {self.shape}, not {list(images.shape)}")
        return self.network(images)
