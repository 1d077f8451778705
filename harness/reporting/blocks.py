"""Figures in documents: blocks that a command fills from files, so that no number is copied by hand.

A block stands between `<!-- begin FILE -->` and `<!-- end -->`, each on a line of its own; FILE is relative to the
document's folder.
"""

import re
from pathlib import Path

from harness.compute import atomic
from harness.errors import UserError

_BLOCK = re.compile(r"(?ms)^<!-- begin (?P<file>\S+) -->\n.*?^<!-- end -->$")


def filled(document: Path) -> str:
    """The text of `document` with every block holding what its file holds. Raises UserError for a missing file."""

    def block(match: re.Match[str]) -> str:
        source = document.parent / match["file"]
        if not source.is_file():
            raise UserError(f"{document}: the block's file {match['file']} does not exist: make it or remove the block")
        content = source.read_text(encoding="utf-8").strip()
        return f"<!-- begin {match['file']} -->\n\n{content}\n\n<!-- end -->"

    return _BLOCK.sub(block, document.read_text(encoding="utf-8"))


def refresh(document: Path) -> bool:
    """Fill the blocks of `document`; returns whether that changed it."""
    text = filled(document)
    if text == document.read_text(encoding="utf-8"):
        return False
    atomic.write_text(document, text)
    return True
