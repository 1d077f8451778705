"""Finds the methods, one file each in `methods/`, and reads their options without importing torch.

If the project is installed as a package, `methods/` of the current folder holds the user's own.

A method's file imports torch; its class `Options` needs nothing of it. That class alone is taken from the syntax tree
and executed, so a command checks an experiment's options, cross-checks included, in milliseconds.
"""

import ast
import importlib
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import methods
from harness.compute.source import code_hash
from harness.errors import UserError, reason, unknown
from methods.options import BaseOptions

if TYPE_CHECKING:
    from methods.method import Method

FOLDER = Path(__file__).parents[2] / "methods"
TEMPLATE = "template"  # a complete method that `new-method` copies; not one to compare
# What a class `Options` may use, besides constants of its file and other methods' options: nothing that imports torch.
LIGHT = ("annotated_types", "collections.abc", "dataclasses", "math", "methods.options", "typing")

Files = tuple[tuple[Path, int], ...]  # with the time of each one's last change in nanoseconds
_last_files: dict[tuple[str, Path, Path], Files] = {}  # by method, folder of methods and current folder


class About(NamedTuple):
    """Facts about a method, from attributes of its class with these names: literals, and not inherited.

    Nothing of it enters `source_fingerprint`, so a better sentence trains nothing again.
    """

    title: str  # as tables print it; without one, the file's name in words
    idea: str = ""  # one sentence
    paper: str = ""  # its title; "" for a method without one
    venue: str = ""  # where it was published, in short
    year: int = 0  # 0 without a paper
    url: str = ""  # of the paper, or of its released code
    left_open: str = ""  # what paper and code leave open or do differently, one sentence

    @property
    def published(self) -> str:
        """Venue and year, such as "CVPR 2024"; "" without a paper."""
        return f"{self.venue} {self.year}" if self.paper else ""


def folders() -> list[Path]:
    """Where methods are looked for: this project's, then the user's, `methods/` of the current folder.

    If that folder belongs to a checkout of this project (it has the base class), it is not the user's.
    """
    own = Path.cwd() / "methods"
    return [FOLDER, own] if own.is_dir() and not (own / "method.py").exists() else [FOLDER]


def names() -> list[str]:
    """The names of all methods: the files that define a class named as the file, underscores aside.

    A file that is not valid Python is left out; only a command that needs this method fails.
    """
    found = {path.stem for folder in folders() for path in folder.glob("*.py")}
    return sorted(name for name in found if name != TEMPLATE and is_method(name))


def is_method(name: str) -> bool:
    """Whether `methods/NAME.py` defines a method. False for a file that is not valid Python."""
    try:
        return _class_node(name) is not None
    except UserError:
        return False


