"""Checks of methods' options: a wrong value is a ValueError of one sentence that names the option."""

from collections.abc import Sequence
from typing import Any


def require_choice(name: str, value: Any, allowed: Sequence[str]) -> None:
    """Raise ValueError unless the value is one of the allowed ones."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}, but must be one of {', '.join(allowed)}")


def require_positive(**values: Any) -> None:
    """Raise ValueError unless each value is a number above 0."""
    for name, value in values.items():
        if not (_is_number(value) and value > 0):
            raise ValueError(f"{name} is {value!r}, but must be a number above 0")


def require_not_negative(**values: Any) -> None:
    """Raise ValueError unless each value is a number from 0 upwards."""
    for name, value in values.items():
        if not (_is_number(value) and value >= 0):
            raise ValueError(f"{name} is {value!r}, but must be a number from 0 upwards")


def require_share(**values: Any) -> None:
    """Raise ValueError unless each value is a number from 0 to 1."""
    for name, value in values.items():
        if not (_is_number(value) and 0 <= value <= 1):
            raise ValueError(f"{name} is {value!r}, but must be a number from 0 to 1")


def require_count(**values: Any) -> None:
    """Raise ValueError unless each value is a whole number from 1 upwards."""
    for name, value in values.items():
        if not (isinstance(value, int) and _is_number(value) and value >= 1):
            raise ValueError(f"{name} is {value!r}, but must be a whole number from 1 upwards")


def require_switch(**values: Any) -> None:
    """Raise ValueError unless each value is true or false."""
    for name, value in values.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name} is {value!r}, but must be true or false")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < float("inf")
