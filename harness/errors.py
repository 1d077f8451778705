"""The two ways in which a command fails, and what went wrong on one line."""

import difflib
import traceback
from collections.abc import Iterable
from pathlib import Path

import yaml

# PyYAML lets through errors of int(), float() and datetime() for a scalar (the date 2020-13-45, "!!float ''"), and
# Python's for brackets that are nested too deep. UnicodeDecodeError is a ValueError.
YAML_FAULTS = (yaml.YAMLError, ValueError, KeyError, AttributeError, IndexError, TypeError, RecursionError)


def reason(error: Exception, folder: Path) -> str:
    """An error on one line, with the last line of the code in `folder` that it came through."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    files = [(Path(frame.filename), frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    places = [f"{path.name}, line {line}" for path, line in files if path.is_relative_to(folder.resolve())]
    return f"{text} at {places[-1]}" if places else text


def yaml_fault(error: Exception) -> str:
    """What is wrong with a YAML text and at which line, on one line."""
    return " ".join(str(error).split()).replace('in "<unicode string>", ', "at ")


class UserError(Exception):
    """A mistake by the user: one sentence that names the file or key and says what to do. Exit status 2."""


class RunFailed(Exception):
    """A run failed, and its record says why. Exit status 1."""


def unknown(kind: str, name: str, allowed: Iterable[str], where: str = "") -> UserError:
    """An error for an unknown name, with the nearest match and the allowed names."""
    names = sorted(allowed)
    return UserError(f"unknown {kind} {name!r}{where}: {guess(name, names)}allowed are {', '.join(names) or 'none'}")


def guess(name: str, allowed: Iterable[str]) -> str:
    """A question that names the nearest of the allowed names; "" if none is near."""
    nearest = difflib.get_close_matches(str(name), list(allowed), n=1)
    return f"did you mean {nearest[0]}? " if nearest else ""
