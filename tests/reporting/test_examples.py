import cv2
import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg

from harness import datasets
from harness.datasets.pictures import WRONG, best_window, errors, framed, narrowed, painted
from harness.errors import UserError
from harness.evaluation.counts import Counts, count_image, stack
from harness.reporting.examples import choice, write_examples
from harness.reporting.examples.choice import choose, gather
from harness.reporting.examples.sheet import examples_figure
from harness.reporting.figures.style import STYLE


@given(st.lists(st.one_of(st.integers(-5, 5).map(float), st.just(float("nan")))))
def test_the_largest_the_smallest_and_the_median_are_chosen(values):
    chosen = choose({f"image_{index}": value for index, value in enumerate(values)})
    defined = sorted(value for value in values if value == value)
    assert len(chosen) == min(3, len(defined))
    found = {which: values[int(image_id.removeprefix("image_"))] for image_id, which in chosen.items()}
    if defined:
        assert found["largest"] == defined[-1]
    if len(defined) > 1:
        assert found["smallest"] == defined[0]
    if len(defined) > 2:
        assert found["median"] == defined[len(defined) // 2]


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1), st.sampled_from([0.25, 0.5, 1.0]))
def test_the_window_holds_as_many_marked_pixels_as_any(height, width, seed, share):
    marked = np.random.default_rng(seed).random((height, width)) < 0.4
    rows, columns = best_window(marked, share)
    tall, wide = max(1, round(share * height)), max(1, round(share * width))
    assert (rows.stop - rows.start, columns.stop - columns.start) == (tall, wide)
    most = max(
        marked[top : top + tall, left : left + wide].sum()
        for top in range(height - tall + 1)
        for left in range(width - wide + 1)
    )
    assert marked[rows, columns].sum() == most


def test_a_frame_runs_inside_the_window_and_the_picture_stays_as_it_was():
    picture = np.full((40, 60, 3), 100, np.uint8)
    marked = framed(picture, (slice(10, 20), slice(15, 35)))
    assert (picture == 100).all()
    expected = np.full((40, 60), 100)
    expected[10:20, 15:35] = 0
    expected[11:19, 16:34] = 255
    expected[12:18, 17:33] = 100
    np.testing.assert_array_equal(marked, np.repeat(expected[..., None], 3, axis=-1))


def test_a_picture_is_made_smaller_and_never_larger():
    picture = np.random.default_rng(0).integers(0, 255, (30, 40, 3)).astype(np.uint8)
    assert narrowed(picture, 40) is picture
    assert narrowed(picture, 20).shape == (15, 20, 3)


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


def test_every_arm_stands_below_image_and_ground_truth_with_errors_and_a_window(predicted):
    experiment, results, dataset = predicted
    examples = gather(experiment, results, "tiny", "lite0_fpn", dataset.root)
    figure = examples_figure(experiment, examples)
    assert [arm.arm for arm in examples.arms] == ["plain", "rival_one"]
    assert len(figure.axes) == 3 * 2 * (2 + 2)
    samples = {sample.id: sample for sample in dataset.samples("test")}
    assert {each.id for each in examples.chosen} == set(samples)
    for column, each in enumerate(examples.chosen):
        image, label = dataset.read(samples[each.id])
        axes = figure.axes[8 * column : 8 * column + 8]
        shown = [np.asarray(axis.images[0].get_array()) for axis in axes]
        rows, columns = each.window
        np.testing.assert_array_equal(shown[0], framed(image, each.window))
        np.testing.assert_array_equal(shown[1], image[rows, columns])
        np.testing.assert_array_equal(shown[2], framed(painted(label, dataset), each.window))
        np.testing.assert_array_equal(shown[3], painted(label, dataset)[rows, columns])
        np.testing.assert_array_equal(shown[4], framed(errors(image, label, label), each.window))  # the perfect arm
        zeros = np.zeros_like(label)
        np.testing.assert_array_equal(shown[6], framed(errors(image, zeros, label), each.window))
        np.testing.assert_array_equal(shown[7], painted(zeros, dataset)[rows, columns])
        tops = [axis.get_position().y1 for axis in axes]
        assert tops[::2] == sorted(tops[::2], reverse=True)
        assert len({axis.get_position().x0 for axis in axes[::2]}) == 1
        wrong = (label != 255) & (label != 0)  # the window is where plain is right and the rival wrong
        assert wrong[rows, columns].sum() == wrong[best_window(wrong)].sum()


