"""Who this process is among those that torchrun started, by its environment variables. Never imports torch."""

import os


def number() -> int:
    """How many processes torchrun started on all machines; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", 1))


def rank() -> int:
    """The number of this process among them, from 0."""
    return int(os.environ.get("RANK", 0)) if number() > 1 else 0


def is_main() -> bool:
    """Whether this is the process that writes and prints."""
    return rank() == 0
