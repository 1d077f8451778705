"""A hash of code that comments, docstrings and the version of Python do not change."""

import ast
import hashlib
from collections.abc import Mapping
from typing import Any


def code_hash(modules: Mapping[str, ast.Module]) -> str:
    """sha256 of the names and the code of modules, in their order, without comments and docstrings."""
    digest = hashlib.sha256()
    for module, tree in modules.items():
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and _is_docstring(body[0]):
                body[0] = ast.Pass()
        digest.update(f"{module}\n{_dump(tree)}\n".encode())
    return digest.hexdigest()


def _dump(node: Any) -> str:
    """As `ast.dump` of Python 3.11 on every Python: later ones print more fields, or leave out empty ones."""
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


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
