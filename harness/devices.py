"""Which GPU a process computes on: one for itself alone, by a lock file for each device.

Snakemake hands out numbers of GPUs, not GPUs, and tells no job which one it has. So every training, evaluation and
latency measurement leases a device of its own: it locks the device's file (flock) and hides the other devices from
CUDA. The kernel lifts the lock when the process ends, however it ends, so a killed run leaves nothing to clean up.
"""

import fcntl
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness.errors import UserError

NAMED = "CONTEXTRAST_BENCH_DEVICES"  # devices by name, separated by commas, instead of those that nvidia-smi lists
VISIBLE = "CUDA_VISIBLE_DEVICES"
SECONDS_BETWEEN_TRIES = 0.2

_held: tuple[str, int] | None = None  # this process's device and the descriptor that holds its lock


def visible() -> list[str]:
    """The devices that this process may use, by names that CUDA_VISIBLE_DEVICES takes; none on a machine without.

    Those that `nvidia-smi -L` lists, by UUID; of a GPU that is divided by MIG its instances instead. A list in
    CONTEXTRAST_BENCH_DEVICES replaces them. CUDA_VISIBLE_DEVICES, if it is set, narrows them and gives their order; its
    numbers count in the order of nvidia-smi (CUDA_DEVICE_ORDER=PCI_BUS_ID), and as in CUDA the first name that fits no
    device ends it.
    """
    named = os.environ.get(NAMED)
    gpus = [[name.strip()] for name in named.split(",") if name.strip()] if named is not None else _listed()
    asked = os.environ.get(VISIBLE)
    if asked is None:
        return [name for instances in gpus for name in instances]
    chosen: list[str] = []
    for entry in map(str.strip, asked.split(",")):
        if entry.isdecimal():
            fitting = gpus[int(entry)] if int(entry) < len(gpus) else []
        else:
            fitting = [name for instances in gpus for name in instances if entry and name.startswith(entry)]
        if not fitting:
            break
        chosen += [name for name in fitting if name not in chosen]
    return chosen


def lease(number: int | None = None) -> str | None:
    """Take a device for this process until it ends, wait for one if all are taken, and show CUDA no other.

    number: which of the visible devices to take; default: the first that becomes free. A process of torchrun takes the
    one of its local rank and does not wait for it, since two groups that wait would hold each other up. Call it before
    torch asks CUDA anything. Returns the device's name, the same at every further call, or None on a machine without.
    Raises UserError for a number that no device has and for a taken device under torchrun.
    """
    global _held
    if _held is not None:
        return _held[0]
    devices = visible()
    rank = os.environ.get("LOCAL_RANK") if int(os.environ.get("LOCAL_WORLD_SIZE", 1)) > 1 else None
    if number is None and rank is not None and devices:
        number = int(rank)
    if number is not None:
        if devices and number >= len(devices):
            raise UserError(f"there is no CUDA device {number}: {len(devices)} can be used here, counted from 0")
        devices = devices[number : number + 1]
    if not devices:
        return None
    _held = _first_free(devices, wait=rank is None)
    os.environ[VISIBLE] = _held[0]
    return _held[0]


def _first_free(devices: list[str], wait: bool) -> tuple[str, int]:
    said = False
    while True:
        for name in devices:
            descriptor = _lock(name)
            if descriptor is not None:
                return name, descriptor
        if not wait:
            raise UserError(f"another run uses the device {devices[0]}: wait for its end, or name others in {VISIBLE}")
        if not said:
            said = True
            print(f"waiting for a device: other runs use {', '.join(devices)}", file=sys.stderr, flush=True)
        time.sleep(SECONDS_BETWEEN_TRIES)


def _lock(name: str) -> int | None:
    """Lock the device's file; returns a descriptor that holds the lock while it is open, or None if another does."""
    path = lock_path(name)
    # Opened for reading alone, so that users of one machine can lock the same file; never through a link.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:  # another process was faster
            descriptor = os.open(path, flags)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def lock_path(name: str) -> Path:
    """The lock file of a device, in this machine's folder for temporary files, where all its users find it."""
    return Path(tempfile.gettempdir()) / f"contextrast-bench-{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.lock"


def _listed() -> list[list[str]]:
    """The UUIDs that nvidia-smi lists: for every GPU its own, or those of its MIG instances."""
    try:
        command = ["nvidia-smi", "-L"]
        text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    gpus: list[list[str]] = []
    divided = False
    for line in text.splitlines():
        found = re.match(r"\s*(GPU|MIG)\b.*\(UUID: ([^)]+)\)", line)
        if found and found[1] == "GPU":
            gpus.append([found[2]])
            divided = False
        elif found and gpus:
            gpus[-1] = [*gpus[-1], found[2]] if divided else [found[2]]
            divided = True
    return gpus


def _forget() -> None:
    """In a forked child: its copy of the descriptor must not outlive the process that has the lease."""
    global _held
    if _held is not None:
        os.close(_held[1])
        _held = None


os.register_at_fork(after_in_child=_forget)
