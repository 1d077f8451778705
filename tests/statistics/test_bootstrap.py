import numpy as np
import pytest

from harness.statistics.bootstrap import draw_weights, resampled_miou, resampling_units
from harness.statistics.scores import miou


def random_table(images=12, classes=4, seed=0):
    return np.random.default_rng(seed).integers(1, 200, (images, classes, 3))


def test_images_are_drawn_alone_without_clusters():
    unit, name = resampling_units(4)
    assert (unit.tolist(), name) == ([0, 1, 2, 3], "image")


def test_twenty_clusters_are_drawn_whole():
    clusters = [f"city{index % 20}" for index in range(50)]
    unit, name = resampling_units(50, clusters)
    assert name == "cluster"
    assert len(set(unit.tolist())) == 20
    assert len({(cluster, each) for cluster, each in zip(clusters, unit.tolist(), strict=True)}) == 20


def test_fewer_clusters_are_cut_into_blocks_of_ten_neighbouring_frames():
    # Two sequences of 23 and 12 frames, mixed in the list but each in order: blocks of 10, 10, 3 and 10, 2.
    clusters = ["b", "a", "b"] + ["a", "b"] * 11 + ["b"] * 10
    unit, name = resampling_units(len(clusters), clusters)
    assert name == "block of 10 frames"
    for cluster, sizes in (("a", [10, 2]), ("b", [10, 10, 3])):
        frames = [each for each, owner in zip(unit.tolist(), clusters, strict=True) if owner == cluster]
        assert [frames.count(each) for each in dict.fromkeys(frames)] == sizes
        assert frames == sorted(frames)
    assert len(set(unit.tolist())) == 5


def test_a_cluster_name_for_every_image_is_asked_for():
    with pytest.raises(ValueError, match="2 cluster names for 3 images"):
        resampling_units(3, ["a", "b"])


def test_weights_are_draws_with_replacement():
    weights = draw_weights(30, 4000, seed=3)
    assert weights.shape == (4000, 30)
    assert (weights.sum(1) == 30).all()
    assert np.array_equal(weights, draw_weights(30, 4000, seed=3))
    assert not np.array_equal(weights, draw_weights(30, 4000, seed=4))
    # A draw count is binomial(30, 1/30): mean 1, variance 29/30, P(0) = (29/30)^30 = 0.3617.
    assert weights.mean(0) == pytest.approx(1, abs=0.07)
    assert weights.var() == pytest.approx(29 / 30, abs=0.02)
    assert (weights == 0).mean() == pytest.approx(0.3617, abs=0.005)


@pytest.mark.parametrize("absent", ["skip", "zero", "require_ground_truth"])
def test_a_resample_scores_what_the_data_set_of_its_images_would(absent):
    table = random_table()
    clusters = ["a"] * 7 + ["b"] * 5
    blocks, _ = resampling_units(12, clusters)
    assert blocks.tolist() == [0] * 7 + [1] * 5
    for unit, units in ((blocks, 2), (np.arange(12), 12)):
        weights = draw_weights(units, 20, seed=1)
        values = resampled_miou(table, unit, weights, absent)
        for value, times in zip(values, weights, strict=True):
            copies = np.concatenate([table[unit == each].repeat(int(times[each]), axis=0) for each in range(units)])
            assert value == pytest.approx(miou(copies.sum(0), absent))


@pytest.mark.parametrize("absent", ["skip", "zero", "require_ground_truth"])
def test_the_classes_of_the_mean_are_those_of_the_whole_test_set(absent):
    # Class 1 is only in the last image (IoU 80 %), class 2 in none, class 3 is predicted in the first image only.
    table = np.array(
        [
            [[6, 2, 2], [0, 0, 0], [0, 0, 0], [0, 4, 0]],
            [[3, 0, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]],
            [[5, 0, 0], [8, 1, 1], [0, 0, 0], [0, 0, 0]],
        ]
    )
    weights = np.array([[0.0, 3.0, 0.0], [1.0, 1.0, 1.0]])
    values = resampled_miou(table, np.arange(3), weights, absent)
    expected = {"skip": (75 + 80 + 0) / 3, "zero": (75 + 80 + 0 + 0) / 4, "require_ground_truth": (75 + 80) / 2}
    assert values[0] == pytest.approx(expected[absent])
    assert values[1] == pytest.approx(miou(table.sum(0), absent))


def test_no_defined_class_gives_nan():
    assert np.isnan(resampled_miou(np.zeros((3, 2, 3), np.int64), np.arange(3), draw_weights(3, 5, 0))).all()
