import re

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from readable import assert_readable

from harness.reporting.figures.curves import Curve, read_curves
from harness.reporting.figures.negatives import BINS, negatives_figure
from harness.reporting.figures.style import STYLE

TITLE = "Scenes, EfficientNet-Lite0"


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context(STYLE):
        yield


@pytest.fixture
def experiment(make_experiment):
    return make_experiment(arms={"plain": {"method": "cross_entropy"}, "contextrast": {}, "contextrast_pp": {}})


def curve(arm, seed=0, rows=5, bins=6):
    """A run whose logged values are known functions of its rows."""
    index = pd.Index(range(10, 10 * rows + 1, 10), name="iteration")
    table = pd.DataFrame({"kept_share": 0.5, "misclassified_share": np.linspace(0.9, 0.1, rows)}, index=index)
    table["positive_similarity"], table["negative_similarity"] = 0.8, 0.1 * (1 + seed)
    row, place = np.mgrid[:rows, :bins].astype(float)
    vectors = {
        "negatives": np.stack([np.arange(rows), 3.0 * np.arange(rows)], axis=1),
        "distance_bins/misclassified": 10.0 * (bins - place),
        "distance_bins/kept": (seed + 1.0) * (bins - place),
        "distance_bins/kept_similarity": np.where(place < 4, 0.1 * row + 0.01 * place + seed, np.nan),
        "distance_bins/left_similarity": 0.2 + 0 * row,
    }
    return Curve(arm, table, False, vectors)


def drawn(axis):
    return [np.asarray(line.get_ydata(), float) for line in axis.lines]


def test_what_is_logged_over_the_iterations_and_by_distance_is_drawn(experiment):
    figure = negatives_figure(experiment, TITLE, [curve("contextrast", 0), curve("contextrast", 1)])
    assert_readable(figure)
    misclassified, kept, number, similarity, *moments = figure.axes
    np.testing.assert_allclose(drawn(misclassified), [np.linspace(0.9, 0.1, 5)])
    np.testing.assert_allclose(drawn(kept), [[0.5] * 5])
    np.testing.assert_allclose(drawn(number), [2 * np.arange(5)])  # of the two classes' n and 3 n
    np.testing.assert_allclose(drawn(similarity), [[0.8] * 5, [0.15] * 5])
    assert len(moments) == 6
    assert [axis.get_title() for axis in moments[::2]] == [
        "at the start (iteration 10)",
        "in the middle (iteration 30)",
        "at the end (iteration 50)",
    ]
    for axis, row in zip(moments[::2], (0, 2, 4), strict=True):
        kept_there, left = drawn(axis)
        np.testing.assert_allclose(kept_there[:4], 0.1 * row + 0.01 * np.arange(4) + 0.5)
        assert np.isnan(kept_there[4:]).all()
        np.testing.assert_allclose(left, 0.2)
        assert [label.get_text() for label in axis.get_xticklabels()] == list(BINS)
    for axis in moments[1::2]:
        shares, kept_shares = drawn(axis)
        np.testing.assert_allclose(shares, np.arange(6, 0, -1) / 21)
        np.testing.assert_allclose(kept_shares, 3 / 20)  # 1 and 2 in 10


@pytest.mark.slow
def test_shares_of_every_layer_are_those_of_the_last_row(experiment):
    curves = [curve("contextrast", 0), curve("contextrast", 1), curve("contextrast_pp")]
    rows = np.linspace(0, 1, 5)[:, None]
    for number, each in enumerate(curves):
        each.vectors["by_layer/kept"] = rows * [0.5, 0.6, 0.7, 0.1 * number]
        each.vectors["by_layer/next_to_edge"] = rows * [0.9, 0.92, 0.94, 1.0]
    figure = negatives_figure(experiment, TITLE, curves)
    assert_readable(figure)
    kept, edge = figure.axes[-2:]
    np.testing.assert_allclose(drawn(kept), [[0.5, 0.6, 0.7, 0.05], [0.5, 0.6, 0.7, 0.2]])
    np.testing.assert_allclose(drawn(edge), [[0.9, 0.92, 0.94, 1.0]] * 2)
    assert [label.get_text() for label in kept.get_xticklabels()] == list("1234")
    assert len(figure.axes) == 4 + 6 + 2


def test_the_bins_are_those_that_methods_log(repository):
    source = (repository / "methods" / "negative_diagnostics.py").read_text()  # to import it would take torch
    (found,) = re.findall(r"^DISTANCES = \((.*)\)$", source, re.MULTILINE)
    assert [*found.split(", "), "more"] == list(BINS)


def test_an_empty_bin_and_a_run_without_any_error_are_no_trouble(experiment):
    empty = curve("contextrast")
    for name in ("misclassified", "kept"):
        empty.vectors[f"distance_bins/{name}"][:] = 0
    figure = negatives_figure(experiment, TITLE, [empty])
    assert all(np.isnan(values).all() for values in drawn(figure.axes[5]))


@pytest.mark.parametrize("bins", [None, 5])
def test_runs_from_before_bins_were_logged_show_what_they_have(experiment, bins):
    old = curve("contextrast", bins=bins or 6)
    if bins is None:
        old = Curve(old.arm, old.table, False, {"negatives": old.vectors["negatives"]})
    figure = negatives_figure(experiment, TITLE, [old])
    assert len(figure.axes) == 4
    assert "before the distance from the edge was logged" in " ".join(figure.get_supxlabel().split())
    assert_readable(figure)


def test_arms_that_sample_otherwise_are_left_out(experiment, make_experiment, write_all, tmp_path):
    other = curve("plain")
    other = Curve("plain", other.table.drop(columns="kept_share"), False)
    (text,) = negatives_figure(experiment, TITLE, [other]).texts
    assert "no arm samples negatives that way" in " ".join(text.get_text().split())
    experiment = make_experiment()
    write_all(experiment, tmp_path)
    figure = negatives_figure(experiment, TITLE, read_curves(experiment, tmp_path)[TITLE])
    assert [len(axis.lines) for axis in figure.axes] == [0, 1, 0, 0]  # the rival logs the kept share alone
    assert figure.axes[1].get_ylim() == (0, 1)


def test_ten_arms_are_readable(make_experiment):
    names = [f"a_rather_long_name_of_arm_{number}" for number in range(10)]
    experiment = make_experiment(arms={name: {"method": "contextrast"} for name in names}, baseline=names[0])
    assert_readable(negatives_figure(experiment, TITLE, [curve(name) for name in names]))


def test_vectors_are_read_beside_the_curve_and_a_damaged_file_is_passed_over(make_experiment, write_all, tmp_path):
    experiment = make_experiment(seeds=[0])
    write_all(experiment, tmp_path)
    folder = experiment.run("scenes", "lite0_fpn", "rival_one", 0).folder(tmp_path)
    path = folder / "diagnostics.npz"
    np.savez(path, iteration=np.arange(10), negatives=np.ones((10, 3)), other=np.ones((9, 3)))

    def vectors():
        curves = read_curves(experiment, tmp_path)[TITLE]
        return next(each for each in curves if each.arm == "rival_one").vectors

    assert set(vectors()) == {"negatives"}
    path.write_bytes(path.read_bytes()[:50])
    assert vectors() == {}
