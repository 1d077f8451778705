"""What files of settings have in common: strict YAML, the base class of their models, and pairs of numbers."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, PositiveFloat, PositiveInt
from pydantic import Strict as StrictType

from harness.errors import UserError


class Strict(BaseModel):
    """A frozen model that refuses unknown keys and values of another type: no "7" or true for 7, no infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _ascending(given: tuple[float, float]) -> tuple[float, float]:
    if given[0] > given[1]:
        raise ValueError(f"must be given as low, high, not {list(given)}")
    return given


Listed = StrictType(False)  # on a tuple: it may be given as a list, as in YAML; its items are checked all the same
Size = Annotated[tuple[PositiveInt, PositiveInt], Listed]  # height, width in pixels
Range = Annotated[tuple[PositiveFloat, PositiveFloat], Listed, AfterValidator(_ascending)]  # low, high


def named_files(kind: str, folder: Path, variable: str) -> dict[str, Path]:
    """{name: its YAML file} in `folder`, then in the folders that the environment variable names (os.pathsep between).

    Raises UserError, with the `kind` of thing, for a folder that does not exist, or two files of one name.
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
    """The inverse of `size_name`. Raises UserError for a text that is no size."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if found is None:
        raise UserError(f"the size {text!r} must be height x width in pixels, such as 512x1024")
    return int(found[1]), int(found[2])


class UniqueKeys(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # the loader in C if there is one
    """The safe loader without duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node. Raises MarkedYAMLError for a key that is given twice."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} appears twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


# YAML 1.1, which PyYAML reads, takes 1e-3 for text: its floats need a dot.
UniqueKeys.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+"), list("-+0123456789"))


def read_yaml(text: str) -> Any:
    """The YAML document in `text`. Raises one of `errors.YAML_FAULTS` for text that is none, or has a key twice."""
    return yaml.load(text, Loader=UniqueKeys)
