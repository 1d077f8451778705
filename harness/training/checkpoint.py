"""Checkpoints: written whole or not at all, the last two kept, a damaged one passed over."""

import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import torch

from harness.compute import atomic
from harness.errors import UserError

KEPT = 2


def save(folder: Path, iteration: int, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain values) as the checkpoint after `iteration` iterations; drop the oldest.

    Raises UserError if the disk does not take it; the checkpoints before it stay.
    """
    content = io.BytesIO()  # and not the file: torch reports a full disk in many ways, Python in one
    torch.save(state, content)
    path = folder / f"iteration_{iteration:07d}.pt"
    try:
        with atomic.replacing(path) as temporary:
            temporary.write_bytes(content.getbuffer())
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}): the checkpoint before it stays; "
            "make room and run the same command again"
        ) from None
    for old in _newest_first(folder)[KEPT:]:
        old.unlink()


def load_newest(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, on the CPU, or None. A damaged one is named on standard error."""
    for path in _newest_first(folder):
        try:
            return _load(path)
        except Exception as error:  # what a torn file makes of torch's readers is not theirs to list
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            print(f"warning: {path} is damaged and passed over ({reason})", file=sys.stderr, flush=True)
    return None


def _load(path: Path) -> dict[str, Any]:
    # torch writes a checksum beside every tensor and does not look at it when it reads.
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or "iteration" not in state:
        raise ValueError("it is no checkpoint of a run")
    return state


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("iteration_*.pt"), reverse=True)
