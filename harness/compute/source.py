"""A hash of code that does not depend on comments, docstrings or Python's version."""

import ast
import hashlib
from collections.abc import Mapping
from typing import Any


def code_hash(modules: Mapping[str, ast.Module]) -> str:
    """sha256 over the names and code of `modules`, in their order, without comments and docstrings."""
    digest = hashlib.sha256()
    for module, tree in modules.items():
        for node in ast.walk(tree):
            body = getattr(node, "body", None)
            if isinstance(body, list) and body and _is_docstring(body[0]):
                body[0] = ast.Pass()
        digest.update(f"{module}\n{_dump(tree)}\n".encode())
    return digest.hexdigest()


def _dump(node: Any) -> str:
    """The output of Python 3.11's `ast.dump` on every Python; later versions add fields or omit empty ones."""
    if isinstance(node, list):
        return f"[{', '.join(map(_dump, node))}]"
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = []
    for name in node._fields:
        value = getattr(node, name, None)
        optional = value is None and getattr(type(node), name, ...) is None
        if not optional and (name, value) != ("type_params", []):  # since 3.12
            fields.append(f"{name}={_dump(value)}")
    return f"{type(node).__name__}({', '.join(fields)})"


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
