import matplotlib as mpl
import numpy as np
import pytest
from readable import assert_readable

from harness import datasets
from harness.reporting.figures.embeddings import embeddings_figure, read_embeddings
from harness.reporting.figures.style import STYLE

PAIR = ("scenes", "lite0_fpn")


@pytest.fixture(autouse=True)
def style():
    with mpl.rc_context(STYLE):
        yield


def write(experiment, results, arm, seed=0, maps=4, phases=("before", "after"), own=True, classes=11):
    """A run's embeddings.npz: 3 pixels a class, silhouettes that say which arm, layer and phase they are of."""
    random = np.random.default_rng(seed)
    content = {"kind": "embeddings" if own else "features", "images": np.array(["a", "b"])}
    labels = np.repeat(np.arange(classes), 3).astype(np.uint8)
    for phase in phases:
        late = phase == "after"
        for number in range(1, maps + 1):
            content[f"{phase}/labels{number}"] = labels
            content[f"{phase}/points{number}"] = random.normal(size=(len(labels), 5)).astype(np.float16)
            content[f"{phase}/variance{number}"] = np.array([0.4, 0.235, 0.1, 0.05, 0.01], np.float32)
        content[f"{phase}/silhouette"] = np.arange(maps) / 10 + 0.05 * late
        content[f"{phase}/encoder_silhouette"] = -0.01 - np.arange(4) / 10 - 0.05 * late
    path = experiment.run(*PAIR, arm, seed).folder(results) / "embeddings.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, allow_pickle=False, **content)
    return path


def figure_of(experiment, results):
    return embeddings_figure(experiment, *PAIR, read_embeddings(experiment, results, *PAIR))


def note_of(figure):
    return " ".join(figure.get_supxlabel().split())


@pytest.mark.slow
def test_every_panel_says_its_silhouette_that_of_the_encoder_and_its_variance(make_experiment, tmp_path):
    experiment = make_experiment(arms={"plain": {"method": "cross_entropy"}, "contextrast": {}, "pne": {}})
    write(experiment, tmp_path, "plain", own=False)
    write(experiment, tmp_path, "contextrast")
    write(experiment, tmp_path, "pne", maps=1)
    figure = figure_of(experiment, tmp_path)
    assert_readable(figure)
    rows = np.array([axis.get_title() for axis in figure.axes]).reshape(3, 8).tolist()
    assert rows[0][0] == "layer 1\nbefore\n0.00"
    assert rows[0][7] == "layer 4\nafter\n0.35"
    assert rows[1][:4] == ["0.00 (-0.01)", "0.05 (-0.06)", "0.10 (-0.11)", "0.15 (-0.16)"]
    # One map of all layers: the other layers have the encoder's alone.
    assert rows[2] == ["0.00 (-0.01)", "0.05 (-0.06)", *(f"(-0.{layer}{end})" for layer in (1, 2, 3) for end in (1, 6))]
    assert [len(axis.collections) for axis in figure.axes] == [11] * 8 + [11] * 8 + [11, 11] + [0] * 6
    assert [text.get_text() for text in figure.axes[0].texts] == ["64 %"]
    said = note_of(figure)
    assert "the encoder's maps are shown: plain" in said
    assert "Without embeddings" not in said


def test_points_stand_at_their_principal_components_in_the_colours_of_the_data_set(make_experiment, tmp_path):
    experiment = make_experiment(arms={"plain": {"method": "cross_entropy"}})
    with np.load(write(experiment, tmp_path, "plain")) as file:
        points, labels = file["after/points2"].astype(float), file["after/labels2"]
    axis = figure_of(experiment, tmp_path).axes[3]
    colors = datasets.load("scenes").colors
    for label, drawn in enumerate(axis.collections):
        np.testing.assert_array_equal(drawn.get_offsets(), points[labels == label, :2])
        np.testing.assert_allclose(drawn.get_facecolor()[0][:3], np.array(colors[label]) / 255)
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    assert right - left == pytest.approx(top - bottom)  # one scale for both axes
    assert left < points[:, 0].min() < points[:, 0].max() < right
    assert bottom < points[:, 1].min() < points[:, 1].max() < top


@pytest.mark.slow
def test_an_arm_is_shown_by_its_lowest_seed_that_has_a_whole_file(make_experiment, tmp_path):
    experiment = make_experiment(seeds=[2, 0, 1])
    write(experiment, tmp_path, "plain", 1)
    write(experiment, tmp_path, "plain", 2)
    path = write(experiment, tmp_path, "rival_one", 0)
    write(experiment, tmp_path, "rival_one", 2)
    found = read_embeddings(experiment, tmp_path, *PAIR)
    assert [(each.arm, each.seed) for each in found] == [("plain", 1), ("rival_one", 0)]
    whole = path.read_bytes()
    for content in (whole[:100], b"", whole.replace(b"labels1", b"labelsX")):
        path.write_bytes(content)
        found = read_embeddings(experiment, tmp_path, *PAIR)
        assert [(each.arm, each.seed) for each in found] == [("plain", 1), ("rival_one", 2)]
    write(experiment, tmp_path, "rival_one", 0, classes=12)  # of another data set: scenes has 11
    assert [(each.arm, each.seed) for each in read_embeddings(experiment, tmp_path, *PAIR)][1] == ("rival_one", 2)
    figure = embeddings_figure(experiment, *PAIR, found)
    assert "Without embeddings (not run, or made before they were kept): Cross entropy." in note_of(figure)
    assert "seed 1, 2;" in note_of(figure)


def test_what_was_not_recorded_is_said(make_experiment, tmp_path):
    experiment = make_experiment(arms={"plain": {"method": "cross_entropy"}})
    (text,) = figure_of(experiment, tmp_path).texts
    assert "no run has embeddings" in text.get_text()
    write(experiment, tmp_path, "plain", phases=("before",))  # it diverged
    figure = figure_of(experiment, tmp_path)
    assert [[text.get_text() for text in axis.texts] for axis in figure.axes[:2]] == [["64 %"], ["not recorded"]]
    assert_readable(figure)


def test_a_map_without_any_pixel_is_drawn_empty(make_experiment, tmp_path):
    experiment = make_experiment(arms={"plain": {"method": "cross_entropy"}})
    path = write(experiment, tmp_path, "plain")
    with np.load(path) as file:
        content = dict(file)
    content["after/labels4"], content["after/points4"] = np.zeros(0, np.uint8), np.zeros((0, 5), np.float16)
    content["after/silhouette"][3] = np.nan
    np.savez(path, **content)
    assert len(figure_of(experiment, tmp_path).axes[7].collections) == 0


@pytest.mark.slow
def test_ten_arms_are_readable(make_experiment, tmp_path):
    names = [f"a_rather_long_name_of_arm_{number}" for number in range(10)]
    experiment = make_experiment(arms={name: {"method": "contextrast"} for name in names}, baseline=names[0])
    for name in names:
        write(experiment, tmp_path, name)
    assert_readable(figure_of(experiment, tmp_path))
