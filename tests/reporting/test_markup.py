from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from harness.reporting import markup
from harness.reporting.entries import arm_entry, cell_entry, difference_text, range_text
from harness.reporting.latex import latex
from harness.reporting.markup import (
    Grid,
    escape_markdown,
    markdown,
    markdown_table,
    points,
)
from harness.reporting.records import Cell, Missing
from harness.statistics.comparison import Interval

NASTY = "a_b & 50% of <script>alert(1)</script> | $x^2$ ~ {#1} \\ *y* `z` [q](r)"

CELL = Cell(
    dataset="scenes",
    model="lite0_fpn",
    protocol="whole",
    arm="rival_one",
    metric="miou",
    values={0: 60.004, 1: 61.126, 2: 62.0},
    interval=Interval(-0.501, -1.0, -0.004, 3, "image", "", 0.01, 0.95),
    missing={},
    is_baseline=False,
    images=30,
)
HOLE = replace(CELL, values={}, interval=None, missing={0: Missing("diverged", NASTY)})


def shown(text: str) -> str:
    """The text of one Markdown paragraph as a reader sees it."""
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    (inline,) = [token for token in tokens if token.type == "inline"]
    assert all(child.type in ("text", "text_special") for child in inline.children), text
    return "".join(child.content for child in inline.children)


# Letters, everything that is special in Markdown, HTML or LaTeX, and blanks.
texts = st.text(st.sampled_from("ab1 _*`<>&|\\[]()#~$%^{}!-+.\"'\n"), min_size=1).filter(str.strip)


@settings(deadline=None)  # of a busy machine
@given(texts)
def test_markdown_shows_escaped_text_as_it_was(text):
    expected = " ".join(text.split())
    assert shown("x" + escape_markdown(text) + "x") == f"x{expected}x"


@settings(deadline=None)  # of a busy machine
@given(texts)
def test_escaped_text_stays_in_its_markdown_cell(text):
    document = markdown_table("t", ["", "b"], [[escape_markdown("x" + text), "1"]], [])
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


def test_a_cell_gives_range_seeds_difference_and_interval():
    assert range_text(CELL.spread) == "60.00 to 62.00, n 3"
    assert range_text(replace(CELL, values={4: 61.5}).spread) == "n 1"
    assert difference_text(CELL) == "-0.50 [-1.00, +0.00]"
    assert difference_text(replace(CELL, interval=replace(CELL.interval, low=None, high=None))) == "-0.50, no interval"
    assert difference_text(replace(CELL, interval=None)) == "no pair"
    assert difference_text(replace(CELL, interval=None, is_baseline=True)) == ""


def nasty_grid() -> Grid:
    cell = replace(CELL, arm=NASTY)
    rows = [[arm_entry(each), cell_entry(each), cell_entry(each)] for each in (cell, HOLE)]
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


def test_only_a_verdict_is_bold():
    sure = CELL
    unsure = replace(CELL, interval=replace(CELL.interval, high=0.3))
    row = [arm_entry(sure), cell_entry(sure), cell_entry(unsure)]
    grid = Grid("n", "t", [("", ""), ("a", "whole"), ("a", "ms_flip")], [row], [])
    assert markdown([grid]).count("**") == 2
    assert "**-0.50 [-1.00, +0.00]**" in markdown([grid])
    assert latex([grid]).count(r"\textbf") == 1
    assert r"\textbf{$-$0.50 [$-$1.00, +0.00]}" in latex([grid])


def test_html_shows_names_and_reasons_as_text_alone():
    parser = Cells(markup.html([nasty_grid()]))
    expected = " ".join(NASTY.split())
    assert not {"script", "em", "a", "q"} & set(parser.tags)
    assert expected in parser.texts  # the caption, headings, notes
    first, *cells = parser.cells[:3]
    assert first["data-value"].startswith(expected.replace("_", " "))
    assert [float(each["data-value"]) for each in cells] == [CELL.spread.mean] * 2  # every digit, to sort by
    hole = parser.cells[4]
    assert hole["class"] == "hole"
    assert expected in hole["title"]
    assert len(parser.cells) == 6


class Cells(HTMLParser):
    """Every tag, every text, and the attributes of the cells of the body."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self.cells, self.body = [], [], [], False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.body = self.body or tag == "tbody"
        if self.body and tag in ("td", "th"):
            self.cells.append(dict(attributes))

    def handle_data(self, data):
        self.texts.append(data)


@settings(deadline=None)  # of a busy machine
@given(texts)
def test_text_is_the_same_after_html(text):
    grid = Grid("n", text, [("", "a heading")], [[markup.Entry(text, note=text)]], [text])
    parser = Cells(markup.html([grid]))
    expected = " ".join(text.split())
    assert parser.texts.count(expected) == 3
    assert parser.cells == [{"scope": "row", "data-value": expected, "title": expected}]
