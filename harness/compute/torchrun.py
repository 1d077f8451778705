"""Rank and world size from torchrun's environment variables. Never imports torch."""

import os


def world_size() -> int:
    """Number of processes that torchrun started on all machines; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """The rank of this process, from 0."""
    return int(os.environ.get("RANK", 0)) if world_size() > 1 else 0


def is_main() -> bool:
    """Whether this is rank 0, the process that writes and prints."""
    return rank() == 0
