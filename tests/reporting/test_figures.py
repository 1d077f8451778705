import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from readable import assert_readable

from harness.comparison import Cell, by_gain, cells
from harness.evaluation.groups import Missing, groups
from harness.reporting import figures
from harness.reporting.figures import figure_names, write_figures
from harness.reporting.figures.classes import classes_figure, frequency_figure
from harness.reporting.figures.confusion import confusion_figure
from harness.reporting.figures.curves import read_curves
from harness.reporting.figures.edges import boundary_figure
from harness.reporting.figures.gains import gains_figure, miou_figure, settings_figure
from harness.reporting.figures.latency import latency_figure, read_latency
from harness.reporting.figures.style import STYLE, only_text, save
from harness.reporting.figures.training import diagnostics_figure, training_figure
from harness.reporting.measured import Measured, measure
from harness.reporting.names import arm_name, arm_styles
from harness.reporting.over_settings import over_settings
from harness.statistics.interval import Gain
from harness.statistics.scores import miou_of

NINE = [f"a_rather_long_name_of_arm_{number}" for number in range(9)]


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context(STYLE):
        yield


def test_figures_of_three_arms_and_one_seed_are_readable(make_experiment, write_all, tmp_path):
    experiment = make_experiment(seeds=[0])
    write_all(experiment, tmp_path)
    figure = miou_figure(experiment, measure(experiment, tmp_path))
    assert_readable(figure)
    assert "there is none (a single run)" in " ".join(figure.get_supxlabel().split())
    assert_readable(training_figure(experiment, read_curves(experiment, tmp_path)))


@pytest.mark.slow
def test_figures_of_nine_arms_and_three_seeds_are_readable(make_experiment, write_all, write_run, tmp_path):
    arms = {name: {"method": "cross_entropy"} for name in NINE}
    grid = {"datasets": ["scenes", "camvid"], "models": ["lite0_fpn", "hrnet_w48"], "seeds": [0, 1, 2]}
    experiment = make_experiment(arms=arms, baseline=NINE[0], protocols=["whole"], **grid)
    write_all(experiment, tmp_path, step=1.0)
    for seed in range(3):
        write_run(experiment, tmp_path, NINE[4], seed, status="diverged", reason="at iteration 30")
    assert_readable(miou_figure(experiment, measure(experiment, tmp_path)))
    assert_readable(training_figure(experiment, read_curves(experiment, tmp_path)))


def test_the_miou_figure_shows_every_run_its_mean_and_the_interval(make_experiment, write_all, tmp_path):
    experiment = make_experiment()
    write_all(experiment, tmp_path)
    (group,) = groups(experiment, tmp_path, ["region"], ["whole"])
    expected = by_gain(cells(experiment, group, [miou_of("region")]))
    left, right = miou_figure(experiment, measure(experiment, tmp_path)).axes
    assert [label.get_text() for label in left.get_yticklabels()] == [
        arm_name(experiment, cell.arm) for cell in expected
    ]
    assert left.get_ylim()[0] > left.get_ylim()[1]  # the first row on top
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in left.lines]
    for row, cell in enumerate(expected):
        assert (list(cell.values.values()), [row] * len(cell.values)) in drawn
        assert ([cell.spread.mean] * 2, [row - 0.36, row + 0.36]) in drawn
    drawn = [(list(np.atleast_1d(line.get_xdata())), list(np.atleast_1d(line.get_ydata()))) for line in right.lines]
    for row, cell in enumerate(expected[1:], start=1):
        assert ([cell.gain.difference], [row]) in drawn
        assert ([cell.gain.low, cell.gain.high], [row, row]) in drawn


def test_a_hole_says_why_in_the_miou_figure(make_experiment, write_run, tmp_path):
    experiment = make_experiment(seeds=[0])
    write_run(experiment, tmp_path, "plain", 0)
    write_run(experiment, tmp_path, "rival_one", 0, status="out_of_memory", reason="no")
    left, _ = miou_figure(experiment, measure(experiment, tmp_path)).axes
    assert [text.get_text() for text in left.texts] == ["out_of_memory", "not run"]


