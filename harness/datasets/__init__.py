"""Data sets, one YAML each, in this folder or in your own (docs/new-dataset.md)."""

import ast
import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from harness.compute.source import code_hash
from harness.config import named_files
from harness.datasets.dataset import Dataset, no_root
from harness.datasets.readers import Sample
from harness.datasets.spec import IGNORE_INDEX, Spec, read_specs
from harness.errors import UserError, unknown

__all__ = [
    "IGNORE_INDEX",
    "Dataset",
    "Sample",
    "description_fingerprint",
    "is_verified",
    "load",
    "missing",
    "names",
    "prepare",
    "report_path",
    "resolve_root",
]

FOLDER = Path(__file__).parent
FOLDERS_VARIABLE = "CONTEXTRAST_BENCH_DATASETS"  # your own folders, separated by os.pathsep


def names() -> list[str]:
    """The names of all data sets, sorted. Raises UserError if two files have one name."""
    return sorted(_files())


def load(name: str, root: Path | None = None) -> Dataset:
    """The data set `name` under `root`. Reads no data; without a root, only the YAML's facts are available.

    Raises UserError for an unknown name or an invalid YAML.
    """
    return Dataset(_specs(name), root)


def resolve_root(name: str, given: Path | None = None, results: Path = Path("results")) -> Path:
    """The root of data set `name`: `given` (from --root or the experiment), or else the set's environment variable.

    A rendered set is in `results/data`, in a folder named after its settings. Raises UserError if no root is known.
    """
    spec = _specs(name)[0]
    if given is not None:
        return Path(given).expanduser()
    if named := os.environ.get(spec.root_variable):
        return Path(named).expanduser()
    if spec.generator is None:
        raise no_root(name, spec.root_variable)
    return results / "data" / f"{name}-{_generator_fingerprint(spec)}"


def missing(name: str, given: Path | None = None, results: Path = Path("results")) -> str:
    """Why data set `name` cannot be found, in a sentence; "" if it is there or can be rendered.

    given, results: as for `resolve_root`. The files themselves are checked by `verify`.
    """
    try:
        dataset = load(name, resolve_root(name, given, results))
        if dataset.specs[0].generator is None and dataset.found_layout() is None:
            dataset.folder()
            dataset.samples(dataset.train_split)
    except UserError as error:
        return str(error)
    except OSError as error:
        return f"{error.filename} cannot be read ({error.strerror}): make it readable for the user who runs this"
    return ""


def prepare(dataset: Dataset, *, convert: bool = False, workers: int | None = None) -> dict[str, Any] | None:
    """Render a generated set whose root does not exist yet; with `convert`, convert MATLAB labels to PNG.

    Two processes may render at once: the first to finish wins. Returns the report of `preparation.convert`, if any.
    """
    generator, root = dataset.spec.generator, dataset.root
    if generator is not None and root is not None and not (root.is_dir() and any(root.iterdir())):
        from harness.datasets.scenes import write

        write(root, generator.seed, dataset.splits, generator.height, generator.width)
    if convert:
        from harness.datasets import preparation

        return preparation.convert(dataset, workers)
    return None


def report_path(name: str, results: Path = Path("results")) -> Path:
    """The path of data set `name`'s verify.json."""
    return results / "data" / name / "verify.json"


def is_verified(name: str, results: Path = Path("results")) -> bool:
    """Whether the last `verify` of data set `name`, under any root, found no problem."""
    try:
        return bool(json.loads(report_path(name, results).read_text(encoding="utf-8"))["status"] == "ok")
    except (OSError, ValueError, KeyError, TypeError):
        return False


def description_fingerprint(name: str) -> str:
    """sha256 of data set `name`'s YAML and, if it is generated, of the renderer."""
    specs = _specs(name)
    described = "".join(spec.model_dump_json() for spec in specs)
    rendered = _generator_fingerprint(specs[0]) if specs[0].generator else ""
    return hashlib.sha256((described + rendered).encode()).hexdigest()


def _files() -> dict[str, Path]:
    return named_files("data set", FOLDER, FOLDERS_VARIABLE)


def _specs(name: str) -> tuple[Spec, ...]:
    files = _files()
    if name not in files:
        raise unknown("data set", name, files)
    return read_specs(files[name])


def _generator_fingerprint(spec: Spec) -> str:
    """Twelve hexadecimal digits over the settings and the renderer's code, without its comments."""
    settings = {**(spec.generator.model_dump() if spec.generator else {}), "splits": spec.splits}
    return hashlib.sha256((json.dumps(settings, sort_keys=True) + _renderer_hash()).encode()).hexdigest()[:12]


@cache
def _renderer_hash() -> str:
    folder = Path(__file__).with_name("scenes")
    return code_hash({path.stem: ast.parse(path.read_text("utf-8")) for path in sorted(folder.glob("*.py"))})
