"""The base class of every method's options: a frozen, keyword-only dataclass that validates its values.

A field declares type, range and default: `temperature: Annotated[float, Gt(0)] = 0.1`, with the constraints of
annotated-types. Neither this module nor the `Options` classes need torch, so commands can validate an experiment's
options without importing it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from types import NoneType, UnionType
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Ge, Gt, Interval, Le, Lt, MinLen

KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True, kw_only=True)
class BaseOptions:
    """No options; a method's subclass adds fields of type bool, int, float, str, Literal, tuple[T, ...] or T | None.

    A list becomes a tuple, and an integer a float if the field is a float. Raises ValueError, one sentence that begins
    with the option's name, for a value of the wrong type or out of range.
    """

    former_names: ClassVar[Mapping[str, str]] = {}  # {name in older experiments and records: name now}

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self), include_extras=True)
        for field in fields(self):
            object.__setattr__(self, field.name, _checked(field.name, getattr(self, field.name), hints[field.name]))

    def check_maps(self, number: int) -> None:
        """Raise ValueError if the options do not fit a network that gives this number of feature maps."""


@dataclass(frozen=True, kw_only=True)
class LayerOptions(BaseOptions):
    """The options of methods that can use a part of the encoder maps."""

    # indices of the encoder maps to use, from the finest, -1 for the last; null: all
    layers: Annotated[tuple[int, ...], MinLen(1)] | None = None

    def check_maps(self, number: int) -> None:
        """Raise ValueError unless `layers` names maps that exist."""
        if self.layers is not None and any(not -number <= layer < number for layer in self.layers):
            raise ValueError(f"layers is {list(self.layers)}, but must name some of the {number} feature maps")


def check_weights_per_map(name: str, weights: Sequence[float], number: int) -> None:
    """Raise ValueError unless there is a weight for each of `number` feature maps."""
    if len(weights) < number:
        raise ValueError(f"{name} has {len(weights)} values, but must have one for each of the {number} feature maps")


def _checked(name: str, value: Any, hint: Any, or_null: str = "") -> Any:
    """The value converted to the hint's type. Raises ValueError if it has another type or is out of range."""
    kind, limits = _parts(hint)
    if get_origin(kind) in (Union, UnionType):
        inner = [each for each in get_args(kind) if each is not NoneType]
        if len(inner) > 1:
            raise TypeError(f"{kind} is no type of an option: use one type, or one type and None")
        return None if value is None else _checked(name, value, inner[0], " or null")
    listed = get_origin(kind) is tuple
    is_one = isinstance(value, list | tuple) if listed else _is_a(kind, value)
    if not is_one or any(_outside(len(value) if listed else value, limit) for limit in limits):
        raise ValueError(f"{name} is {value!r}, but must be {described(hint)}{or_null}")
    if listed:
        return tuple(_checked(f"{name}[{place}]", each, get_args(kind)[0]) for place, each in enumerate(value))
    return float(value) if kind is float else value


def _parts(hint: Any) -> tuple[Any, list[Any]]:
    """A hint without `Annotated`, and its constraints."""
    if get_origin(hint) is not Annotated:
        return hint, []
    kind, *limits = get_args(hint)
    return kind, [each for limit in limits for each in _flat(limit)]


def _flat(limit: Any) -> Iterator[Any]:
    yield from limit if isinstance(limit, Interval) else (limit,)


def _is_a(kind: Any, value: Any) -> bool:
    if get_origin(kind) is Literal:
        return isinstance(value, str) and value in get_args(kind)
    if kind in (int, float):  # bool is a subclass of int
        numbers = (int,) if kind is int else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool) and math.isfinite(value)
    if kind in KINDS:
        return isinstance(value, kind)
    raise TypeError(f"{kind} is no type of an option: use bool, int, float, str, a Literal, or a tuple of one of these")


def _outside(value: Any, limit: Any) -> bool:
    match limit:
        case Gt(bound):
            return not value > bound
        case Ge(bound):
            return not value >= bound
        case Lt(bound):
            return not value < bound
        case Le(bound):
            return not value <= bound
        case MinLen(bound):
            return not value >= bound
    raise TypeError(f"{limit} is no constraint of an option: use Gt, Ge, Lt, Le, Interval, or MinLen for a tuple")


def described(hint: Any) -> str:
    """The allowed values in words, such as "a number above 0"."""
    kind, limits = _parts(hint)
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if get_origin(kind) is tuple:
        least = [limit.min_length for limit in limits if isinstance(limit, MinLen)]
        return f"a list{f' of at least {least[0]}' if least else ''}, each of them {described(get_args(kind)[0])}"
    words = {Gt: "above", Ge: "of at least", Lt: "below", Le: "at most"}
    said = [f"{words[type(limit)]} {getattr(limit, type(limit).__name__.lower()):g}" for limit in limits]
    return " ".join([KINDS[kind], " and ".join(said)]).strip()