def test_the_training_figure_has_a_panel_for_every_loss(make_experiment, write_all, tmp_path):
    experiment = make_experiment()
    write_all(experiment, tmp_path)
    figure = training_figure(experiment, read_curves(experiment, tmp_path))
    assert [axis.get_title() for axis in figure.axes] == ["loss", "cross entropy", "gradient norm"]
    loss = figure.axes[0].lines
    assert len(loss) == 3  # a mean an arm
    import pandas as pd

    curves = [
        pd.read_csv(experiment.run("scenes", "lite0_fpn", "plain", seed).folder(tmp_path) / "curve.csv")
        for seed in range(4)
    ]
    mean = np.mean([curve["loss"] for curve in curves], axis=0)
    np.testing.assert_allclose(loss[0].get_ydata(), mean, rtol=1e-12)
    np.testing.assert_array_equal(loss[0].get_xdata(), curves[0]["iteration"])


def test_the_diagnostics_figure_shows_what_stands_behind_the_losses(make_experiment, write_all, tmp_path):
    experiment = make_experiment()
    write_all(experiment, tmp_path)
    figure = diagnostics_figure(experiment, read_curves(experiment, tmp_path))
    assert figure.axes == []  # only the rival logs any: there is nothing to compare
    experiment = make_experiment(arms={name: {"method": "cross_entropy"} for name in ("plain", "rival_one", "second")})
    write_all(experiment, tmp_path)
    figure = diagnostics_figure(experiment, read_curves(experiment, tmp_path))
    assert_readable(figure)
    assert [axis.get_title() for axis in figure.axes] == ["pixel anchor", "kept share", "pixel anchor, layer1"]
    assert [len(axis.lines) for axis in figure.axes] == [2, 2, 2]


def test_two_arms_show_all_that_either_logs(make_experiment, write_all, tmp_path):
    experiment = make_experiment(arms={name: {"method": "cross_entropy"} for name in ("plain", "rival_one")})
    write_all(experiment, tmp_path)
    figure = diagnostics_figure(experiment, read_curves(experiment, tmp_path))
    assert [len(axis.lines) for axis in figure.axes] == [1, 1, 1]


def test_a_run_away_loss_is_drawn_on_a_logarithmic_scale_with_its_end_marked(make_experiment, write_run, tmp_path):
    experiment = make_experiment(seeds=[0])
    write_run(experiment, tmp_path, "plain", 0)
    write_run(experiment, tmp_path, "rival_one", 0, status="diverged", reason="at iteration 30")
    path = experiment.run("scenes", "lite0_fpn", "rival_one", 0).folder(tmp_path) / "curve.csv"
    lines = path.read_text().splitlines()
    last = lines[-1].split(",")
    last[2] = "1e9"
    path.write_text("\n".join([*lines[:-1], ",".join(last)]) + "\n")
    loss, cross_entropy = training_figure(experiment, read_curves(experiment, tmp_path)).axes[:2]
    assert (loss.get_yscale(), cross_entropy.get_yscale()) == ("log", "linear")
    assert loss.yaxis.get_major_formatter()(1e6, 0) == "1e+06"  # mathtext is off
    (end,) = [line for line in loss.lines if line.get_marker() == "x"]
    assert (end.get_xdata()[0], end.get_ydata()[0]) == (30, 1e9)


@pytest.mark.slow
def test_without_records_there_are_figures_that_say_so(make_experiment, tmp_path):
    experiment = make_experiment()
    written = write_figures(experiment, tmp_path)
    folder = tmp_path / "reports" / "little" / "figures"
    assert [path.stem for path in written] == list(figure_names(experiment))
    expected = {f"{name}.{suffix}" for name in figure_names(experiment) for suffix in ("png", "pdf", "svg")}
    assert {path.name for path in folder.iterdir()} == expected
    assert [text.get_text() for text in training_figure(experiment, read_curves(experiment, tmp_path)).texts] == [
        "no run has a training curve yet"
    ]


@pytest.mark.parametrize("times", [1, 3, 9])
def test_a_reason_stays_inside_its_figure(times):
    assert_readable(only_text("Most of the measured latencies are missing: python -m harness latency " * times))


def test_colours_and_markers_tell_nine_arms_apart(make_experiment):
    experiment = make_experiment(arms={name: {"method": "cross_entropy"} for name in NINE}, baseline=NINE[0])
    styles = arm_styles(experiment)
    assert len({color for color, _ in styles.values()}) == 9
    assert len({marker for _, marker in styles.values()}) == 9


