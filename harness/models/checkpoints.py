"""Reads other programs' checkpoints as plain tensors by name, without executing code from the file."""

import hashlib
import re
import zipfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import Unpickler, UnpicklingError
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from harness.errors import UserError
from harness.models.spec import HASH_IN_NAME

# Keys under which programs store a network's state dict, in order of preference: its weights before a moving average.
CONTAINERS = ("state_dict", "model", "model_state_dict", "model_state", "state_dict_ema", "model_ema", "ema_state_dict")
# Prefixes that wrappers add to every name: data parallelism, torch.compile, Lightning, and MoCo's query encoder.
PREFIXES = ("module.", "_orig_mod.", "model.", "encoder_q.", "base_encoder.")
ARRAYS = (
    "numpy.ndarray",
    "numpy.dtype",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
)
# mmengine's checkpoints also hold logs of the training losses.
LOGS = ("mmengine.logging.history_buffer.HistoryBuffer", "builtins.getattr", *ARRAYS)
SHOWN = 3


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a file under the file's own names, and its sha256."""

    state: dict[str, Tensor]
    sha256: str


def read(path: Path) -> Checkpoint:
    """Read the state dict in a torch file, a safetensors file, or a pickle of numpy arrays as detectron2 writes.

    The state dict is at the top level or under one of `CONTAINERS`. Raises UserError if the file is damaged, does not
    match the hash in its name, or holds anything but tensors, arrays, text and numbers.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _check_file(path, digest)
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
    except Exception as error:  # a damaged file can make a reader raise anything
        raise UserError(f"{path} cannot be read as plain tensors: {_reason(error)}") from None
    state = _tensors(content)
    for key in CONTAINERS:
        if not state and isinstance(content, dict):
            state = _tensors(content.get(key))
    if not state:
        raise UserError(f"{path} holds no state dict: pass a file with a network's tensors by name")
    check_finite(path, state)
    return Checkpoint(state, digest)


def unwrapped(names: Collection[str], own: Collection[str]) -> dict[str, str]:
    """{name without wrapper prefixes: name in the file}; `own`: the first parts of the network's names."""
    found = {name: name for name in names}
    for _ in PREFIXES:
        for prefix in PREFIXES:
            if prefix.removesuffix(".") not in own and any(name.startswith(prefix) for name in found):
                inside = {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
                found = {k: v for k, v in found.items() if not k.startswith(prefix)} | inside
    return found


def check_finite(path: Path, state: Mapping[str, Tensor]) -> None:
    """Raise UserError if a tensor holds NaN or infinity: such a network predicts class 0 everywhere."""
    wrong = [name for name, tensor in state.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    if wrong:
        more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise UserError(
            f"{path} holds NaN or infinity in {', '.join(wrong[:SHOWN])}{more}: its training diverged, or the file is "
            "damaged"
        )


def _check_file(path: Path, sha256: str) -> None:
    """Raise UserError if the file is text, damaged, or does not match the hash in its name.

    A torch file is a zip archive whose checksums torch does not verify. Publishers put the first digits of the sha256
    into the name, as in fcn_hr48_...-a989b146.pth.
    """
    with path.open("rb") as file:
        start = file.read(200)
    again = "download it again"
    if not start:
        raise UserError(f"{path} is empty (0 bytes): {again}")
    try:
        text = start.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if all(letter.isprintable() or letter in "\r\n\t" for letter in text):
        raise UserError(f"{path} is text, not a checkpoint ({text.strip().splitlines()[0][:60]!r}): {again}")
    mark = HASH_IN_NAME.search(path.name)
    if mark and not sha256.startswith(mark[1]):
        raise UserError(
            f"{path} does not match the hash in its name: its sha256 begins with {sha256[: len(mark[1])]}, not "
            f"{mark[1]}; {again}, or rename a file of your own"
        )
    if start.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
        except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            raise UserError(f"{path} is damaged or cut short ({error}): {again}") from None
        if damaged:
            raise UserError(f"{path} is damaged (wrong checksum of {damaged}): {again}")


def _tensors(content: Any) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    numeric = {
        name: torch.from_numpy(value) if isinstance(value, np.ndarray) and value.dtype.kind in "fiub" else value
        for name, value in content.items()
    }
    return {str(name): value for name, value in numeric.items() if isinstance(value, Tensor)}


class _Log:
    """Placeholder for a log in a checkpoint: accepts anything and keeps nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


class _ArrayUnpickler(Unpickler):
    """Unpickles numpy arrays and nothing else. latin1, since detectron2's oldest files were written by Python 2."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" in ARRAYS:
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)
        if (module, name) in (("collections", "OrderedDict"), ("_codecs", "encode")):
            return super().find_class(module, name)
        raise UnpicklingError(f"GLOBAL {module}.{name} was not an allowed")


def _reason(error: Exception) -> str:
    """Why a file cannot be read. Replaces torch's long message, which advises users to run the file's code."""
    if foreign := re.search(r"GLOBAL (\S+) was not an allowed", str(error)):
        return f"it holds {foreign[1]}, which would have to be run; save the state dict alone and pass that file"
    return "it is damaged, or not a file of torch, safetensors or detectron2; download it again, or pass another"
