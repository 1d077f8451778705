"""torch.compile for the parts of a network: fewer kernels, the same numbers up to rounding."""

import os
import shutil
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from harness.errors import UserError
from harness.models.resizing import upsample, whole_factors
from harness.models.segmenter import Segmenter
from harness.models.weights import cache_folder

CACHE = "TORCHINDUCTOR_CACHE_DIR"  # where torch caches compiled code for later processes
# Compiled variants per function, shared by all networks of a process; torch stops compiling after 8 by default.
VARIANTS = 64
BACKEND = "inductor"


def compile_network(network: Segmenter) -> None:
    """Compile the network's parts (`Segmenter.compilable`) in place, for training mode; tensor names do not change.

    Each part is compiled when it first sees a new image size. In eval mode it runs uncompiled. Bilinear upsampling by
    integer factors becomes `resizing.upsample`.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir  # importing this takes 2 s

    if os.environ.get(CACHE) in (None, default_cache_dir()):  # torch sets its own default when it is imported
        os.environ[CACHE] = str(cache_folder() / "compiled")
    torch._dynamo.config.recompile_limit = max(VARIANTS, torch._dynamo.config.recompile_limit)
    for module, name in network.compilable():
        setattr(module, name, _compiled(module, getattr(module, name)))


def require_compiler(device: torch.device) -> None:
    """Raise UserError if torch.compile lacks a C or C++ compiler or, on a GPU, Triton."""
    if device.type == "cuda":
        names, missing = [os.environ.get("CC", ""), "gcc", "clang"], find_spec("triton") is None
    else:
        names, missing = [os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")], False
    if missing or not any(name and shutil.which(name) for name in names):
        lacking = "the package triton" if missing else f"a compiler ({' or '.join(filter(None, names))})"
        raise UserError(
            f"schedule.compile is true, but {lacking} is missing: install it, or set schedule.compile=false"
        )


class _WholeFactors(TorchFunctionMode):
    """While active, `interpolate` uses `upsample` for bilinear upsampling by integer factors."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is F.interpolate:
            return _interpolate(*args, **kwargs)
        return function(*args, **kwargs)


def _interpolate(
    input: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: Any = None,
    **rest: Any,
) -> Tensor:
    if mode == "bilinear" and not align_corners and isinstance(size, Sequence):
        factors = whole_factors(input, size)
        if factors is not None:
            return upsample(input, factors)
    return F.interpolate(input, size, scale_factor, mode, align_corners, **rest)


def _compiled(module: nn.Module, function: Callable[..., Any]) -> Callable[..., Any]:
    def resized(*args: Any, **kwargs: Any) -> Any:
        with _WholeFactors():
            return function(*args, **kwargs)

    fast = torch.compile(resized, dynamic=False, backend=BACKEND)

    def call(*args: Any, **kwargs: Any) -> Any:
        return (fast if module.training else function)(*args, **kwargs)

    return call
