"""A piece of `make bench-gpu`, and the record of a device's measurements. Never imports torch."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.compute import atomic
from harness.errors import UserError

SCHEMA = 1

Measured = dict[str, Any]


@dataclass(frozen=True)
class Piece:
    """Something to measure; `seconds`: rough duration on an H200."""

    name: str
    seconds: float
    measure: Callable[[], Measured]


class Record:
    """The measurements on a device: {name of a piece: {"measured" or "failed", "seconds", "at", "commit"}}."""

    def __init__(self, path: Path, head: dict[str, Any], fresh: bool) -> None:
        self.path, self.content = path, {"schema": SCHEMA, **head, "pieces": {}}
        if path.is_file() and not fresh:
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except ValueError:
                found = None
            if not isinstance(found, dict) or found.get("schema") != SCHEMA:
                raise UserError(f"{path} is damaged or another version's: pass --fresh, which measures all anew")
            self.content["pieces"] = found["pieces"]

    @property
    def pieces(self) -> dict[str, Any]:
        """{name: result} in the order of measurement."""
        return dict(self.content["pieces"])

    def missing(self, pieces: list[Piece]) -> list[Piece]:
        """The pieces that were not measured yet, those that failed before last."""
        left = [piece for piece in pieces if "measured" not in self.pieces.get(piece.name, {})]
        return sorted(left, key=lambda piece: piece.name in self.pieces)

    def note(self, name: str, found: dict[str, Any]) -> None:
        """Add a piece's result and write it to disk."""
        self.content["pieces"].pop(name, None)
        self.content["pieces"][name] = found
        atomic.write_json(self.path, self.content)
