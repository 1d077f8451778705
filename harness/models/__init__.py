"""Models, one YAML each, in this folder or in your own (docs/new-model.md explains the keys).

Only `build` imports torch and the frameworks, so listing models is fast.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from harness.config import named_files, problems, read_yaml
from harness.errors import YAML_FAULTS, UserError, unknown, yaml_fault
from harness.models.code import code_of
from harness.models.spec import FOLDER, ModelSpec, Published

if TYPE_CHECKING:
    from harness.models.segmenter import Segmenter

FOLDERS_VARIABLE = "CONTEXTRAST_BENCH_MODELS"  # your own folders, separated by os.pathsep
MODEL_KEYS = ("base", *sorted(set(ModelSpec.model_fields) - {"name", "folder", "code"}))


def names() -> list[str]:
    """The names of all models, sorted. Raises UserError if two files have the same name."""
    return sorted(_files())


def load_spec(name: str) -> ModelSpec:
    """Read the YAML of model `name`. Raises UserError for an unknown model or a wrong file."""
    path = _files().get(name, Path(name))
    try:
        spec = ModelSpec(name=name, folder=path.parent, **_content(name))
    except ValidationError as error:
        raise UserError(f"{path}: {problems(error, ModelSpec, MODEL_KEYS)[0]}") from None
    except YAML_FAULTS as error:
        raise UserError(f"{path} is not a model's YAML file: {yaml_fault(error)}") from None
    code = code_of(spec)
    return spec.model_copy(update={"code": code}) if code else spec


def _files() -> dict[str, Path]:
    return named_files("model", FOLDER, FOLDERS_VARIABLE)


def _content(name: str) -> dict[str, Any]:
    files = _files()
    if name not in files:
        raise unknown("model", name, files)
    own = read_yaml(files[name].read_text(encoding="utf-8"))
    if not isinstance(own, dict):
        raise UserError(f"{files[name]} is not a model's YAML file: it must hold keys such as source and taps")
    if wrong := [key for key in own if key not in MODEL_KEYS]:
        raise UserError(f"{files[name]}: {unknown('key', wrong[0], MODEL_KEYS)}")
    base = own.pop("base", None)
    return _content(base) | {"title": ""} | own if base else own


def published(model: str, dataset: str, sha256: str | None = None) -> list[Published]:
    """The published scores of `model` on `dataset`, often none; with `sha256`, only those of that checkpoint."""
    facts = [fact for fact in load_spec(model).published if fact.dataset == dataset]
    return facts if sha256 is None else [fact for fact in facts if fact.is_for(sha256)]


def build(name: str, num_classes: int, weights: str | Path = "auto") -> "Segmenter":
    """Model `name` for `num_classes` classes, on the CPU, in training mode.

    weights: "auto" (the YAML's weights, downloaded if necessary), "none" (random, from torch's global generator), or a
    path or URL (open-mmlab://NAME, https://...) of a checkpoint of the whole model or of its backbone.
    Raises UserError for an unknown model, and for weights that cannot be found or read or that do not fill the whole
    backbone.
    """
    spec = load_spec(name)
    from harness.models.building import from_spec

    return from_spec(spec, num_classes, weights)