def test_images_are_chosen_by_the_rival_less_the_baseline(predicted):
    experiment, results, dataset = predicted
    examples = gather(experiment, results, "tiny", "lite0_fpn", dataset.root)
    differences = {}
    for sample in dataset.samples("test"):
        label = dataset.read_label(sample)
        present = np.unique(label[label != 255])
        alone = 100 * (label == 0).sum() / (label != 255).sum() / len(present)  # IoU of class 0; the others' is 0
        differences[sample.id] = alone - 100  # the baseline is perfect
    order = sorted(differences, key=differences.get)
    assert [each.id for each in examples.chosen] == [order[2], order[0], order[1]]
    names = ("smallest loss", "largest loss", "median")
    assert [each.why for each in examples.chosen] == [
        f"{name}, {differences[each.id]:+.1f}" for name, each in zip(names, examples.chosen, strict=True)
    ]
    assert (
        examples.rule
        == "Images chosen by the mIoU of rival one less that of plain: the largest, the smallest and the median."
    )


def test_names_seeds_scores_classes_and_what_is_missing_are_written_inside_the_picture(predicted):
    experiment, results, dataset = predicted
    with mpl.rc_context(STYLE):
        figure = examples_figure(experiment, gather(experiment, results, "tiny", "lite0_fpn", dataset.root))
        renderer = FigureCanvasAgg(figure).get_renderer()
    (legend,) = figure.legends
    width, height = figure.bbox.size
    for box in (text.get_window_extent(renderer) for text in [*figure.texts, legend]):
        assert box.x0 >= 0 and box.x1 <= width and box.y0 >= 0 and box.y1 <= height
    assert [text.get_text() for text in legend.get_texts()] == [*dataset.classes, "wrong", "ignored"]
    written = [" ".join(text.get_text().split()) for text in figure.texts]
    assert {"plain, seed 0", "rival one, seed 1"} <= set(written)  # the rival's first seed diverged
    assert written.count("mIoU 100.0") == 3
    label = dataset.read_label(dataset.samples("test")[0])
    alone = 100 * (label == 0).sum() / (label != 255).sum() / 3  # the IoU of class 0; those of 1 and 2 are 0
    assert f"mIoU {alone:.1f}" in written
    assert any("Not shown: Cross entropy: not run." in text for text in written)


def test_of_several_rivals_the_one_with_the_highest_miou_is_judged(predicted, make_experiment):
    _, results, dataset = predicted
    arms = {name: {"method": "cross_entropy"} for name in ("plain", "b", "c")}
    experiment = make_experiment(arms=arms, datasets=["tiny"], protocols=["whole"], seeds=[0])
    perfect = experiment.run("tiny", "lite0_fpn", "plain", 0).folder(results)
    poor = perfect.parent.parent / "rival_one" / "seed1"
    for arm, source in (("b", poor), ("c", perfect)):
        target = experiment.run("tiny", "lite0_fpn", arm, 0).folder(results)
        target.parent.mkdir()
        target.symlink_to(source)
    examples = gather(experiment, results, "tiny", "lite0_fpn", dataset.root)
    assert examples.rule.startswith(
        "Images chosen by the mIoU of c, the arm with the highest mIoU of those shown, less"
    )
    assert len(examples_figure(experiment, examples).axes) == 3 * 2 * (2 + 3)


def test_without_the_baseline_images_are_chosen_by_the_miou_itself(predicted):
    import shutil

    experiment, results, dataset = predicted
    shutil.rmtree(experiment.run("tiny", "lite0_fpn", "plain", 0).folder(results).parent)
    examples = gather(experiment, results, "tiny", "lite0_fpn", dataset.root)
    assert examples.rule == "Images chosen by the mIoU of rival one: the largest, the smallest and the median."
    assert [arm.arm for arm in examples.arms] == ["rival_one"]


def test_without_a_labelled_pixel_no_image_is_chosen(predicted, monkeypatch):
    experiment, results, dataset = predicted
    monkeypatch.setattr(choice, "_score", lambda arm, image_id: float("nan"))
    with pytest.raises(UserError, match="no image of tiny has a labelled pixel"):
        gather(experiment, results, "tiny", "lite0_fpn", dataset.root)


@pytest.mark.slow
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
    assert error.startswith("no examples for CamVid, EfficientNet-Lite0: the data set tiny has no root")
    assert error.count("\n") == 1
    picture = cv2.imread(str(results / "reports" / "little" / "figures" / "examples.png"))
    assert 0.001 < (picture < 128).mean() < 0.2  # a line of text on white


def test_without_label_maps_nothing_is_drawn_and_a_line_says_why(tiny_data, make_experiment, tmp_path, capsys):
    assert write_examples(make_experiment(datasets=["tiny"]), tmp_path) == []
    assert "no run kept its label maps of the protocol whole (not run)" in capsys.readouterr().err


def test_label_maps_of_other_data_are_refused(predicted, tiny_data, capsys):
    experiment, results, dataset = predicted
    path = dataset.samples("test")[1].label_path
    label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    label[20:24] = 0
    cv2.imwrite(str(path), label)
    assert write_examples(experiment, results) == []
    assert "test_1 in" in (error := capsys.readouterr().err)
    assert "does not fit the data" in error
