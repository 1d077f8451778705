"""Checkpoints: written atomically; the last two are kept, and a damaged one is skipped."""

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

    Raises UserError if it cannot be written; earlier checkpoints are kept.
    """
    content = io.BytesIO()  # torch.save to a file reports a full disk in many ways, Python's write in one
    torch.save(state, content)
    path = folder / f"iteration_{iteration:07d}.pt"
    try:
        with atomic.replacing(path) as temporary:
            temporary.write_bytes(content.getbuffer())
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}): free some space and run the same command again; "
            "the previous checkpoint is kept"
        ) from None
    for old in _newest_first(folder)[KEPT:]:
        old.unlink()


def load_newest(folder: Path) -> dict[str, Any] | None:
    """The newest readable checkpoint, on the CPU, or None. Warns about damaged ones on stderr."""
    for path in _newest_first(folder):
        try:
            return _load(path)
        except Exception as error:  # torch's readers raise all kinds of errors for a truncated file
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            print(f"warning: {path} is damaged and skipped ({reason})", file=sys.stderr, flush=True)
    return None


def _load(path: Path) -> dict[str, Any]:
    # torch stores a checksum for every tensor but does not verify it when loading.
    with zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or "iteration" not in state:
        raise ValueError("it is not a checkpoint of a run")
    return state


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("iteration_*.pt"), reverse=True)
