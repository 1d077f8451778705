"""Reads checkpoints of other programs as plain tensors by name. Nothing in a file is executed."""

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import Unpickler, UnpicklingError
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from harness.errors import UserError
from harness.models import keras_mobilenet
from harness.models.integrity import check_file, check_finite

# Where programs keep a network in a checkpoint, in order of preference: its own weights before a moving average.
CONTAINERS = ("state_dict", "model", "model_state_dict", "model_state", "state_dict_ema", "model_ema", "ema_state_dict")
# What wrappers put before every name: data parallelism, torch.compile, Lightning, and MoCo's query encoder.
PREFIXES = ("module.", "_orig_mod.", "model.", "encoder_q.", "base_encoder.")
ARRAYS = (
    "numpy.ndarray",
    "numpy.dtype",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
)
# What mmengine's own checkpoints hold beside tensors, text and numbers: logs of the training losses.
LOGS = ("mmengine.logging.history_buffer.HistoryBuffer", "builtins.getattr", *ARRAYS)


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file under the file's own names, its sha256, and who wrote it, where detectron2's files say."""

    state: dict[str, Tensor]
    sha256: str
    author: str = ""


def read(path: Path) -> Checkpoint:
    """Read the state dict in a torch file, a safetensors file, or a pickle of numpy arrays as detectron2 writes.

    The state dict is bare or under one of `CONTAINERS`; an .h5 file is Keras' (`keras_mobilenet`). Raises UserError if
    the file is damaged, is not the one that its name says, or holds anything but tensors, arrays, text and numbers.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    check_file(path, digest)
    if path.suffix == ".h5":
        return Checkpoint(keras_mobilenet.read(path, digest), digest)
    content: Any
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content = load_file(path)
        elif path.suffix == ".pkl":
            with path.open("rb") as file:
                content = _ArrayUnpickler(file).load()
        else:
            with torch.serialization.safe_globals([(_Log, name) for name in LOGS]):
                content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged file makes a reader raise
        raise UserError(f"{path} cannot be read as plain tensors: {_reason(error)}") from None
    author = str(content.get("__author__", "")) if isinstance(content, dict) else ""
    state = _tensors(content)
    for key in CONTAINERS:
        if not state and isinstance(content, dict):
            state = _tensors(content.get(key))
    if not state:
        raise UserError(f"{path} holds no state dict: pass a file with a network's tensors by name")
    check_finite(path, state)
    return Checkpoint(state, digest, author)


def unwrapped(names: Collection[str], own: Collection[str]) -> dict[str, str]:
    """{name without the prefixes of wrappers: the file's name}; `own` are first parts of names that the network has."""
    found = {name: name for name in names}
    for _ in PREFIXES:
        for prefix in PREFIXES:
            if prefix.removesuffix(".") not in own and any(name.startswith(prefix) for name in found):
                inside = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
                found = {k: v for k, v in found.items() if not k.startswith(prefix)} | inside
    return found


def _tensors(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    numeric = {k: torch.from_numpy(v) if _is_numeric(v) else v for k, v in content.items()}
    return {str(name): value for name, value in numeric.items() if isinstance(value, Tensor)}


def _is_numeric(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiub"


class _Log:
    """Stands in for a log in a checkpoint: takes whatever it is given and keeps nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


class _ArrayUnpickler(Unpickler):
    """Knows numpy's arrays and nothing else; detectron2's oldest files were written by Python 2."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" in ARRAYS:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        if (module, name) in (("collections", "OrderedDict"), ("_codecs", "encode")):
            return super().find_class(module, name)
        raise UnpicklingError(f"GLOBAL {module}.{name} was not an allowed")


def _reason(error: Exception) -> str:
    """Why a file cannot be read, in our words: torch's are a page, with advice that would run the file's code."""
    if foreign := re.search(r"GLOBAL (\S+) was not an allowed", str(error)):
        return f"it holds {foreign[1]}, which would have to be run; save the state dict alone and pass that file"
    return "it is damaged, or no file of torch, safetensors or detectron2; download it again, or pass another"
