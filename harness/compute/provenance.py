"""Where a number comes from: code, packages, machine."""

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
TAKES_PART = ("methods", "harness", "config")  # where a file that is in no commit may decide what a run does
CPUINFO = Path("/proc/cpuinfo")
# What numbers a processor there, on x86 and on Arm.
MODEL_KEYS = ("cpu family", "model", "stepping", "CPU implementer", "CPU variant", "CPU part", "CPU revision")
PACKAGES = ("torch", "onedl-mmsegmentation", "onedl-mmcv", "onedl-mmengine", "numpy", "opencv-python-headless")


def provenance(device: str) -> dict[str, Any]:
    """The commit, whether the code is another, versions of the packages that matter, and the device.

    `dirty`: a tracked file differs from the commit, or one in `TAKES_PART` is not tracked. Results and notes do not
    count, and neither does what .gitignore names. `commit` and `dirty` are None, with a warning, where git does not
    answer or answers about another repository than this project's.
    """
    import torch

    gpu = device.startswith("cuda")
    named = {"name": torch.cuda.get_device_name(device)} if gpu else processor()
    # How many runs may have been on the GPU at a time: without it, seconds of two records cannot be compared.
    shared = {"sharers": devices.sharers()} if gpu else {}
    return {
        **code(),
        "python": platform.python_version(),
        # torch names its build too (2.13.0+cu130), which the package from the index does not.
        "packages": {package: _version(package) for package in PACKAGES} | {"torch": str(torch.__version__)},
        "device": {"type": device.split(":")[0]} | named | {"threads": torch.get_num_threads()} | shared,
    }


def processor() -> dict[str, str]:
    """Of this machine's processor {"name": as it calls itself, "model": its numbers, where the system tells them}.

    Virtual machines give whole families of processors one name; bits are equal on equal models alone.
    """
    try:
        lines = CPUINFO.read_text(encoding="utf-8").partition("\n\n")[0].splitlines()
    except OSError:
        lines = []
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    model = ", ".join(f"{key} {told[key]}" for key in MODEL_KEYS if key in told)
    name = told.get("model name") or platform.processor() or platform.machine()
    return {"name": name} | ({"model": model} if model else {})


class _NoAnswer(Exception):
    """Git does not say what is asked, in its words."""


def code() -> dict[str, Any]:
    """`commit` and `dirty` of the code that runs."""
    try:
        top = Path(_git("rev-parse", "--show-toplevel"))
        if not top.samefile(ROOT):
            raise _NoAnswer(f"the next repository, {top}, is another one")
        commit = _git("rev-parse", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
        added = _git("ls-files", "--others", "--exclude-standard", "--", *TAKES_PART)
    except (_NoAnswer, OSError) as error:
        log.warning("the commit of %s is unknown, and records will say so: %s", ROOT, error)
        return {"commit": None, "dirty": None}
    return {"commit": commit, "dirty": bool(changed or added)}


def _git(*arguments: str) -> str:
    """What git says of this project. Raises _NoAnswer if it refuses or is not there."""
    command = ["git", "-C", str(ROOT), *arguments]
    # What a hook or a wrapper sets would name another repository whatever -C says.
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
