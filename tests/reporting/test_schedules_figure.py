"""The gain over the number of iterations: each length is a comparison of its own."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from readable import assert_readable

from harness.experiment.schema import Experiment
from harness.reporting.figures import figure_names
from harness.reporting.figures.schedules import schedules_figure
from harness.reporting.figures.style import STYLE
from harness.reporting.lengths import Length, lengths
from harness.reporting.lengths_table import write_lengths
from harness.reporting.measured import measure

ARMS = {
    "contextrast": {},
    "longer": {"method": "contextrast", "longer": 4},  # no baseline is as long
    "contextrast_100": {"method": "contextrast", "longer": 2},
    "plain": {"method": "cross_entropy"},
    "plain_100": {"method": "cross_entropy", "longer": 2},
    "other": {"method": "contextrast", "negatives": "random"},
}
PAIR = ("scenes", "lite0_fpn")


def test_arms_of_a_length_are_compared_with_the_baseline_s_method_of_that_length(make_experiment):
    experiment = make_experiment(arms=ARMS)
    assert lengths(experiment, *PAIR) == [
        Length(50, "plain", {"contextrast": "contextrast", "other": "other"}),
        Length(100, "plain_100", {"contextrast": "contextrast_100"}),
    ]
    assert "schedules_scenes_lite0_fpn" in figure_names(experiment)


@pytest.mark.parametrize(
    "arms",
    [
        {"plain": {"method": "cross_entropy"}, "contextrast": {}},
        {name: ARMS[name] for name in ("plain", "plain_100", "contextrast")},  # a control that trains longer
        {"plain": {"method": "cross_entropy"}, "as_long": {"method": "cross_entropy", "compute_of": "contextrast"}}
        | {"contextrast": {}},  # whose ratio was not measured yet
    ],
)
def test_one_length_is_no_question(make_experiment, arms):
    experiment = make_experiment(arms=arms)
    assert lengths(experiment, *PAIR) == []
    assert not any("schedules" in name for name in figure_names(experiment))


@pytest.mark.slow
def test_scores_and_gains_are_drawn_at_their_lengths(make_experiment, write_all, tmp_path):
    experiment = make_experiment(arms=ARMS)
    write_all(experiment, tmp_path)
    (each,) = measure(experiment, tmp_path)
    values = {cell.arm: cell.values for cell in each.region if cell.protocol == "whole"}
    of_length = {length.iterations: {cell.arm: cell for cell in found} for length, found in each.schedules}
    assert {iterations: set(found) for iterations, found in of_length.items()} == {
        50: {"plain", "contextrast", "other"},
        100: {"plain_100", "contextrast_100"},
    }
    pairs = {50: ("contextrast", "plain"), 100: ("contextrast_100", "plain_100")}
    expected = [np.mean(list(values[a].values())) - np.mean(list(values[b].values())) for a, b in pairs.values()]
    for (iterations, (arm, _)), difference in zip(pairs.items(), expected, strict=True):
        gain = of_length[iterations][arm].gain
        assert gain.difference == pytest.approx(difference, abs=1e-9) and gain.low < difference < gain.high
    write_lengths(experiment, tmp_path, [each])
    table = pd.read_csv(tmp_path / "lengths.csv")
    assert [*zip(table["iterations"], table["arm"], strict=True)] == [
        *((50, arm) for arm in ("plain", "contextrast", "other")),
        *((100, arm) for arm in ("plain_100", "contextrast_100")),
    ]
    rows = table.set_index("arm")
    np.testing.assert_allclose(rows.loc[[arm for arm, _ in pairs.values()], "gain"], expected)
    shown = [line.split(" | ") for line in (tmp_path / "lengths.md").read_text().splitlines() if line.startswith("| ")]
    assert [(row[0].strip("| "), row[1]) for row in shown[2:]] == [
        *(("50", "plain (baseline)"), ("", "Contextrast"), ("", "other")),
        *(("100", "plain (baseline)"), ("", "Contextrast")),
    ]
    with mpl.rc_context(STYLE):
        figure = schedules_figure(experiment, each.title, each.schedules)
        assert_readable(figure)
    scores, gains = figure.axes
    assert [label.get_text() for label in gains.get_xticklabels()] == ["50", "100"]
    means = [line for line in scores.lines if line.get_linestyle() == "-" and len(line.get_xdata()) == 2]
    drawn = {tuple(np.round(line.get_ydata(), 6)) for line in means}
    assert tuple(np.round([np.mean(list(values[arm].values())) for arm in ("plain", "plain_100")], 6)) in drawn
    (line,) = [line for line in gains.lines if line.get_zorder() == 0 and len(line.get_xdata()) == 2]
    np.testing.assert_allclose(line.get_ydata(), expected)


def test_without_any_run_there_is_a_figure_all_the_same(make_experiment, tmp_path):
    experiment = make_experiment(arms=ARMS)
    (each,) = measure(experiment, tmp_path)
    write_lengths(make_experiment(), tmp_path, measure(make_experiment(), tmp_path))  # of one length
    assert not list(tmp_path.glob("lengths.*"))
    with mpl.rc_context(STYLE):
        assert_readable(schedules_figure(experiment, each.title, each.schedules))


def test_the_committed_experiment_asks_at_four_lengths_and_shares_runs_with_the_main_one(repository):
    experiment = Experiment.load(repository / "config" / "camvid-convergence.yaml")
    found = lengths(experiment, "camvid", "lite0_fpn")
    assert [length.iterations for length in found] == [1500, 3000, 6000, 12000]
    assert [list(length.rivals) for length in found] == [["contextrast"]] * 4
    main = Experiment.load(repository / "config" / "camvid.yaml")
    for arm in ("cross_entropy", "contextrast"):
        for seed in experiment.seeds:
            runs = [each.run("camvid", "lite0_fpn", arm, seed) for each in (experiment, main)]
            assert experiment.settings(runs[0]) == main.settings(runs[1])
