"""The imports between the folders of harness/ go one way: docs/architecture.md lists them, lowest first."""

import ast
import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
HARNESS = REPOSITORY / "harness"
PACKAGES = ("harness", "benchmarks")


def order():
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.split("## The folders")[1].split("\n## ")[0]
    return re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)


def imported(tree, modules):
    """The modules of harness and benchmarks that a syntax tree imports, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] in PACKAGES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
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


def circle(trees):
    """Modules that import one another, also inside functions: the first circle, or None."""
    try:
        imports = {name: [each for each in imported(tree, trees) if each != name] for name, tree in trees.items()}
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return error.args[1]
    return None


@pytest.fixture(scope="module")
def trees():
    found = [path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")]
    paths = {".".join(path.relative_to(REPOSITORY).with_suffix("").parts): path for path in found}
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


def test_no_modules_import_one_another(trees):
    assert circle(trees) is None


def test_a_circle_is_found():
    code = {"harness.a": "import harness.b", "harness.b": "def f():\n    from harness import c", "harness.c": ""}
    assert circle({name: ast.parse(text) for name, text in code.items()}) is None
    code["harness.c"] = "if TYPE_CHECKING:\n    from harness.a import A"
    assert sorted(set(circle({name: ast.parse(text) for name, text in code.items()}))) == sorted(code)


def test_methods_import_nothing_of_the_harness():
    for path in (REPOSITORY / "methods").glob("*.py"):
        assert not list(imported(ast.parse(path.read_text(encoding="utf-8")), {})), path.name