def options(name: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """All options of method `name`: those given, by current or former names, and otherwise the defaults.

    Lists are returned as tuples, and whole numbers as floats if the option is a float. Raises UserError for an
    unknown method or option, and for a value of the wrong type or range.
    """
    current, kind = current_names(name, given or {}), options_class(name)
    for option in current:
        if option not in kind.__dataclass_fields__:
            raise unknown("option", option, kind.__dataclass_fields__, f" of method {name}")
    try:
        return asdict(kind(**current))
    except ValueError as error:
        raise UserError(str(error)) from None
    except TypeError as error:  # a field without a default, or of a type that options cannot have
        raise UserError(f"methods/{name}.py: {error}") from None


def about(name: str) -> About:
    """The facts about method `name`, without importing torch.

    Raises UserError for an unknown method, and if an attribute is no literal.
    """
    found: dict[str, Any] = {"title": name.replace("_", " ")}
    for statement in _known(name).body:
        if isinstance(statement, ast.Assign) and (key := _about_key(statement)) is not None:
            if not _is_literal(statement.value):
                raise UserError(f"methods/{name}.py: {key} must be a plain text or number, so that it is read fast")
            found[key] = ast.literal_eval(statement.value)
    return About(**found)


def options_class(name: str) -> type[BaseOptions]:
    """The class of method `name`'s options, read without torch. Raises UserError if there is no such method."""
    return _options_class(name, _files(name))


def source(name: str) -> str:
    """The text of a method's file."""
    return _file(name).read_text(encoding="utf-8")


def current_names(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of method `name` under their current names; records and experiments may hold former ones.

    Raises UserError for an unknown method.
    """
    former = options_class(name).former_names
    return {former.get(option, option): value for option, value in given.items()}


def check_maps(name: str, given: Mapping[str, Any], number: int) -> None:
    """Raise UserError if these options of method `name` do not fit a network with this number of feature maps."""
    try:
        options_class(name)(**given).check_maps(number)
    except ValueError as error:
        raise UserError(str(error)) from None


def load(name: str) -> "type[Method]":
    """Import method `name` and return its class. Raises UserError if there is none, or if its imports fail."""
    node = _known(name)
    for folder in folders():
        if str(folder) not in methods.__path__:
            methods.__path__.append(str(folder))
    try:
        module = importlib.import_module(f"methods.{name}")
    except ImportError as error:
        if error.name == "torch":  # what training needs is not installed
            raise
        raise UserError(f"methods/{name}.py cannot be imported: {reason(error, _file(name).parent)}") from None
    return getattr(module, node.name)


def source_fingerprint(name: str) -> str:
    """sha256 of the code of method `name` and of the parts it imports, without comments and docstrings."""
    return _fingerprint(_files(name))


@lru_cache(maxsize=256)
def _fingerprint(files: Files) -> str:
    trees = {path.stem: ast.parse(path.read_text(encoding="utf-8")) for path, _ in files}
    for tree in trees.values():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                node.body = [each for each in node.body if _about_key(each) is None] or [ast.Pass()]
    return code_hash(trees)


def _file(name: str) -> Path:
    """The file of a method or of a part. Raises UserError if the current folder has one of the same name too."""
    found = [path for folder in folders() if (path := folder / f"{name}.py").is_file()]
    if len(found) > 1:
        raise UserError(f"{found[1]} has the name of one of this project's own files: rename it")
    return found[0] if found else FOLDER / f"{name}.py"


def _tree(name: str) -> ast.Module:
    """The syntax tree of a file, to be read only. Raises UserError if it is not valid Python."""
    path = _file(name)
    try:
        return _parsed(path, path.stat().st_mtime_ns)
    except (SyntaxError, ValueError) as error:  # ValueError: bytes that are no text
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        raise UserError(f"methods/{name}.py{line} is not valid Python: {error.args[0]}") from None


@lru_cache(maxsize=256)
def _parsed(path: Path, modified: int) -> ast.Module:
    """The syntax tree of a file; `modified` makes an edited file a new one. A report asks thousands of times."""
    return ast.parse(path.read_text(encoding="utf-8"))


def _about_key(statement: ast.stmt) -> str | None:
    """The field of `About` that a statement of a class sets or declares; None for other statements."""
    match statement:
        case ast.Assign(targets=[ast.Name(key)]) | ast.AnnAssign(target=ast.Name(key)) if key in About._fields:
            return str(key)
    return None


def _known(name: str) -> ast.ClassDef:
    """The class of method `name`. Raises UserError if there is none."""
    node = _class_node(name)
    if node is None and name != "method" and _file(name).is_file():
        if not name.isidentifier():
            raise UserError(f"methods/{name}.py: name the file with letters, digits and '_' alone")
        wanted = name.title().replace("_", "")
        raise UserError(f"methods/{name}.py defines no class {wanted}(Method): name the class as the file")
    if node is None:
        raise unknown("method", name, names())
    return node


def _class_node(name: str) -> ast.ClassDef | None:
    """The class in `methods/NAME.py` that is named as the file, ignoring underscores and case; else None."""
    if name == "method" or not _file(name).is_file():
        return None
    wanted = name.replace("_", "").lower()
    classes = (node for node in _tree(name).body if isinstance(node, ast.ClassDef))
    return next((node for node in classes if node.name.lower() == wanted and node.bases), None)


@lru_cache(maxsize=256)
def _options_class(name: str, files: Files) -> type[BaseOptions]:
    """The class `Options` in the class of `methods/NAME.py`, or else the one it inherits, made without its module.

    files: `_files(name)`, as part of the cache's key. Raises UserError if there is no such method, or if the class uses
    something else than `LIGHT`.
    """
    node = _known(name)
    space: dict[str, Any] = {"__name__": f"methods.{name}", "Method": SimpleNamespace(Options=BaseOptions)}
    for statement in _tree(name).body:
        if isinstance(statement, ast.ImportFrom) and statement.module:
            part = statement.module.removeprefix("methods.")
            if statement.module in LIGHT:
                _execute(name, statement, space)
            elif part != statement.module and (parent := _class_node(part)) is not None:
                space[parent.name] = SimpleNamespace(Options=options_class(part))
        elif isinstance(statement, ast.Assign) and _is_literal(statement.value):
            _execute(name, statement, space)
    own = next((each for each in node.body if isinstance(each, ast.ClassDef) and each.name == "Options"), None)
    init = next((each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__"), None)
    if init is not None and init.args.kwonlyargs:
        raise UserError(f"methods/{name}.py: __init__ takes options itself: move them to a class Options")
    if own is None:
        bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
        return next((space[base].Options for base in bases if base in space), BaseOptions)
    _execute(name, own, space)
    kind = space["Options"]
    if not issubclass(kind, BaseOptions) or "__dataclass_fields__" not in vars(kind):
        raise UserError(
            f"methods/{name}.py: Options must be written as `@dataclass(frozen=True, kw_only=True)` above "
            "`class Options(Method.Options)`"
        )
    return kind


def _execute(name: str, statement: ast.stmt, space: dict[str, Any]) -> None:
    """Execute one statement of a method's file."""
    try:
        exec(compile(ast.Module([statement], []), str(_file(name)), "exec"), space)
    except (NameError, ImportError, TypeError, ValueError) as error:
        raise UserError(
            f"methods/{name}.py: Options cannot be read without the rest of the file ({error}): "
            f"let it use constants and imports from {', '.join(LIGHT)} only"
        ) from None


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def _files(name: str) -> Files:
    """The files of method `name` and of the parts it imports, with the times of their last change.

    Caches with these as their key hold nothing of a file that was edited since, as it may be while `run` works. A
    report asks thousands of times, so the files are looked for again only after a change. Raises UserError if there is
    no such method.
    """
    key = name, FOLDER, Path.cwd()
    if key not in _last_files or not all(_is_unchanged(*file) for file in _last_files[key]):
        _known(name)
        parts, waiting = {name}, [name]
        while waiting:
            for part in _imported_parts(*_stamped(waiting.pop())):
                if part not in parts and _file(part).is_file():
                    parts.add(part)
                    waiting.append(part)
        _last_files[key] = tuple(_stamped(part) for part in sorted(parts))
    return _last_files[key]


def _is_unchanged(path: Path, modified: int) -> bool:
    try:
        return path.stat().st_mtime_ns == modified
    except OSError:
        return False


@lru_cache(maxsize=256)
def _imported_parts(path: Path, modified: int) -> list[str]:
    """The names of the files of methods/ that a file imports."""
    found = [node.module for node in ast.walk(_tree(path.stem)) if isinstance(node, ast.ImportFrom) and node.module]
    return [module.removeprefix("methods.") for module in found if module.startswith("methods.")]


def _stamped(name: str) -> tuple[Path, int]:
    """The file of a method or a part, and the time of its last change."""
    path = _file(name)
    return path, path.stat().st_mtime_ns
