import itertools

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from harness.reporting.figures import STYLE, arm_styles, miou_figure, save, training_figure, write_figures

NINE = [f"a_rather_long_name_of_arm_{number}" for number in range(9)]


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context(STYLE):
        yield


def texts(figure: Figure) -> list:
    """The visible texts of a figure, drawn, with their boxes in pixels."""
    figure.set_dpi(60)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    shown = [text for text in figure.findobj(mpl.text.Text) if text.get_visible() and text.get_text().strip()]
    boxes = [(text.get_text(), text.get_window_extent(canvas.get_renderer())) for text in shown]
    # Ticks outside an axis's limits exist, but are not drawn.
    outside = {
        id(label.label1)
        for axis in figure.axes
        for which in (axis.xaxis, axis.yaxis)
        for label in which.get_major_ticks() + which.get_minor_ticks()
        if not min(which.get_view_interval()) <= label.get_loc() <= max(which.get_view_interval())
    }
    return [(name, box) for text, (name, box) in zip(shown, boxes, strict=True) if id(text) not in outside]


def assert_readable(figure: Figure) -> None:
    """Every text lies inside the figure, none on another."""
    drawn = texts(figure)
    width, height = figure.get_size_inches() * figure.dpi
    for name, box in drawn:
        assert box.x0 >= -1, name
        assert box.y0 >= -1, name
        assert box.x1 <= width + 1, name
        assert box.y1 <= height + 1, name
    for (name, box), (other, other_box) in itertools.combinations(drawn, 2):
        overlap_x = min(box.x1, other_box.x1) - max(box.x0, other_box.x0)
        overlap_y = min(box.y1, other_box.y1) - max(box.y0, other_box.y0)
        assert min(overlap_x, overlap_y) <= 2, (name, other)


def test_figures_of_three_arms_and_one_seed_are_readable(make_experiment, write_all, tmp_path):
    experiment = make_experiment(seeds=[0])
    write_all(experiment, tmp_path)
    figure = miou_figure(experiment, tmp_path)
    assert_readable(figure)
    assert "One seed: the noise of the test images alone" in figure.get_supxlabel()
    assert_readable(training_figure(experiment, tmp_path))


@pytest.mark.slow
def test_figures_of_nine_arms_and_three_seeds_are_readable(make_experiment, write_all, write_run, tmp_path):
    arms = {name: {"method": "cross_entropy"} for name in NINE}
    grid = {"datasets": ["scenes", "camvid"], "models": ["lite0_fpn", "hrnet_w48"], "seeds": [0, 1, 2]}
    experiment = make_experiment(arms=arms, baseline=NINE[0], protocols=["whole"], **grid)
    write_all(experiment, tmp_path, step=1.0)
    for seed in range(3):
        write_run(experiment, tmp_path, NINE[4], seed, status="diverged", reason="at iteration 30")
    assert_readable(miou_figure(experiment, tmp_path))
    assert_readable(training_figure(experiment, tmp_path))


def test_the_miou_figure_shows_every_seed_its_mean_and_the_interval(make_experiment, write_all, tmp_path):
    from harness.reporting.records import cells, groups

    experiment = make_experiment()
    write_all(experiment, tmp_path)
    (group,) = groups(experiment, tmp_path, ["region"], ["whole"])
    expected = [cell for cell in cells(experiment, group) if cell.protocol == "whole"]
    left, right = miou_figure(experiment, tmp_path).axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["plain", "rival one", "cross entropy"]
    assert left.get_ylim()[0] > left.get_ylim()[1]  # the first row on top
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in left.lines]
    for row, cell in enumerate(expected):
        assert (list(cell.values.values()), [row, row]) in drawn
        assert ([cell.spread.mean] * 2, [row - 0.36, row + 0.36]) in drawn
    drawn = [(list(np.atleast_1d(line.get_xdata())), list(np.atleast_1d(line.get_ydata()))) for line in right.lines]
    for row, cell in enumerate(expected[1:], start=1):
        assert ([cell.interval.difference], [row]) in drawn
        assert any(ends[1] == [row, row] and ends[0][0] < cell.interval.difference < ends[0][1] for ends in drawn)


