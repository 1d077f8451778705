import cv2
import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import datasets
from harness.evaluation.counts import Counts, count_image, stack
from harness.reporting.examples import WRONG, chosen_samples, errors, examples_figure, painted, write_examples
from harness.reporting.figures import STYLE


@given(st.integers(0, 60))
def test_chosen_samples_are_distinct_in_order_and_spread_over_the_list(length):
    chosen = chosen_samples(list(range(length)))
    assert len(chosen) == min(4, length)
    assert chosen == sorted(set(chosen))
    gaps = np.diff(chosen)
    assert len(chosen) < 2 or gaps.max() - gaps.min() <= 1
    assert not chosen or abs(chosen[0] - (length - 1 - chosen[-1])) <= 1  # as much before the first as behind the last


def test_errors_are_marked_where_a_valid_pixel_is_wrong_and_nowhere_else():
    label = np.array([[0, 1, 255], [2, 1, 255]], np.uint8)
    prediction = np.array([[0, 2, 0], [1, 1, 1]], np.uint8)
    image = np.full((2, 3, 3), 200, np.uint8)
    marked = (errors(image, prediction, label) == WRONG).all(-1)
    np.testing.assert_array_equal(marked, [[False, True, False], [True, False, False]])
    assert errors(image, prediction, label)[0, 0].tolist() == [220] * 3  # 120 + 200 / 2


def test_labels_are_painted_in_the_classes_colours():
    dataset = datasets.load("camvid")
    label = np.array([[0, 10], [255, 3]], np.uint8)
    picture = painted(label, dataset)
    assert [tuple(picture[place].tolist()) for place in ((0, 0), (0, 1), (1, 1))] == [
        (128, 128, 128),
        (0, 128, 192),
        (128, 64, 128),
    ]
    assert picture[1, 0, 0] == picture[1, 0, 1] == picture[1, 0, 2]


@pytest.fixture
def predicted(tiny_data, make_experiment, write_run, tmp_path):
    """An experiment on three real test images in which arms predict: perfectly, "all class 0", and not at all."""
    experiment = make_experiment(datasets=["tiny"], protocols=["whole"])
    dataset = datasets.load("tiny", tiny_data)

    def predict(arm, seed, change):
        write_run(experiment, tmp_path, arm, seed, dataset="tiny")
        folder = experiment.run("tiny", "lite0_fpn", arm, seed).folder(tmp_path)
        (folder / "predictions" / "whole").mkdir(parents=True)
        counts = []
        for sample in dataset.samples("test"):
            label = dataset.read_label(sample)
            prediction = change(label).astype(np.uint8)
            counts.append(count_image(prediction, label, 3))
            cv2.imwrite(str(folder / "predictions" / "whole" / f"{sample.id}.png"), prediction)
        ids = [sample.id for sample in dataset.samples("test")]
        Counts(ids, dataset.classes, {"whole": stack(counts)}).save(folder / "counts.npz")

    for seed in (0, 1):
        predict("plain", seed, lambda label: np.where(label == 255, 1, label))
    write_run(experiment, tmp_path, "rival_one", 0, dataset="tiny", status="diverged", reason="at iteration 3")
    predict("rival_one", 1, np.zeros_like)
    return experiment, tmp_path, dataset


def words(figure):
    return [text.get_text() for text in figure.texts]


def test_every_image_stands_beside_its_ground_truth_predictions_and_errors(predicted):
    experiment, results, dataset = predicted
    figure = examples_figure(experiment, results, dataset, "lite0_fpn")
    assert len(figure.axes) == 3 * (2 + 2 * 2)
    for row, sample in enumerate(dataset.samples("test")):
        image, label = dataset.read(sample)
        shown = [np.asarray(axis.images[0].get_array()) for axis in figure.axes[6 * row : 6 * row + 6]]
        np.testing.assert_array_equal(shown[0], image)
        np.testing.assert_array_equal(shown[1], painted(label, dataset))
        assert not (shown[3] == WRONG).all(-1).any()
        wrong = (shown[5] == WRONG).all(-1)
        np.testing.assert_array_equal(wrong, (label != 255) & (label != 0))
        places = [axis.get_position() for axis in figure.axes[6 * row : 6 * row + 6]]
        assert [place.x0 for place in places] == sorted(place.x0 for place in places)
        assert len({round(place.y0, 6) for place in places}) == 1


