"""Python modules next to a model's YAML: their import, and a hash of their code (computed without running it)."""

import ast
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from harness.compute.source import code_hash
from harness.errors import UserError, reason
from harness.models.spec import FOLDER, ModelSpec


def code_of(spec: ModelSpec) -> dict[str, str]:
    """{module: sha256 of its code} for the modules in `spec`'s folder that build its network, including their imports.

    Raises UserError for a syntax error.
    """
    if ":" not in spec.source and not spec.imports:
        return {}
    found: dict[str, str] = {}
    waiting = [*spec.imports, *([spec.source.partition(":")[0]] if ":" in spec.source else [])]
    while waiting:
        name = waiting.pop()
        path = _file(spec.folder, name)
        if path is None or name in found:
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError) as error:
            raise UserError(f"{path} is not valid Python: {error}") from None
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        waiting += _imported(tree, package)
        found[name] = code_hash({name: tree})
    return dict(sorted(found.items()))


def import_modules(spec: ModelSpec) -> None:
    """Import the YAML's `imports`. Raises UserError for a module that fails to import."""
    for name in spec.imports:
        import_module(spec, name)


def import_module(spec: ModelSpec, name: str) -> ModuleType:
    """Import `name` from the folder of `spec`'s YAML or the Python path. Raises UserError if that fails."""
    if spec.folder != FOLDER and str(spec.folder) not in sys.path:
        sys.path.insert(0, str(spec.folder))
        importlib.invalidate_caches()
    try:
        module = importlib.import_module(name)
    except Exception as error:  # a user's module can raise anything
        why = reason(error, spec.folder)
        raise UserError(f"model {spec.name}: module {name} cannot be imported ({why})") from None
    expected = _file(spec.folder, name)
    if spec.folder != FOLDER and expected is not None and Path(module.__file__ or "").resolve() != expected:
        raise UserError(f"model {spec.name}: {expected} and {module.__file__} are both the module {name}: rename yours")
    return module


def _file(folder: Path, module: str) -> Path | None:
    """The file of a module in `folder`, or None."""
    base = folder.resolve().joinpath(*module.split("."))
    return next((path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None)


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Names that `tree`, a module of `package`, imports and that may be modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            module = ".".join([*filter(None, above), *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" if module else alias.name for alias in node.names)
