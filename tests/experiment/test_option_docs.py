from harness.experiment import discovery
from harness.experiment.option_docs import documented

METHOD = """
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Gt

from methods.method import Method


class Mine(Method):
    title, idea = "Mine", "An idea."

    @dataclass(frozen=True, kw_only=True)
    class Options(Method.Options):
        # above the field,
        # on two lines
        kind: Literal["a", "b"] = (
            "a"  # and beside it
        )
        scale: Annotated[float, Gt(0)] | None = None
        text: str = "# no comment"
"""


def test_options_are_documented_by_their_annotations_and_comments(tmp_path, monkeypatch):
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "mine.py").write_text(METHOD)
    monkeypatch.chdir(tmp_path)
    assert documented("mine") == {
        "kind": ("one of a, b", "a", "above the field, on two lines and beside it"),
        "scale": ("a number above 0, or null", None, ""),
        "text": ("text", "# no comment", ""),
    }


def test_inherited_options_keep_their_comments():
    own, parent = documented("contextrast_pp"), documented("contextrast")
    assert own["keep"] == parent["keep"] and own["keep"].meaning
    assert set(own) - set(parent) == {"fusion", "memory_size", "stored"}


def test_every_option_of_every_method_says_what_it_means():
    missing = [
        f"{name}.{option}" for name in discovery.names() for option, doc in documented(name).items() if not doc.meaning
    ]
    assert not missing
