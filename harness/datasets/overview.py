"""An overview of all data sets: facts, and where each was found."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import datasets
from harness.errors import UserError


def overview(results: Path = Path("results"), roots: Mapping[str, Path] | None = None) -> dict[str, dict[str, Any]]:
    """Title, number of classes, images per split and location of every data set, as plain JSON.

    root: its folder, or None if no root is known. found: the layout under the root ("yes" if it has no name), or None
    with the reason in `why`. verified: whether the last `verify` of this root found no problem. A set with an invalid
    YAML has no splits, and `why` says what is wrong. roots: an experiment's; they take precedence over the
    environment's.
    """
    return {name: _of(name, results, (roots or {}).get(name)) for name in datasets.names()}


def whereabouts(facts: Mapping[str, Any]) -> str:
    """Where a data set of `overview` was found, or what to do if it was not."""
    if not facts["splits"]:
        return str(facts["why"])
    if facts["root"] is None:
        return f"no: set {facts['root_variable']}, or pass --root DIR"
    if facts["found"] is None:
        return f"not in {facts['root']}" + (f": {facts['why']}" if facts["why"] else "")
    layout = "" if facts["found"] == "yes" else f", layout {facts['found']}"
    return f"in {facts['root']}{layout}, {'verified' if facts['verified'] else 'not verified yet'}"


def _of(name: str, results: Path, given: Path | None) -> dict[str, Any]:
    try:
        root = datasets.resolve_root(name, given, results)
    except UserError:
        root = None
    try:
        dataset = datasets.load(name, root)
    except UserError as error:  # an invalid YAML should not hide the other data sets
        nothing = {"title": name, "classes": 0, "splits": {}, "root_variable": "", "root": None, "found": None}
        return nothing | {"why": str(error), "verified": False}
    found = dataset.found_layout()
    return {
        "title": dataset.title,
        "classes": dataset.num_classes,
        "splits": dict(dataset.splits),
        "root_variable": dataset.root_variable,
        "root": str(root) if root else None,
        "found": None if found is None else found.name or "yes",
        "why": datasets.missing(name, given, results) if root and found is None else "",
        "verified": found is not None and root is not None and _verified(datasets.report_path(name, results), root),
    }


def _verified(report_path: Path, root: Path) -> bool:
    try:
        report = json.loads(report_path.read_text(encoding="utf-8"))
        return report["fingerprint"] is not None and Path(report["root"]).resolve() == root.resolve()
    except (OSError, ValueError, KeyError, TypeError):
        return False
