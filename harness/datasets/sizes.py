"""Image sizes of a data set."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

Pair = tuple[int, int]  # width, height in pixels


@dataclass(frozen=True)
class Sizes:
    """All sizes from `low` to `high`, (width, height) in pixels, written "2048x1024" or "1x1..640x640"."""

    low: Pair
    high: Pair

    @classmethod
    def of(cls, text: str) -> "Sizes":
        """The sizes in `text`. Raises ValueError if it is invalid."""
        found = re.fullmatch(r"(\d+)x(\d+)(?:\.\.(\d+)x(\d+))?", text)
        if not found:
            raise ValueError(f"{text!r} is no size: give WIDTHxHEIGHT, or a range such as 1x1..640x640")
        low, high = (int(found[1]), int(found[2])), (int(found[3] or found[1]), int(found[4] or found[2]))
        if min(low) < 1 or low[0] > high[0] or low[1] > high[1]:
            raise ValueError(f"{text!r} holds no size: the first must be the smaller one")
        return cls(low, high)

    @classmethod
    def around(cls, pairs: Iterable[Pair]) -> "Sizes":
        """The smallest range that contains all `pairs` (at least one)."""
        widths, heights = zip(*pairs, strict=True)
        return cls((min(widths), min(heights)), (max(widths), max(heights)))

    def __contains__(self, pair: Pair) -> bool:
        return all(low <= side <= high for low, side, high in zip(self.low, pair, self.high, strict=True))

    def __str__(self) -> str:
        low, high = (f"{width}x{height}" for width, height in (self.low, self.high))
        return low if low == high else f"{low}..{high}"

    def sentence(self) -> str:
        """The sizes in words, such as "2048x1024" or "at most 640x640"."""
        least = "" if self.low == (1, 1) else f"at least {self.low[0]}x{self.low[1]} and "
        return str(self) if self.low == self.high else f"{least}at most {self.high[0]}x{self.high[1]}"
