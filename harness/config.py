"""Shared parts of configuration files: strict YAML, a strict pydantic base class, sizes and ranges."""

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
    """A frozen model that rejects unknown keys, values of other types ("7" or true for 7), and infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _ascending(given: tuple[float, float]) -> tuple[float, float]:
    if given[0] > given[1]:
        raise ValueError(f"must be given as low, high, not {list(given)}")
    return given


Listed = StrictType(False)  # a tuple may be given as a list, as in YAML; its items are still checked strictly
Size = Annotated[tuple[PositiveInt, PositiveInt], Listed]  # height, width in pixels
Range = Annotated[tuple[PositiveFloat, PositiveFloat], Listed, AfterValidator(_ascending)]  # low, high


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
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} appears twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


# In YAML 1.1, which PyYAML implements, 1e-3 would be text: floats need a dot.
UniqueKeys.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+"), list("-+0123456789"))


def read_yaml(text: str) -> Any:
    """The YAML document in `text`. Raises one of `errors.YAML_FAULTS` if it is invalid or has a duplicate key."""
    return yaml.load(text, Loader=UniqueKeys)
