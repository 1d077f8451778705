"""Blocks of documents that a command fills, so that nothing is copied by hand.

A block is between `<!-- begin FILE -->` and `<!-- end -->`, each on its own line. FILE is relative to the
document's folder, or the name of a generated block (`GENERATED`).
"""

import re
from pathlib import Path

from harness.compute import atomic
from harness.errors import UserError
from harness.statistics.scores import METRICS


def _record_keys() -> str:
    from harness.runs.record import describe_keys

    lines = [f"| `{name}` | {kind} | {meaning} |" for name, kind, meaning in describe_keys()]
    return "\n".join(["| key | type | meaning |", "| :-- | :-- | :-- |", *lines])


GENERATED = {"record-keys": _record_keys}
_BLOCK = re.compile(r"(?ms)^<!-- begin (?P<file>\S+) -->\n.*?^<!-- end -->$")


def filled(document: Path) -> str:
    """The text of `document` with its blocks filled. Raises UserError for a missing file."""

    def block(match: re.Match[str]) -> str:
        if match["file"] == ":metrics":
            return f"<!-- begin :metrics -->\n\n{_metrics()}\n\n<!-- end -->"
        source = document.parent / match["file"]
        if match["file"] in GENERATED:
            content = GENERATED[match["file"]]()
        elif source.is_file():
            content = source.read_text(encoding="utf-8").strip()
        else:
            raise UserError(f"{document}: the block's file {match['file']} does not exist: make it or remove the block")
        return f"<!-- begin {match['file']} -->\n\n{content}\n\n<!-- end -->"

    return _BLOCK.sub(block, document.read_text(encoding="utf-8"))


def _metrics() -> str:
    lines = [f"| {each.title} | `{name}` | {each.about} |" for name, each in METRICS.items()]
    return "\n".join(["| metric | name | in percent |", "| :-- | :-- | :-- |", *lines])


def refresh(document: Path) -> bool:
    """Fill the blocks of `document`; returns whether that changed it."""
    text = filled(document)
    if text == document.read_text(encoding="utf-8"):
        return False
    atomic.write_text(document, text)
    return True
