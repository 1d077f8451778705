"""Checkpoints: written whole or not at all, the last two kept, a damaged one passed over."""

import pickle
import sys
from pathlib import Path
from typing import Any

import torch

from harness import atomic

KEPT = 2


def save(folder: Path, iteration: int, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain values) as the checkpoint after `iteration` iterations; drop the oldest."""
    with atomic.replacing(folder / f"iteration_{iteration:07d}.pt") as path:
        torch.save(state, path)
    for old in _newest_first(folder)[KEPT:]:
        old.unlink()


def load_newest(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint that can be read, on the CPU, or None. A damaged one is named on standard error."""
    for path in _newest_first(folder):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            print(f"warning: {path} is damaged and passed over ({reason})", file=sys.stderr, flush=True)
    return None


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("iteration_*.pt"), reverse=True)
