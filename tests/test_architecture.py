"""The imports between the folders of harness/ go one way: docs/architecture.md lists them, lowest first."""

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
HARNESS = REPOSITORY / "harness"


def order():
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.split("## The folders")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)


def imported(tree, modules):
    """The modules of harness that a syntax tree imports, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("harness."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "harness":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in modules else node.module for name in names)


def upward(trees, places):
    """Every import of a folder further down the list, as "importer imports imported"."""
    found = []
    for module, tree in trees.items():
        for other in imported(tree, trees):
            here, there = (name.split(".")[1] if "." in name else None for name in (module, other))
            if here in places and there in places and places.index(there) > places.index(here):
                found.append(f"{module} imports {other}")
    return found


@pytest.fixture(scope="module")
def trees():
    paths = {".".join(path.relative_to(REPOSITORY).with_suffix("").parts): path for path in HARNESS.rglob("*.py")}
    return {name.removesuffix(".__init__"): ast.parse(path.read_text(encoding="utf-8")) for name, path in paths.items()}


def test_the_page_lists_every_folder_and_nothing_else_lies_at_the_root():
    found = {path.stem for path in HARNESS.iterdir() if path.is_dir() and path.name != "__pycache__"}
    found |= {path.stem for path in HARNESS.glob("*.py")} - {"__init__", "__main__"}
    assert sorted(order()) == sorted(found)


def test_no_import_goes_up(trees):
    assert upward(trees, order()) == []


def test_an_import_that_goes_up_is_found():
    code = {"harness.runs.new": ast.parse("def f():\n    from harness.reporting import page")}
    assert upward(code, order()) == ["harness.runs.new imports harness.reporting"]
    code = {"harness.compute.new": ast.parse("import harness.cli.common")}
    assert upward(code, order()) == ["harness.compute.new imports harness.cli.common"]


def test_methods_import_nothing_of_the_harness():
    for path in (REPOSITORY / "methods").glob("*.py"):
        assert not list(imported(ast.parse(path.read_text(encoding="utf-8")), {})), path.name
