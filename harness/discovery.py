"""Finds the methods: one file each in `methods/`, read without importing torch until one is needed.

Names, options and defaults are read from the source's syntax tree, so that an experiment can be checked, planned and
reported on by a process that never imports torch.
"""

import ast
import difflib
import hashlib
import importlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import UserError

if TYPE_CHECKING:
    from methods.method import Method

FOLDER = Path(__file__).parent.parent / "methods"


def unknown(kind: str, name: str, allowed: Iterable[str], where: str = "") -> UserError:
    """The error for a name that is not among the allowed ones: it names these and the nearest match."""
    names = sorted(allowed)
    nearest = difflib.get_close_matches(str(name), names, n=1)
    guess = f"did you mean {nearest[0]}? " if nearest else ""
    return UserError(f"unknown {kind} {name!r}{where}: {guess}allowed are {', '.join(names) or 'none'}")


def names() -> list[str]:
    """The names of all methods: the files that define a class named as the file, underscores aside."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if _class_node(path.stem) is not None)


def options(name: str) -> dict[str, Any]:
    """The keyword options of method `name` with their defaults.

    Raises UserError for an unknown method and for a default that is not a literal.
    """
    node = _class_node(name)
    if node is None:
        raise unknown("method", name, names())
    return _options_of(name, node)


def load(name: str) -> "type[Method]":
    """Import method `name` and return its class. Raises UserError if there is none."""
    node = _class_node(name)
    if node is None:
        raise unknown("method", name, names())
    return getattr(importlib.import_module(f"methods.{name}"), node.name)


@cache
def source_fingerprint(name: str) -> str:
    """sha256 over the code of method `name` and of the parts it imports; comments and docstrings do not count."""
    return code_hash({module: _tree(module) for module in sorted(_imported_parts(name, set()))})


def code_hash(modules: Mapping[str, ast.Module]) -> str:
    """sha256 over the names and the code of modules, in their order; comments and docstrings do not count."""
    digest = hashlib.sha256()
    for module, tree in modules.items():
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and _is_docstring(body[0]):
                body[0] = ast.Pass()
        digest.update(f"{module}\n{_dump(tree)}\n".encode())
    return digest.hexdigest()


def _dump(node: Any) -> str:
    """Python 3.11's `ast.dump`, whatever Python this is: later ones know more fields, or leave out empty ones."""
    if isinstance(node, list):
        return f"[{', '.join(map(_dump, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    said = []
    for name in node._fields:
        value = getattr(node, name, None)
        optional = value is None and getattr(type(node), name, ...) is None
        if not optional and (name, value) != ("type_params", []):  # since 3.12
            said.append(f"{name}={_dump(value)}")
    return f"{type(node).__name__}({', '.join(said)})"


def _tree(name: str) -> ast.Module:
    return ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))


def _class_node(name: str) -> ast.ClassDef | None:
    """The class in `methods/NAME.py` whose name is the file's without underscores, in any case; not the base class."""
    if name == "method" or not (FOLDER / f"{name}.py").is_file():
        return None
    wanted = name.replace("_", "").lower()
    classes = (node for node in _tree(name).body if isinstance(node, ast.ClassDef))
    return next((node for node in classes if node.name.lower() == wanted and node.bases), None)


def _options_of(name: str, node: ast.ClassDef) -> dict[str, Any]:
    found: dict[str, Any] = {}
    init = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    if init is None or init.args.kwarg is not None:  # options are passed on to the base class
        for base in node.bases:
            found |= _inherited_options(name, base)
    if init is not None:
        for argument, default in zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True):
            try:
                found[argument.arg] = ast.literal_eval(default)  # type: ignore[arg-type]
            except ValueError:
                raise UserError(f"methods/{name}.py: give option {argument.arg} a literal as its default") from None
    return found


def _inherited_options(name: str, base: ast.expr) -> dict[str, Any]:
    for imported in ast.walk(_tree(name)):
        if isinstance(imported, ast.ImportFrom) and imported.module and imported.module.startswith("methods."):
            part = imported.module.removeprefix("methods.")
            if any(alias.name == ast.unparse(base) for alias in imported.names):
                parent = _class_node(part)
                return _options_of(part, parent) if parent else {}
    return {}


def _imported_parts(name: str, seen: set[str]) -> set[str]:
    seen.add(name)
    for node in ast.walk(_tree(name)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("methods."):
            part = node.module.removeprefix("methods.")
            if part not in seen:
                _imported_parts(part, seen)
    return seen


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
