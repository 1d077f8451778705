from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from harness.comparison import Cell
from harness.evaluation.groups import Missing
from harness.reporting.entries import (
    arm_entry,
    cell_entry,
    gain_text,
    interval_text,
    level_text,
    row_entries,
    runs_text,
)
from harness.reporting.latex import latex
from harness.reporting.markup import (
    Grid,
    escape_markdown,
    markdown,
    markdown_table,
    points,
)
from harness.statistics.interval import Gain

NASTY = "a_b & 50% of <script>alert(1)</script> | $x^2$ ~ {#1} \\ *y* `z` [q](r)"

CELL = Cell(
    dataset="scenes",
    model="lite0_fpn",
    protocol="whole",
    arm="rival_one",
    metric="miou",
    values={0: 60.004, 1: 61.126, 2: 62.0},
    gain=Gain(-0.501, -1.0, -0.004, p=0.01),
    missing={},
    is_baseline=False,
    images=30,
)
HOLE = replace(CELL, values={}, gain=None, missing={0: Missing("diverged", NASTY)})


def shown(text: str) -> str:
    """The text of one Markdown paragraph as a reader sees it."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    (inline,) = [token for token in tokens if token.type == "inline"]
    assert all(child.type in ("text", "text_special") for child in inline.children), text
    return "".join(child.content for child in inline.children)


# Letters, everything that is special in Markdown, HTML or LaTeX, and blanks.
texts = st.text(st.sampled_from("ab1 _*`<>&|\\[]()#~$%^{}!-+.\"'\n"), min_size=1).filter(str.strip)


@given(texts)
def test_markdown_shows_escaped_text_as_it_was(text):
    expected = " ".join(text.split())
    assert shown("x" + escape_markdown(text) + "x") == f"x{expected}x"


@given(texts)
def test_escaped_text_stays_in_its_markdown_cell(text):
    document = markdown_table("t", ["", "b"], [["x" + text, "1"]], [])
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(document)
    assert html.count("<td") == 2
    assert html.count("<tr") == 2


@pytest.mark.parametrize(
    ("value", "signed", "unsigned"),
    [(1.2349, "+1.23", "1.23"), (-0.004, "+0.00", "0.00"), (-0.006, "-0.01", "-0.01"), (0.0, "+0.00", "0.00")],
)
def test_numbers_have_two_decimals_and_no_negative_zero(value, signed, unsigned):
    assert points(value, sign=True) == signed
    assert points(value) == unsigned


def test_a_cell_gives_level_runs_gain_and_interval():
    assert level_text(CELL.spread) == "61.04 ± 1.00"  # of 60.004, 61.126 and 62
    assert level_text(replace(CELL, values={4: 61.5}).spread) == "61.50"
    assert runs_text(CELL) == "3"
    assert runs_text(replace(CELL, missing={7: Missing("not run")})) == "3 of 4"
    assert gain_text(CELL) == "-0.50 [-1.00, -0.00]"
    assert gain_text(replace(CELL, gain=Gain(-0.501))) == "-0.50"
    assert interval_text(-0.0004, 2.09) == "[-0.00, +2.09]"
    assert interval_text(0.0004, 2.09) == "[+0.00, +2.09]"
    assert gain_text(replace(CELL, gain=None)) == ""


def nasty_grid() -> Grid:
    rows = [[arm_entry(NASTY, each), cell_entry(each), cell_entry(each)] for each in (CELL, HOLE)]
    return Grid("n", NASTY, [("", ""), (NASTY, "whole"), ("other", NASTY)], rows, [NASTY, HOLE.note])


def test_nothing_in_a_name_or_a_reason_becomes_markup_in_markdown():
    text = markdown([nasty_grid()])
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    assert "<script" not in html
    assert "<em>" not in html
    assert "<a " not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert html.count("<td") == 2 * 3
    assert html.count("<th") - html.count("<thead") == 3


def test_only_a_gain_that_is_told_from_zero_is_bold_and_only_in_the_main_table():
    unsure = replace(CELL, gain=replace(CELL.gain, high=0.3))
    headings = [("", each) for each in ("", "mIoU", "runs", "gain")]
    for cell, bold, expected in ((CELL, True, 1), (unsure, True, 0), (CELL, False, 0)):
        grid = Grid("n", "t", headings, [row_entries("arm", cell, bold)], [])
        assert markdown([grid]).count("**") == 2 * expected
        assert ("**-0.50 [-1.00, -0.00]**" in markdown([grid])) == bool(expected)
        assert latex([grid]).count(r"\textbf") == expected
    assert not cell_entry(CELL).strong


def test_what_is_folded_keeps_its_table_and_says_why():
    facts = replace(nasty_grid(), notes=["a note"], more=["a fact"])
    folded = replace(facts, fold="many comparisons")
    text = markdown([facts])
    assert text.index("a note") < text.index("<details><summary>About these runs") < text.index("a fact")
    text = markdown([folded])
    assert text.startswith("<details><summary>")
    assert text.count("</details>") == text.count("<details>") == 2
    assert "(many comparisons)</summary>" in text
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown([folded]))
    assert html.count("<td") == 2 * 3
    assert "<script" not in html
    assert "a fact" in latex([folded])