def test_a_hole_says_why_in_the_miou_figure(make_experiment, write_run, tmp_path):
    experiment = make_experiment(seeds=[0])
    write_run(experiment, tmp_path, "plain", 0)
    write_run(experiment, tmp_path, "rival_one", 0, status="out_of_memory", reason="no")
    left, _ = miou_figure(experiment, tmp_path).axes
    assert [text.get_text() for text in left.texts] == ["out_of_memory", "not run"]


def test_an_interval_far_wider_than_the_others_is_cut_with_arrows(make_experiment, write_all, tmp_path, monkeypatch):
    from harness.reporting import records
    from harness.statistics.comparison import Interval

    arms = {name: {"method": "cross_entropy"} for name in NINE[:4]}
    experiment = make_experiment(arms=arms, baseline=NINE[0], seeds=[0], protocols=["whole"])
    write_all(experiment, tmp_path)
    intervals = {
        arm: Interval(1.0, 1.0 - half, 1.0 + half, 3, "image", "", 0.5, 0.95)
        for arm, half in zip(NINE[1:4], (0.5, 0.6, 80.0), strict=True)
    }
    monkeypatch.setattr(records, "compare", lambda *arguments: intervals)
    _, right = miou_figure(experiment, tmp_path).axes
    assert right.get_xlim()[1] - right.get_xlim()[0] < 10
    assert [line.get_marker() for line in right.lines if line.get_marker() in ("<", ">")] == ["<", ">"]


def test_the_training_figure_has_a_panel_for_every_logged_quantity(make_experiment, write_all, tmp_path):
    experiment = make_experiment()
    write_all(experiment, tmp_path)
    figure = training_figure(experiment, tmp_path)
    assert [axis.get_title() for axis in figure.axes] == [
        "loss",
        "cross entropy",
        "gradient norm",
        "pixel anchor",
        "kept share",
        "pixel anchor, layer1",
    ]
    loss = figure.axes[0].lines
    assert len(loss) == 3  # a mean an arm
    import pandas as pd

    curves = [
        pd.read_csv(experiment.run("scenes", "lite0_fpn", "plain", seed).folder(tmp_path) / "curve.csv")
        for seed in (0, 1)
    ]
    np.testing.assert_allclose(loss[0].get_ydata(), (curves[0]["loss"] + curves[1]["loss"]) / 2, rtol=1e-12)
    np.testing.assert_array_equal(loss[0].get_xdata(), curves[0]["iteration"])
    assert len(figure.axes[3].lines) == 1  # only the rival has that term


def test_a_run_away_loss_is_drawn_on_a_logarithmic_scale_with_its_end_marked(make_experiment, write_run, tmp_path):
    experiment = make_experiment(seeds=[0])
    write_run(experiment, tmp_path, "plain", 0)
    write_run(experiment, tmp_path, "rival_one", 0, status="diverged", reason="at iteration 30")
    path = experiment.run("scenes", "lite0_fpn", "rival_one", 0).folder(tmp_path) / "curve.csv"
    lines = path.read_text().splitlines()
    last = lines[-1].split(",")
    last[2] = "1e9"
    path.write_text("\n".join([*lines[:-1], ",".join(last)]) + "\n")
    loss, cross_entropy = training_figure(experiment, tmp_path).axes[:2]
    assert (loss.get_yscale(), cross_entropy.get_yscale()) == ("log", "linear")
    (end,) = [line for line in loss.lines if line.get_marker() == "x"]
    assert (end.get_xdata()[0], end.get_ydata()[0]) == (30, 1e9)


def test_without_records_there_are_figures_that_say_so(make_experiment, tmp_path):
    experiment = make_experiment()
    write_figures(experiment, tmp_path)
    folder = tmp_path / "reports" / "little" / "figures"
    assert {path.name for path in folder.iterdir()} == {"miou.png", "miou.pdf", "training.png", "training.pdf"}
    assert [text.get_text() for text in training_figure(experiment, tmp_path).texts] == [
        "no run has a training curve yet"
    ]


def test_colours_and_markers_tell_nine_arms_apart(make_experiment):
    experiment = make_experiment(arms={name: {"method": "cross_entropy"} for name in NINE}, baseline=NINE[0])
    styles = arm_styles(experiment)
    assert len({color for color, _ in styles.values()}) == 9
    assert len({marker for _, marker in styles.values()}) == 9


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        figure = Figure((1, 1))
        figure.add_subplot().plot([0, 1])
        save(figure, tmp_path / name)
    for suffix in (".png", ".pdf"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()
