import tracemalloc

import numpy as np
import pytest

from harness.statistics import bootstrap as module
from harness.statistics.bootstrap import bootstrap, draw_weights, resampling_units
from harness.statistics.scores import Metric, accuracy, miou, miou_of, pixel_accuracy

MIOU = miou_of("region")


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


def draw(units, resamples, seed):
    return draw_weights(units, resamples, np.random.default_rng(seed))


def test_weights_are_draws_with_replacement():
    weights = draw(30, 4000, seed=3)
    assert weights.shape == (4000, 30)
    assert (weights.sum(1) == 30).all()
    assert np.array_equal(weights, draw(30, 4000, seed=3))
    assert not np.array_equal(weights, draw(30, 4000, seed=4))
    # A draw count is binomial(30, 1/30): mean 1, variance 29/30, P(0) = (29/30)^30 = 0.3617.
    assert weights.mean(0) == pytest.approx(1, abs=0.07)
    assert weights.var() == pytest.approx(29 / 30, abs=0.02)
    assert (weights == 0).mean() == pytest.approx(0.3617, abs=0.005)


@pytest.mark.parametrize("absent", ["skip", "zero", "require_ground_truth"])
def test_a_resample_scores_what_the_data_set_of_its_images_would(absent):
    tables = [random_table(), random_table(seed=1)]
    clusters = ["a"] * 7 + ["b"] * 5
    blocks, _ = resampling_units(12, clusters)
    assert blocks.tolist() == [0] * 7 + [1] * 5
    for unit, units in ((blocks, 2), (np.arange(12), 12)):
        values = bootstrap(tables, MIOU, unit, 20, 1, absent)
        assert values.shape == (2, 20)
        for index, table in enumerate(tables):
            for value, times in zip(values[index], draw(units, 20, seed=1), strict=True):
                copies = np.concatenate([table[unit == each].repeat(int(times[each]), axis=0) for each in range(units)])
                assert value == pytest.approx(miou(copies.sum(0), absent))


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (Metric("mean_accuracy", "region", accuracy), lambda hits, false, missed: (hits / (hits + missed)).mean()),
        (
            Metric("pixel_accuracy", "region", pixel_accuracy),
            lambda hits, _, missed: hits.sum() / (hits + missed).sum(),
        ),
        (
            Metric("two", "region", classes=(0, 3)),
            lambda *counts: np.mean([c[0] / sum(c) for c in np.transpose(counts)[[0, 3]]]),
        ),
    ],
    ids=lambda each: getattr(each, "name", ""),
)
def test_any_metric_is_resampled(metric, expected):
    table = random_table()
    values = bootstrap([table], metric, np.arange(12), 20, 1)[0]
    for value, times in zip(values, draw(12, 20, seed=1), strict=True):
        copies = table.repeat(times.astype(int), axis=0).sum(0)
        assert value == pytest.approx(100 * expected(*copies.T))


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
    drawn, values = draw(3, 200, seed=0).tolist(), bootstrap([table], MIOU, np.arange(3), 200, 0, absent)[0]
    expected = {"skip": (75 + 80 + 0) / 3, "zero": (75 + 80 + 0 + 0) / 4, "require_ground_truth": (75 + 80) / 2}
    assert values[drawn.index([0, 3, 0])] == pytest.approx(expected[absent])
    assert values[drawn.index([1, 1, 1])] == pytest.approx(miou(table.sum(0), absent))


def test_no_defined_class_gives_nan_for_that_table_alone():
    values = bootstrap([np.zeros((3, 2, 3), np.int64), random_table(3, 2)], MIOU, np.arange(3), 5, 0)
    assert np.isnan(values[0]).all()
    assert np.isfinite(values[1]).all()


def test_the_size_of_the_chunks_changes_nothing(monkeypatch):
    table = random_table(30)
    values = bootstrap([table], MIOU, np.arange(30), 1234, 7)
    for chunk in (1, 100, 5000):
        monkeypatch.setattr(module, "CHUNK", chunk)
        assert np.array_equal(bootstrap([table], MIOU, np.arange(30), 1234, 7), values)


def test_the_spread_of_a_mean_over_images_is_its_standard_error():
    # Without false positives and with images of equal size the IoU is a mean over images.
    hits = np.random.default_rng(0).integers(0, 1000, 200)
    table = np.stack([hits, 0 * hits, 1000 - hits], axis=1)[:, None]
    values = bootstrap([table], MIOU, np.arange(200), 20_000, 0)[0]
    assert values.mean() == pytest.approx(hits.mean() / 10, abs=0.06)
    assert values.std() == pytest.approx(hits.std() / 10 / 200**0.5, rel=0.02)


def test_memory_does_not_grow_with_the_number_of_resamples():
    table = random_table(400, 20)

    def peak(resamples):
        tracemalloc.start()
        bootstrap([table], MIOU, np.arange(400), resamples, 0)
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    assert peak(12 * module.CHUNK) < 1.1 * peak(3 * module.CHUNK)
