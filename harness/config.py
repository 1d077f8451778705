"""Shared parts of configuration files: strict YAML, a strict pydantic base class, sizes and ranges."""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, PositiveFloat, PositiveInt, ValidationError
from pydantic import Strict as StrictType

from harness.errors import UserError, unknown


class Strict(BaseModel):
    """A frozen model that rejects unknown keys, values of other types ("7" or true for 7), and infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _ascending(given: tuple[float, float]) -> tuple[float, float]:
    if given[0] > given[1]:
        raise ValueError(f"must be given as low, high, not {list(given)}")
    return given


Listed = StrictType(False)  # a tuple may be given as a list, as in YAML; its items are still checked strictly
Size = Annotated[tuple[PositiveInt, PositiveInt], Listed]  # height, width in pixels
Range = Annotated[tuple[PositiveFloat, PositiveFloat], Listed, AfterValidator(_ascending)]  # low, high


# What is wrong with a value, by pydantic's name of the problem.
WHOLE, NUMBER, SWITCH, LIST = "must be a whole number", "must be a number", "must be true or false", "must be a list"
PROBLEMS = {
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), WHOLE),
    **dict.fromkeys(("float_type", "float_parsing"), NUMBER),
    **dict.fromkeys(("bool_type", "bool_parsing"), SWITCH),
    **dict.fromkeys(("list_type", "tuple_type"), LIST),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "must hold keys"),
    "finite_number": "must be a finite number",
    "string_type": "must be text",
    "missing": "is missing",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be {ge} or larger",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be {le} or smaller",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "literal_error": "must be {expected}",
    "union_tag_not_found": "needs the key {discriminator}",
    "union_tag_invalid": "must have {discriminator} among {expected_tags}, not {tag!r}",
}


def problems(
    error: ValidationError,
    model: type[BaseModel],
    keys: Iterable[str] = (),
    renamed: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """Each problem in words, such as "schedule.batch must be a whole number, not 'x'".

    Unknown keys come first: one may be a missing key, misspelt.
    keys: those that the file may hold at its top, if they are not the fields of `model`. renamed: what the file calls a
    field, if not by its name.
    """
    found = []
    for problem in sorted(error.errors(), key=lambda each: each["type"] != "extra_forbidden"):
        parts, owner = _place(model, problem["loc"])
        parts[:1] = [renamed.get(part, part) for part in parts[:1]]
        where, parent = ".".join(parts), ".".join(parts[:-1])
        given = problem.get("input")
        shown = f", not {given!r}" if isinstance(given, str | int | float | bool) else ""
        if problem["type"] == "extra_forbidden":
            allowed = keys if keys and not parent else owner.model_fields
            found.append(str(unknown("key", parts[-1], allowed, f" in {parent}" if parent else "")))
        elif where and problem["type"] in PROBLEMS:
            what = PROBLEMS[problem["type"]].format(**problem.get("ctx", {}))
            example = f", such as [{given}]" if what == LIST and isinstance(given, str) else ""
            found.append(f"{where} {what}{example}{shown}")
        else:
            message = problem["msg"].removeprefix("Value error, ").removesuffix(" for <class 'pathlib.Path'>")
            message = message[0].lower() + message[1:]
            found.append(f"{where}: {message}{shown}" if where else message)
    return found


def _place(model: type[BaseModel], location: Sequence[str | int]) -> tuple[list[str], type[BaseModel]]:
    """A problem's location without the tags that pydantic adds for members of a union, and the model that it is in."""
    parts: list[str] = []
    owner, union = model, [model]
    for part in location:
        if len(union) > 1 and (tagged := [each for each in union if part in _tags(each)]):
            union = tagged
            continue
        owner = union[0] if union else owner
        parts.append(str(part))
        if field := owner.model_fields.get(str(part)):
            union = _models_in(field.annotation)
    return parts, owner


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _models_in(part)]


def _tags(model: type[BaseModel]) -> list[Any]:
    """The values of those of the model's fields that hold one value only."""
    return [
        get_args(field.annotation)[0] for field in model.model_fields.values() if len(get_args(field.annotation)) == 1
    ]


def named_files(kind: str, folder: Path, variable: str) -> dict[str, Path]:
    """{name: YAML file} for `folder` and the folders in the environment variable (separated by os.pathsep).

    Raises UserError for a folder that does not exist, and for two files with the same name, which it calls a `kind`.
    """
    found: dict[str, Path] = {}
    for each in [folder, *(Path(given) for given in os.environ.get(variable, "").split(os.pathsep) if given)]:
        if not each.is_dir():
            raise UserError(f"there is no folder {each}: correct ${variable}")
        for path in sorted(each.glob("*.yaml")):
            if found.setdefault(path.stem, path) != path:
                raise UserError(f"{found[path.stem]} and {path} are both the {kind} {path.stem}: rename one of them")
    return found


def size_name(size: Sequence[int]) -> str:
    """(512, 1024) as "512x1024": height x width in pixels."""
    return f"{size[0]}x{size[1]}"


def read_size(text: str) -> tuple[int, int]:
    """The inverse of `size_name`. Raises UserError for an invalid text."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if found is None:
        raise UserError(f"the size {text!r} must be height x width in pixels, such as 512x1024")
    return int(found[1]), int(found[2])


class UniqueKeys(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # PyYAML's C loader if available
    """A safe loader that rejects duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node. Raises MarkedYAMLError for a duplicate key."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                mark = node.value[number][0].start_mark
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} appears twice", problem_mark=mark)
        return super().construct_mapping(node, deep)


# In YAML 1.1, which PyYAML implements, 1e-3 would be text: floats need a dot.
UniqueKeys.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+"), list("-+0123456789"))


def read_yaml(text: str) -> Any:
    """The YAML document in `text`. Raises one of `errors.YAML_FAULTS` if it is invalid or has a duplicate key."""
    return yaml.load(text, Loader=UniqueKeys)
