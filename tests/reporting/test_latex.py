"""LaTeX tables: what is printed is what is meant, no wider and no taller than a page, and it compiles."""

import re
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.experiment.schema import Experiment
from harness.reporting import latex as module
from harness.reporting.latex import escape_latex, latex
from harness.reporting.markup import Entry, Grid
from harness.reporting.tables import write_tables

texts = st.text(st.characters(codec="utf-8"), max_size=60)
COMPILER = next((each for each in ("pdflatex", "lualatex", "xelatex", "tectonic") if shutil.which(each)), None)
NASTY = "a_b & 50% of <script>alert(1)</script> | $x^2$ ~ {#1} \\ *y* `z` [q](r)"


@given(texts)
def test_latex_finds_no_bare_special_character(text):
    commands = ["\\textbackslash{}", "\\textasciitilde{}", "\\textasciicircum{}", "\\textless{}", "\\textgreater{}"]
    commands += ["\\textbar{}", "\\ensuremath{\\pm}", *("\\" + character for character in "&%$#_{}")]
    rest = escape_latex(text)
    kept = ""
    while rest:
        command = next((each for each in commands if rest.startswith(each)), "")
        if not command:
            assert rest[0] not in "\\&%$#_{}~^<>|"
            kept += rest[0]
        rest = rest[len(command) or 1 :]
    assert kept == "".join(character for character in " ".join(text.split()) if character not in "\\&%$#_{}~^<>|±")


def test_latex_escapes_by_name():
    assert escape_latex("a_b & 5% <s> \\") == r"a\_b \& 5\% \textless{}s\textgreater{} \textbackslash{}"


def wide_grid(rows=3, notes=("a note",), seeds="61.00 to 62.00, n 3"):
    """A table of eight columns with names that need escaping, more than fits across a column of text."""
    entry = Entry("61.50", seeds, "-0.50 [-1.00, +0.00]", strong=True)
    columns = [("", ""), ("", "what it is"), *((f"protocol {place // 3}", "of the whole image") for place in range(6))]
    cells = [[Entry(f"{NASTY} {row}"), Entry("a text of several words"), *[entry] * 6] for row in range(rows)]
    return Grid("wide", NASTY, columns, cells, list(notes), stubs=2)


def body_rows(text):
    return [line for line in text.splitlines() if line.endswith(r" \\") and "multicolumn" not in line]


def test_every_line_of_a_wide_table_has_as_many_cells_as_columns():
    text = latex([wide_grid()])
    for row in body_rows(text):
        assert row.replace(r"\&", "").count("&") == 7
    for what in ("table*", "tabular", "minipage"):
        assert text.count(rf"\begin{{{what}}}") == text.count(rf"\end{{{what}}}") == 1


def test_wide_tables_break_headings_and_small_print_and_keep_every_word():
    rows = body_rows(latex([wide_grid(rows=1)]))
    assert rows[0].count(r"\shortstack{of the\\whole\\image}") == 6
    columns = [
        [cell.strip() for cell in column] for column in zip(*(row[:-3].split(" & ") for row in rows[1:]), strict=True)
    ]
    assert columns[-6] == [
        "61.50",
        r"\scriptsize 61.00 to 62.00",
        r"\scriptsize n 3",
        r"\scriptsize \textbf{$-$0.50}",
        r"\scriptsize \textbf{[$-$1.00, +0.00]}",
    ]


def test_a_narrow_table_keeps_its_cells_in_one_line_each():
    entry = Entry("61.50", "61.00 to 62.00, n 3", "-0.50 [-1.00, +0.00]")
    text = latex([Grid("n", "t", [("", ""), ("", "whole")], [[Entry("an arm"), entry]], [])])
    assert body_rows(text)[1:] == [
        r"an arm & 61.50 \\",
        r" & \scriptsize 61.00 to 62.00, n 3 \\",
        r" & \scriptsize $-$0.50 [$-$1.00, +0.00] \\",
    ]


def test_an_interval_that_is_a_text_is_not_broken():
    grid = wide_grid(rows=1)
    grid.rows[0][1] = Entry("+0.00 [-0.05, +0.05] in points")
    assert "[$-$0.05, +0.05]" in latex([grid])


def test_what_begins_with_a_bracket_is_no_argument_of_the_line_before():
    text = latex([Grid("n", "t", [("", "")], [[Entry("[a]")], [Entry("*")]], [])])
    assert [row for row in body_rows(text) if row.strip() != r"\\"] == [r"{}[a] \\", r"{}* \\"]


@given(st.lists(st.floats(0.5, 12), min_size=1, max_size=60), st.floats(0, 30))
def test_parts_hold_every_row_once_in_order_and_fit_a_page(costs, notes):
    parts = module._parts(costs, notes)
    assert [row for part in parts for row in part] == list(range(len(costs)))
    assert all(parts)
    for number, part in enumerate(parts):
        used = sum(costs[row] for row in part) + (notes if number == len(parts) - 1 else 0)
        assert used <= module.LINES + 1e-9 or len(part) == 1


def test_a_tall_table_goes_on_with_its_notes_under_the_last_part():
    text = latex([wide_grid(rows=30, notes=["the note"])])
    parts = text.split(r"\begin{table*}")[1:]
    assert len(parts) > 2
    assert [r"(continued)}" in part for part in parts] == [False] + [True] * (len(parts) - 1)
    assert ["the note" in part for part in parts] == [False] * (len(parts) - 1) + [True]
    assert text.count(r"\label{tab:wide}") == 1


@pytest.fixture(scope="module")
def reports(request, tmp_path_factory):
    """The tables of the committed reference and those of the papers with nothing measured."""
    folder, root = tmp_path_factory.mktemp("latex"), request.config.rootpath
    shutil.copytree(root / "results/reference/epyc/runs", folder / "runs")
    write_tables(Experiment.load(root / "config/camvid-small.yaml"), folder)
    write_tables(Experiment.load(root / "config/paper.yaml", ["seeds=[0]"]), folder)
    return folder / "reports"


def compiled(body, folder, layout, packages):
    document = rf"\documentclass[{layout}]{{article}}{packages}\begin{{document}}{body}\end{{document}}"
    (folder / "all.tex").write_text(document)
    options = [] if COMPILER == "tectonic" else ["-interaction=nonstopmode", "-halt-on-error"]
    result = subprocess.run([COMPILER, *options, "all.tex"], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout[-2000:]
    assert (folder / "all.pdf").is_file()
    return result.stdout + result.stderr


@pytest.mark.skipif(COMPILER is None, reason="needs pdflatex, lualatex, xelatex or tectonic, with booktabs")
@pytest.mark.parametrize("layout", ["onecolumn", "twocolumn"])
@pytest.mark.parametrize("what", ["camvid-small", "paper", "made up"])
def test_every_table_compiles_and_fits_the_page(reports, tmp_path, what, layout):
    if what == "made up":
        grids = [wide_grid(rows=rows, notes=[NASTY] * rows) for rows in (1, 5, 30)]
        (tmp_path / "made.tex").write_text(latex(grids))
        paths = [tmp_path / "made.tex"]
    else:
        paths = sorted((reports / what / "tables").glob("*.tex"))
    assert paths
    needed = {re.match("% needs (.*)", path.read_text())[1] for path in paths}
    body = "\n".join(rf"\input{{{path}}}\clearpage" for path in paths)
    said = compiled(body, tmp_path, layout, "".join(needed))
    assert "Float too large" not in said
    assert not re.findall(r"Overfull \\hbox.*", said)
