"""Reads YAML of plain values; a repeated key is an error (one of the two would silently be lost), and 1e-3 a number."""

import re
from typing import Any

import yaml


class UniqueKeys(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # the loader in C where there is one
    """The safe loader without duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node. Raises MarkedYAMLError for a key that stands twice."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} appears twice", problem_mark=node.start_mark)
        return super().construct_mapping(node, deep)


# YAML 1.1, which PyYAML reads, takes 1e-3 for text: its floats need a dot.
UniqueKeys.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+"), list("-+0123456789"))


def load(text: str) -> Any:
    """The YAML document in `text`. Raises one of `errors.YAML_FAULTS` for text that is none, or has a key twice."""
    return yaml.load(text, Loader=UniqueKeys)