def test_names_seeds_scores_and_what_is_missing_are_written(predicted):
    experiment, results, dataset = predicted
    written = words(examples_figure(experiment, results, dataset, "lite0_fpn"))
    assert {"plain, seed\u00a00", "rival one, seed\u00a01"} <= set(written)  # the rival's first seed diverged
    assert written.count("mIoU 100.0") == 3
    label = dataset.read_label(dataset.samples("test")[0])
    alone = 100 * (label == 0).sum() / (label != 255).sum() / 3  # the IoU of class 0; those of 1 and 2 are 0
    assert f"mIoU {alone:.1f}" in written
    assert "Not shown: cross entropy, not run." in " ".join(written[1].split())


def test_all_that_is_written_stays_in_the_picture(predicted):
    experiment, results, dataset = predicted
    with mpl.rc_context(STYLE):
        figure = examples_figure(experiment, results, dataset, "lite0_fpn")
        renderer = mpl.backends.backend_agg.FigureCanvasAgg(figure).get_renderer()
        width, height = figure.bbox.size
        for text in [*figure.texts, figure.legends[0]]:
            box = text.get_window_extent(renderer)
            assert box.x0 >= 0
            assert box.y0 >= 0
            assert box.x1 <= width
            assert box.y1 <= height


def test_the_legend_names_the_classes_that_are_there(predicted):
    experiment, results, dataset = predicted
    (legend,) = examples_figure(experiment, results, dataset, "lite0_fpn").legends
    assert [text.get_text() for text in legend.get_texts()] == [*dataset.classes, "wrong", "ignored"]


def test_more_than_three_arms_go_below(predicted, make_experiment, write_run):
    _, results, dataset = predicted
    arms = {name: {"method": "cross_entropy"} for name in ("plain", "b", "c", "d", "e")}
    experiment = make_experiment(arms=arms, datasets=["tiny"], protocols=["whole"], seeds=[0])
    source = experiment.run("tiny", "lite0_fpn", "plain", 0).folder(results)
    for arm in ("b", "c", "d", "e"):
        target = experiment.run("tiny", "lite0_fpn", arm, 0).folder(results)
        target.parent.mkdir()
        target.symlink_to(source)
    figure = examples_figure(experiment, results, dataset, "lite0_fpn")
    assert len(figure.axes) == 3 * (2 + 2 * 3) + 3 * (2 + 2 * 2)
    lowest_of_first = min(axis.get_position().y0 for axis in figure.axes[:24])
    assert all(axis.get_position().y1 < lowest_of_first for axis in figure.axes[24:])


def test_the_file_is_written_and_named(predicted, tiny_data):
    experiment, results, _ = predicted
    written = write_examples(experiment, results, {"tiny": tiny_data})
    assert written == [results / "reports" / "little" / "figures" / "examples.png"]
    assert cv2.imread(str(written[0])).shape[1] > 1000


def test_without_a_root_a_line_says_why_and_stands_in_the_pictures_place(predicted, monkeypatch, capsys):
    experiment, results, _ = predicted
    monkeypatch.delenv("TINY_ROOT")
    assert write_examples(experiment, results) == []
    error = capsys.readouterr().err
    assert error.startswith("no examples of tiny with lite0_fpn: the data set tiny has no root")
    assert error.count("\n") == 1
    picture = cv2.imread(str(results / "reports" / "little" / "figures" / "examples.png"))
    assert 0.001 < (picture < 128).mean() < 0.2  # a line of text on white


def test_without_label_maps_nothing_is_drawn_and_a_line_says_why(tiny_data, make_experiment, tmp_path, capsys):
    assert write_examples(make_experiment(datasets=["tiny"]), tmp_path) == []
    assert "no run has label maps of the protocol whole (plain, not run; rival one, not run" in capsys.readouterr().err


def test_label_maps_of_other_data_are_refused(predicted, tiny_data, capsys):
    experiment, results, dataset = predicted
    path = dataset.samples("test")[1].label_path
    label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    label[20:24] = 0
    cv2.imwrite(str(path), label)
    assert write_examples(experiment, results) == []
    assert "test_1 in" in (error := capsys.readouterr().err)
    assert "does not fit the data" in error
