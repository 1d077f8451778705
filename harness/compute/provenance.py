"""Provenance of a result: commit, package versions and machine."""

import logging
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.compute import devices

log = logging.getLogger(__name__)
ROOT = Path(__file__).parents[2]
TAKES_PART = ("methods", "harness", "config")  # folders in which an untracked file may affect a run
CPUINFO = Path("/proc/cpuinfo")
# Keys in cpuinfo that identify the CPU's model, on x86 and on Arm.
MODEL_KEYS = ("cpu family", "model", "stepping", "CPU implementer", "CPU variant", "CPU part", "CPU revision")
PACKAGES = ("torch", "onedl-mmsegmentation", "onedl-mmcv", "onedl-mmengine", "numpy", "opencv-python-headless")


def provenance(device: str) -> dict[str, Any]:
    """The commit, whether the working tree is dirty, versions of the packages that matter, and the device.

    `dirty`: a tracked file differs from the commit, or a file in `TAKES_PART` is untracked; other untracked and ignored
    files do not count. `commit` and `dirty` are None, with a warning, if git fails or answers for another repository.
    """
    import torch

    gpu = device.startswith("cuda")
    named = {"name": torch.cuda.get_device_name(device)} if gpu else processor()
    # Times of runs that shared a GPU cannot be compared with others.
    shared = {"sharers": devices.sharers()} if gpu else {}
    return {
        **code(),
        "python": platform.python_version(),
        # torch's own version includes the build (2.13.0+cu130), the package's does not.
        "packages": {package: _version(package) for package in PACKAGES} | {"torch": str(torch.__version__)},
        "device": {"type": device.split(":")[0]} | named | {"threads": torch.get_num_threads()} | shared,
    }


def processor() -> dict[str, str]:
    """{"name": the CPU's name, "model": family, model and stepping, if the system reports them}.

    Virtual machines use one name for whole families of CPUs, but results are bit-identical only on the same model.
    """
    try:
        lines = CPUINFO.read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    except OSError:
        lines = []
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    model = ", ".join(f"{key} {found[key]}" for key in MODEL_KEYS if key in found)
    name = found.get("model name") or platform.processor() or platform.machine()
    return {"name": name} | ({"model": model} if model else {})


class _NoAnswer(Exception):
    """Git gave no answer; the message is git's."""


def code() -> dict[str, Any]:
    """`commit` and `dirty` of this project's code."""
    try:
        top = Path(_git("rev-parse", "--show-toplevel"))
        if not top.samefile(ROOT):
            raise _NoAnswer(f"it belongs to another repository, {top}")
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
        added = _git("ls-files", "--others", "--exclude-standard", "--", *TAKES_PART)
    except (_NoAnswer, OSError) as error:
        log.warning("the commit of %s is unknown, and records will say so: %s", ROOT, error)
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(changed or added)}


def _git(*arguments: str) -> str:
    """Git's output for this project. Raises _NoAnswer if git fails or is not installed."""
    command = ["git", "-C", str(ROOT), *arguments]
    # These variables, set by hooks and wrappers, would override -C.
    environment = {name: value for name, value in os.environ.items() if name not in ("GIT_DIR", "GIT_WORK_TREE")}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    except OSError:
        raise _NoAnswer("git is not installed") from None
    except subprocess.CalledProcessError as error:
        raise _NoAnswer((error.stderr.strip().splitlines() or ["git refuses"])[0]) from None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