@pytest.mark.slow
def test_several_processes_draw_what_one_does(make_experiment, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "FIGURES_A_PROCESS", 4)
    experiment = make_experiment()
    measured = measure(experiment, tmp_path)
    one, two = (
        {path.name: path.read_bytes() for path in write_figures(experiment, tmp_path / str(number), measured, number)}
        for number in (1, 2)
    )
    assert len(one) >= 2 * 4  # enough for two processes
    assert two == one


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        figure = Figure((1, 1))
        figure.add_subplot().plot([0, 1])
        save(figure, tmp_path / name)
    for suffix in (".png", ".pdf", ".svg"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_a_png_of_few_colours_shows_what_was_drawn(tmp_path):
    figure = Figure((3, 2))
    axes, steps = figure.add_subplot(), np.arange(50)
    for arm in range(10):
        axes.plot(steps, np.sqrt(steps + arm), color=f"C{arm}", label=f"arm {arm}")
        axes.fill_between(steps, np.sqrt(steps), np.sqrt(steps + 2 * arm), color=f"C{arm}", alpha=0.2)
    axes.legend()
    save(figure, tmp_path / "few")
    figure.savefig(tmp_path / "drawn.png", dpi=300)
    few, drawn = (Image.open(tmp_path / f"{name}.png") for name in ("few", "drawn"))
    assert few.mode == "P" and few.size == drawn.size and few.info["dpi"] == drawn.info["dpi"]
    difference = np.abs(np.asarray(few.convert("RGB"), float) - np.asarray(drawn.convert("RGB"), float))
    assert difference.mean() < 0.5 and difference.max() <= 16  # of 255
    assert (tmp_path / "few.png").stat().st_size < 0.6 * (tmp_path / "drawn.png").stat().st_size


def cell(arm, metric, difference=None, half=0.5, seeds=3, level=60.0, **changes):
    values = dict.fromkeys(range(seeds), level)
    found = None if difference is None else Gain(difference, difference - half, difference + half)
    given = {"dataset": "scenes", "model": "lite0_fpn", "protocol": "whole", "images": 30, "missing": {}}
    given |= {"arm": arm, "metric": metric, "values": values, "gain": found, "is_baseline": difference is None}
    return Cell(**(given | changes))


def measured_of(**parts):
    return Measured("scenes", "lite0_fpn", "whole", ("a", "b", "c"), **parts)


@pytest.mark.slow
def test_all_figures_of_nine_arms_are_readable(make_experiment, write_all, tmp_path):
    arms = {name: {"method": "cross_entropy"} for name in NINE}
    experiment = make_experiment(arms=arms, baseline=NINE[0], datasets=["camvid"], seeds=[0, 1, 2])
    classes = tuple(f"class_number_{index}" for index in range(11))
    write_all(experiment, tmp_path, step=1.0, classes=classes)
    measured = measure(experiment, tmp_path)
    for arm in NINE:
        shares = np.full((11, 11), 3.0) + 70 * np.eye(11)
        measured[0].confusion[arm] = {0: shares + len(measured[0].confusion) * np.eye(11)}
    assert_readable(gains_figure(experiment, measured))
    assert_readable(boundary_figure(experiment, measured))
    assert_readable(classes_figure(experiment, measured[0]))
    assert_readable(confusion_figure(experiment, measured[0]))


def test_the_forest_plot_is_ordered_by_gain_and_prints_what_it_draws(make_experiment):
    experiment = make_experiment(
        arms={
            "worse": {"method": "pixel_contrast"},
            "plain": {"method": "cross_entropy"},
            "rival": {"method": "contextrast"},
            "hole": {"method": "region_contrast"},
        },
        protocols=["whole"],
    )
    hole = cell("hole", "miou", values={}, missing={0: Missing("out_of_memory", "no")}, is_baseline=False)
    region = [cell("plain", "miou"), cell("worse", "miou", -0.25, 0.75), cell("rival", "miou", 1.25, 0.5), hole]
    figure = gains_figure(experiment, [measured_of(region=region)])
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == ["rival", "worse", "hole"]
    assert [text.get_text() for text in axis.texts] == [
        "+1.25 [+0.75, +1.75], n 3",
        "-0.25 [-1.00, +0.50], n 3",
        "out of memory",
    ]
    spans = [(list(line.get_xdata()), list(line.get_ydata())) for line in axis.lines if len(line.get_xdata()) == 2]
    assert ([0.75, 1.75], [0, 0]) in spans
    assert ([-1.0, 0.5], [1, 1]) in spans
    faces = {tuple(np.atleast_1d(line.get_ydata())): line.get_markerfacecolor() for line in axis.lines[1:]}
    assert faces[0,] != "white"
    assert faces[1,] == "white"  # its interval holds 0
    assert_readable(figure)


@pytest.mark.slow
def test_the_forest_plot_of_all_settings_shows_each_and_their_means(make_experiment, write_all, tmp_path):
    experiment = make_experiment(datasets=["scenes", "camvid"], models=["lite0_fpn", "hrnet_w48"], protocols=["whole"])
    write_all(experiment, tmp_path)
    measured = measure(experiment, tmp_path)
    figure = settings_figure(experiment, measured)
    means = over_settings(experiment, measured)
    (axis,) = figure.axes
    assert [label.get_text() for label in axis.get_yticklabels()] == [arm_name(experiment, arm) for arm in means]
    drawn = [(list(np.atleast_1d(line.get_xdata())), list(np.atleast_1d(line.get_ydata()))) for line in axis.lines]
    for row, (arm, mean) in enumerate(means.items()):
        for expected in ([mean.low, mean.high], [mean.low_like, mean.high_like]):
            assert (expected, [row, row]) in drawn
        assert ([mean.difference], [row]) in drawn
        gains = [each.gain.difference for of_set in measured for each in of_set.region if each.arm == arm]
        assert gains in [xs for xs, _ in drawn]
    assert_readable(figure)
    assert "settings" in figure_names(experiment)
    assert "settings" not in figure_names(make_experiment())


def test_boundary_gains_stand_over_their_widths_in_pixels(make_experiment):
    experiment = make_experiment(arms={"plain": {"method": "cross_entropy"}, "pne": {}}, protocols=["whole"])
    edges = []
    for width, level in (("10px", 50.0), ("3px", 40.0), ("0.02", 99.0)):
        edges += [cell("plain", f"boundary_miou@{width}", level=level)]
        edges += [cell("pne", f"boundary_miou@{width}", level / 10, 0.1, level=level + 1)]
    boundary, _ = boundary_figure(experiment, [measured_of(edges=edges)]).axes
    zero, gains = [(list(line.get_xdata()), list(line.get_ydata())) for line in boundary.lines]
    assert zero[1] == [0, 0]
    assert gains == ([3, 10], [4.0, 5.0])


def test_a_single_arm_has_nothing_to_be_compared_with(make_experiment, write_all, tmp_path):
    experiment = make_experiment(arms={"plain": {"method": "cross_entropy"}}, datasets=["camvid"], seeds=[0])
    write_all(experiment, tmp_path, classes=tuple(f"class_{index}" for index in range(11)))
    measured = measure(experiment, tmp_path)
    for figure in (gains_figure(experiment, measured), frequency_figure(experiment, measured)):
        assert [" ".join(text.get_text().split()) for text in figure.texts] == [
            "plain is the only arm: there is nothing to compare it with."
        ]
    figure = boundary_figure(experiment, measured)
    assert [[text.get_text() for text in axis.texts] for axis in figure.axes] == [["no gains yet"]] * 2
    assert_readable(figure)
    assert_readable(miou_figure(experiment, measured))


def test_class_names_stand_under_the_last_panel_of_every_column(make_experiment):
    arms = {"plain": {"method": "cross_entropy"}} | {
        name: {"method": "pne"} for name in ("one", "two", "three", "four")
    }
    experiment = make_experiment(arms=arms, baseline="plain", protocols=["whole"])
    each = measured_of(confusion={arm: {0: np.eye(3) * 90 + 5 * index} for index, arm in enumerate(arms)})
    figure = confusion_figure(experiment, each)
    names = [[text.get_text() for text in axis.texts] for axis in figure.axes[:4]]
    assert names == [[], ["a", "b", "c"], ["a", "b", "c"], []]  # under the fourth stand its tick labels
    assert_readable(figure)


def test_head_mid_and_tail_stand_side_by_side(make_experiment):
    experiment = make_experiment(arms={"plain": {"method": "cross_entropy"}, "pne": {}}, protocols=["whole"])
    frequency = []
    for part, gain in (("head", 0.1), ("mid", 0.2), ("tail", 3.0)):
        frequency += [cell("plain", f"miou_{part}", level=70.0), cell("pne", f"miou_{part}", gain)]
    figure = frequency_figure(experiment, [measured_of(frequency=frequency)])
    assert [axis.get_title(loc="left") for axis in figure.axes] == [
        f"{part} (baseline 70.0 %)" for part in ("head", "mid", "tail")
    ]
    assert [float(axis.lines[-1].get_xdata()[0]) for axis in figure.axes] == [0.1, 0.2, 3.0]
    assert_readable(figure)


def test_class_differences_are_those_of_the_means(make_experiment):
    experiment = make_experiment(arms={"plain": {"method": "cross_entropy"}, "pne": {}}, protocols=["whole"])
    class_iou = {
        "plain": {0: np.array([50.0, np.nan, 10.0]), 1: np.array([60.0, np.nan, 20.0])},
        "pne": {1: np.array([61.5, np.nan, 19.0]), 2: np.array([56.5, np.nan, 7.0])},
    }
    axis = classes_figure(experiment, measured_of(class_iou=class_iou)).axes[0]
    assert [text.get_text() for text in axis.texts] == ["+4.0", "-2.0"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a (55)", "b", "c (15)"]


def test_with_many_classes_those_that_differ_most_are_shown(make_experiment):
    experiment = make_experiment(arms={"plain": {"method": "cross_entropy"}, "pne": {}}, protocols=["whole"])
    each = measured_of()
    each.classes = tuple(f"c{index}" for index in range(60))
    gains = np.where(np.arange(60) % 3 == 0, -5.0, 0.01)
    each.class_iou = {"plain": {0: np.full(60, 50.0)}, "pne": {0: 50 + gains}}
    axis = classes_figure(experiment, each).axes[0]
    names = [label.get_text().split()[0] for label in axis.get_yticklabels()]
    assert names == [f"c{index}" for index in range(0, 60, 3)]


def test_the_confusion_figure_shows_the_change_in_shares(make_experiment):
    experiment = make_experiment(arms={"plain": {"method": "cross_entropy"}, "pne": {}}, protocols=["whole"])
    before = np.array([[90.0, 10.0, 0.0], [20.0, 70.0, 10.0], [np.nan] * 3])
    after = np.array([[95.0, 5.0, 0.0], [30.0, 60.0, 10.0], [np.nan] * 3])
    each = measured_of(confusion={"plain": {0: before}, "pne": {0: after}})
    axis = confusion_figure(experiment, each).axes[0]
    drawn = np.ma.filled(axis.collections[0].get_array().reshape(3, 3).astype(float), np.nan)
    np.testing.assert_allclose(drawn, after - before)
    assert axis.collections[0].get_clim() == (-10.0, 10.0) or axis.collections[0].get_clim()[1] > 9


def test_confusion_shares_are_of_the_true_class(make_experiment, write_run, tmp_path):
    experiment = make_experiment(seeds=[0], protocols=["whole"])
    write_run(experiment, tmp_path, "plain", 0)
    folder = experiment.run("scenes", "lite0_fpn", "plain", 0).folder(tmp_path)
    np.savez_compressed(folder / "confusion.npz", whole=np.diag([3, 4, 5, 0]) + np.eye(4, k=1, dtype=int))
    (each,) = measure(experiment, tmp_path)
    found = each.confusion["plain"][0]
    np.testing.assert_allclose(found[:3], [[75, 25, 0, 0], [0, 80, 20, 0], [0, 0, 500 / 6, 100 / 6]])
    assert np.isnan(found[3]).all()


def test_accuracy_stands_over_the_time_of_one_image(make_experiment, tmp_path):
    experiment = make_experiment(
        arms={"plain": {"method": "cross_entropy"}, "rival": {"method": "pne"}}, protocols=["whole"]
    )
    path = tmp_path / "reports" / "cost" / "latency.csv"
    path.parent.mkdir(parents=True)
    rows = [
        *("one,lite0_fpn,scenes,144x192,1,plain,10.0,12.0", "one,lite0_fpn,scenes,144x192,1,pne,10.5,11.0"),
        *("one,lite0_fpn,scenes,144x192,1,plain again,9.0,12.0", "one,lite0_fpn,scenes,144x192,8,plain,70.0,71.0"),
        "one,hrnet_w48,scenes,144x192,1,plain,99.0,99.0",
    ]
    path.write_text("\n".join(["device,model,dataset,size,batch,arm,p50_ms,p90_ms", *rows]) + "\n")
    region = [cell("plain", "miou", level=60.0), cell("rival", "miou", 1.0, level=61.0)]
    figure = latency_figure(experiment, [measured_of(region=region)], read_latency(tmp_path))
    (axis,) = figure.axes
    drawn = [(np.atleast_1d(line.get_xdata()).tolist(), np.atleast_1d(line.get_ydata())[0]) for line in axis.lines]
    assert drawn == [([10.0, 12.0], 60.0), ([10.0], 60.0), ([10.5, 11.0], 61.0), ([10.5], 61.0)]
    assert axis.get_title(loc="left") == "scenes, 144x192, one"
    assert_readable(figure)
