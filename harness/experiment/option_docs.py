"""What a method's options mean: the allowed values from each field's annotation, the meaning from its comment."""

import ast
import io
import tokenize
from dataclasses import fields
from types import NoneType
from typing import Any, NamedTuple, get_args, get_type_hints

from harness.experiment import discovery
from methods.options import described


class OptionDoc(NamedTuple):
    """One option of a method."""

    allowed: str  # such as "a number above 0"
    default: Any
    meaning: str  # the comment above the field or on its line; "" without one


def documented(name: str) -> dict[str, OptionDoc]:
    """Every option of method `name`, inherited ones first. Raises UserError for an unknown method."""
    kind = discovery.options_class(name)
    hints = get_type_hints(kind, include_extras=True)
    meanings: dict[str, str] = {}
    for parent in reversed(kind.__mro__):
        if parent.__module__.startswith("methods."):
            meanings |= _comments(parent.__module__.removeprefix("methods."), parent.__name__)
    return {
        field.name: OptionDoc(_allowed(hints[field.name]), field.default, meanings.get(field.name, ""))
        for field in fields(kind)
    }


def _allowed(hint: Any) -> str:
    inner = [each for each in get_args(hint) if each is not NoneType]
    return f"{described(inner[0])}, or null" if NoneType in get_args(hint) else described(hint)


def _comments(name: str, options: str) -> dict[str, str]:
    """The comment of each field of a class of options in a file of methods/: the lines above it and on its line."""
    source = discovery.source(name)
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    alone = {line for line, text in enumerate(source.splitlines(), 1) if text.lstrip().startswith("#")}
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and node.name == options:
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                    first = field.lineno
                    while first - 1 in alone:
                        first -= 1
                    lines = range(first, (field.end_lineno or field.lineno) + 1)
                    found[field.target.id] = " ".join(comments[line] for line in lines if line in comments)
    return found
