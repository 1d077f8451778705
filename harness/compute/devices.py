"""GPU leases: a process locks a file for its GPU and hides the other GPUs from CUDA.

Snakemake counts GPUs but does not tell a job which one to use. The kernel releases the lock (flock) when the process
ends, so a killed run leaves nothing to clean up.

Small networks leave most of a large GPU idle. With CONTEXTRAST_BENCH_SHARE=N, up to N trainings or evaluations share a
GPU. The workflow and `run` set N if they have measured their runs' memory (runs/sharing.py); the default is 1. Cost
measurements never share a GPU.
"""

import fcntl
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from harness.errors import UserError

NAMED = "CONTEXTRAST_BENCH_DEVICES"  # comma-separated names that replace nvidia-smi's list
SHARE = "CONTEXTRAST_BENCH_SHARE"  # number of processes that may use a device at a time; default 1
VISIBLE = "CUDA_VISIBLE_DEVICES"
SECONDS_BETWEEN_TRIES = 0.2

_held: tuple[str, list[int]] | None = None  # this process's device and the file descriptors of its locks


def visible() -> list[str]:
    """The devices that this process may use, by names that CUDA_VISIBLE_DEVICES accepts; [] without a GPU.

    The names are UUIDs from `nvidia-smi -L`, or the list in CONTEXTRAST_BENCH_DEVICES; a GPU that is divided by MIG
    appears as its instances. CUDA_VISIBLE_DEVICES selects and orders them as in CUDA: numbers are indices in
    nvidia-smi's order (CUDA_DEVICE_ORDER=PCI_BUS_ID), and the first entry that matches no device ends the list.
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


def memory(names: Sequence[str]) -> int:
    """Memory in bytes of the smallest of these GPUs, from nvidia-smi; 0 if it is unknown for any."""
    query = ["nvidia-smi", "--query-gpu=uuid,memory.total", "--format=csv,noheader,nounits"]
    try:
        text = subprocess.run(query, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    lines = [line.split(",") for line in text.splitlines() if line.count(",") == 1]
    known = {uuid.strip(): int(size) << 20 for uuid, size in lines if size.strip().isdecimal()}
    return min((known.get(name, 0) for name in names), default=0)


def on_machine() -> int:
    """The number of GPUs (or MIG instances) of this machine, including those that this process may not use."""
    return sum(len(instances) for instances in _listed())


def cores() -> int:
    """The number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share() -> int:
    """The number of processes that may share a device. Raises UserError unless `SHARE` is a positive integer."""
    asked = os.environ.get(SHARE, "1")
    if not asked.isdecimal() or int(asked) < 1:
        raise UserError(f"{SHARE} is {asked!r}: give the number of processes that may share a GPU, 1 or more")
    return int(asked)


def sharers() -> int:
    """The number of processes, including this one, that may share this process's device; 1 if it does not share."""
    return share() if _held is not None and len(_held[1]) > 1 else 1


def lease(number: int | None = None, alone: bool = False) -> str | None:
    """Lease a device until this process ends, waiting for one if needed, and hide the others from CUDA.

    number: index in the visible devices; default: the first that becomes free. alone: do not share it, even if `share`
    allows it. Under torchrun a process takes the device of its local rank, unshared, and does not wait, since two
    waiting groups could deadlock. Call it before torch uses CUDA. Returns the device's name, the same on every call, or
    None without a GPU. Raises UserError for an unknown number, a leased device under torchrun, and an invalid `SHARE`.
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
    _held = _first_free(devices, 1 if alone or rank is not None else share(), wait=rank is None)
    os.environ[VISIBLE] = _held[0]
    return _held[0]


def _first_free(devices: list[str], sharers: int, wait: bool) -> tuple[str, list[int]]:
    announced = False
    while True:
        # Fill the first place on every device before the second on any, so that runs spread over all GPUs.
        for place in range(sharers):
            for name in devices:
                descriptors = _take(name, place if sharers > 1 else None)
                if descriptors:
                    return name, descriptors
        if not wait:
            raise UserError(f"another run uses the device {devices[0]}: wait for it, or name others in {VISIBLE}")
        if not announced:
            announced = True
            print(f"waiting for a device: other runs use {', '.join(devices)}", file=sys.stderr, flush=True)
        time.sleep(SECONDS_BETWEEN_TRIES)


def _take(name: str, place: int | None) -> list[int]:
    """Lock a device, or one of its places if shared; returns the locks' file descriptors, [] if it is taken."""
    if place is None:
        return _lock(lock_path(name), fcntl.LOCK_EX)
    held = _lock(lock_path(name), fcntl.LOCK_SH)  # excludes processes that do not share the device
    mine = held and _lock(lock_path(f"{name}-{place}"), fcntl.LOCK_EX)
    if not mine:
        for descriptor in held:
            os.close(descriptor)
    return [*held, *mine] if mine else []


def _lock(path: Path, how: int) -> list[int]:
    """Lock a file; returns the descriptor, which holds the lock while open, or [] if another process has the lock."""
    # Read-only, so that all users of the machine can lock the same file; symbolic links are not followed.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        try:
            descriptor = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:  # another process was faster
            descriptor = os.open(path, flags)
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return []
    return [descriptor]


def lock_path(name: str) -> Path:
    """The lock file of a device, in the machine's temporary folder, which all users share."""
    return Path(tempfile.gettempdir()) / f"contextrast-bench-{re.sub(r'[^A-Za-z0-9._-]', '_', name)}.lock"


def _listed() -> list[list[str]]:
    """UUIDs from nvidia-smi: for each GPU its own, or those of its MIG instances."""
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
    """Close a forked child's copies of the descriptors, which would otherwise prolong the lease."""
    global _held
    if _held is not None:
        for descriptor in _held[1]:
            os.close(descriptor)
        _held = None


os.register_at_fork(after_in_child=_forget)
