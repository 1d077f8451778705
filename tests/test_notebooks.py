"""The notebooks in examples/ run from top to bottom, and show what they say."""

import ast
import json

import pytest

NOTEBOOKS = ("gains_figure", "losses_in_your_loop")


def run(path):
    """Execute the code cells in order, as a kernel does; returns the names they leave and each cell's last value."""
    names, shown = {"__name__": "__main__"}, []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        assert not cell.get("outputs"), "commit notebooks without outputs"
        if cell["cell_type"] == "code":
            tree = ast.parse("".join(cell["source"]))
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, path.name, "exec"), names)
            if last is not None:
                shown.append(eval(compile(ast.Expression(last.value), path.name, "eval"), names))
    return names, shown


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.chdir(tmp_path)


def test_every_notebook_is_run(repository):
    assert {path.stem for path in (repository / "examples").glob("*.ipynb")} == set(NOTEBOOKS)


@pytest.mark.slow
def test_the_gains_figure_is_drawn_from_the_committed_records(repository, tmp_path):
    names, shown = run(repository / "examples" / "gains_figure.ipynb")
    assert (tmp_path / "gains.pdf").stat().st_size > 1000
    gains, _, over_heads, boundary = shown[0], shown[1], shown[-2], shown[-1]
    committed = repository / "results/reference/h200/reports/camvid-controls/tables/miou.csv"
    table = names["harness"].compare(names["EXPERIMENT"], names["RESULTS"])
    assert gains.equals(table[list(gains)])
    assert f"{table.gain.max():.6g}"[:4] in committed.read_text()
    assert over_heads.gain.isna().sum() == 1 and not boundary.gain.equals(gains.gain)


@pytest.mark.slow
def test_a_loss_trains_in_a_plain_loop(repository):
    names, shown = run(repository / "examples" / "losses_in_your_loop.ipynb")
    first, last = names["history"][0], names["history"][-1]
    assert last["cross_entropy"] < 0.7 * first["cross_entropy"]
    assert last["pixel_anchor"] < first["pixel_anchor"]
    assert set(shown[-1]) == {"miou", "boundary_miou@3px", "pixel_accuracy"}
    assert shown[-1]["miou"] > 100 / 11 / 2
