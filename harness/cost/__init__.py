"""What a network costs: parameters and arithmetic, without data or a GPU."""

import re
from collections.abc import Sequence

from harness.errors import UserError


def size_name(size: Sequence[int]) -> str:
    """(512, 1024) as "512x1024": height x width in pixels."""
    return f"{size[0]}x{size[1]}"


def read_size(text: str) -> tuple[int, int]:
    """The inverse of `size_name`. Raises UserError for a text that is no size."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if found is None:
        raise UserError(f"the size {text!r} must be height x width in pixels, such as 512x1024")
    return int(found[1]), int(found[2])
