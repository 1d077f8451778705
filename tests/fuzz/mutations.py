"""Wrong input for the command line: changed contents of files, and what a user sees of a call."""

import contextlib
import copy
import io
import os
import sys

import pytest
import typer
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

from harness import cli

COMMAND = typer.main.get_command(cli.app)  # built once: it takes longer than most of the calls

ODD_TEXTS = [
    "",
    " ",
    ".",
    "..",
    "../../up",
    "/etc/passwd",
    "a/b",
    "\x00",
    "\n",
    "<script>",
    "1e999",
    "nan",
    "~",
    "$HOME",
]
ODD_TEXTS += ["é" * 300, "scenes", "camvid", "tiny", "contextrast", "external", "done", "whole", "region", "%s", "{}"]
# YAML that a mutated text seldom holds.
ODD_YAML = ["2020-13-45", "2020-01-01", "0x", "!!binary '='", "!!python/object:os.system ls", "&a [*a]", "*nothing"]
ODD_YAML += ["{[1]: 2}", "{a: 1, a: 2}", "1:60", "9" * 5000, "[" * 500, "!!set {a, b}", "!!omap [a: 1]", "<<: 1", "\t"]
ODD_YAML += ["!!timestamp 1", "!!int x", "!!float ''", "!!bool x", "&a {b: *a}", "- ? - :", "|", "%YAML 9", "---\n---"]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 300),
    st.sampled_from([2**31, 2**63, 2**64, -(2**63), 10**30]),
    st.floats(),
    st.sampled_from([0.0, -1.0, 1e308, 5e-324, float("inf"), float("-inf"), float("nan")]),
    st.sampled_from(ODD_TEXTS),
    st.text(max_size=6),
)
keys = st.one_of(st.sampled_from(ODD_TEXTS), st.text(max_size=6), st.integers(-1, 3), st.booleans(), st.none())
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=5,
)
json_values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)),
    max_leaves=5,
)


@st.composite
def mutated(draw, content, odd=values):
    """`content` (dictionaries, lists and scalars) with one to three changes at any depth."""
    changed = copy.deepcopy(content)
    for _ in range(draw(st.integers(1, 3))):
        changed = draw(_once(changed, odd))
    return changed


@st.composite
def _once(draw, content, odd):
    if not isinstance(content, dict | list) or not content or draw(st.integers(0, 9)) == 0:
        return draw(odd)
    changed = copy.copy(content)
    key = draw(st.sampled_from(list(content) if isinstance(content, dict) else range(len(content))))
    change = draw(st.sampled_from(["inside", "inside", "inside", "inside", "remove", "again", "other"]))
    if change == "inside":
        changed[key] = draw(_once(content[key], odd))
    elif change == "remove":
        del changed[key]
    elif change == "again":  # the same once more, or beside another key
        if isinstance(changed, list):
            changed.append(copy.deepcopy(content[key]))
        else:
            changed[draw(st.sampled_from(list(content)))] = copy.deepcopy(content[key])
    elif isinstance(changed, list):
        changed.insert(key, draw(odd))
    else:
        changed[draw(st.text(max_size=6))] = changed.pop(key)
    return changed


@st.composite
def damaged(draw, whole: bytes):
    """The bytes of a file, cut off, with some of them changed, or something else altogether."""
    kind = draw(st.sampled_from(["cut", "changed", "changed", "inserted", "other"]))
    if kind == "other":
        return draw(st.binary(max_size=40))
    place = draw(st.integers(0, max(len(whole) - 1, 0)))
    if kind == "cut":
        return whole[:place]
    new = draw(st.binary(min_size=1, max_size=4))
    return whole[:place] + new + whole[place + (len(new) if kind == "changed" else 0) :]


def examples(number: int):
    """Settings for `number` examples, a quarter of them outside `make test-all`: the same at every call, no time limit.

    The first failure is shown as it was found: making it smaller would take minutes.
    """
    return settings(
        max_examples=number if "ALL_EXAMPLES" in os.environ else number // 4,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


def outcome(*arguments: object) -> tuple[int, str]:
    """The exit status of a command and its last line on standard error; fails if the user would see a traceback.

    A call in this process: an exception that `main` lets through is what a user gets as a traceback.
    """
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr(cli, "app", COMMAND)
        patch.setattr(sys, "argv", ["harness", *map(str, arguments)])
        with contextlib.redirect_stderr(said):
            status = cli.main()
    text = said.getvalue()
    assert "Traceback" not in text, text
    assert status in (0, 1, 2), (status, text)
    last = text.splitlines()[-1] if text else ""
    if status:
        assert last.startswith("error: "), text
        assert len(last) > len("error: "), "an error without a word"
    return status, last
