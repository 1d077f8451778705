"""The marks of a run: each is set by what it says and by nothing else, and old records get theirs."""

import math
from pathlib import Path

import pytest

from harness.experiment.run import Run
from harness.runs.health import (
    COLLAPSED,
    DROWNS,
    MEANING,
    NOT_LEARNT,
    Mark,
    health_of,
    marks_of,
    marks_of_curve,
    read_curve,
)
from harness.runs.record import Record

ROWS = 20
KNOWN = {"key": Run("e", "d", "m", "a", 0), "method": "contextrast", "status": "done", "settings": {}}


def curve(**columns):
    """A curve of a healthy run with one term, and what is given instead; a number stands in every row."""
    found = {"iteration": range(1, ROWS + 1), "loss": 1.0, "cross_entropy": 0.5, "term": 0.5, "gradient_norm": 1.0}
    found |= {"chance/term": 0.7, "similarity_within": 0.8, "similarity_between": 0.2, "gradient_ratio": 0.5} | columns
    return {name: list(value) if hasattr(value, "__iter__") else [value] * ROWS for name, value in found.items()}


def marks(weight=None, **columns):
    return [each.mark for each in marks_of_curve(curve(**columns), weight)]


def last(value, others, number=2):
    """`others` in all rows but the last ones."""
    return [others] * (ROWS - number) + [value] * number


def test_a_healthy_run_has_no_mark_and_every_mark_is_explained():
    assert marks() == []
    assert set(MEANING) == {NOT_LEARNT, COLLAPSED, DROWNS}


@pytest.mark.parametrize(
    ("mark", "ill", "well"),
    [
        (NOT_LEARNT, {"term": last(0.7, 0.1)}, {"term": last(0.69, 0.9)}),
        (COLLAPSED, {"similarity_between": last(0.91, 0.1)}, {"similarity_between": last(0.89, 1.0)}),
        (DROWNS, {"gradient_ratio": last(3.01, 0.1, 10)}, {"gradient_ratio": last(2.99, 19.0, 10)}),
        (DROWNS, {"gradient_ratio": 9, "gradient_cosine": 0.49}, {"gradient_ratio": 9, "gradient_cosine": 0.51}),
    ],
)
def test_a_mark_is_set_by_the_end_of_the_curve_alone(mark, ill, well):
    assert marks(**ill) == [mark]
    assert marks(**well) == []


def test_terms_are_summed_and_only_those_with_a_chance_level_count():
    two = {"other": 0.3, "gradient_norm": 1.0}
    base = curve()
    ordered = {name: base[name] for name in ("iteration", "loss", "cross_entropy", "term")}
    ordered |= {name: [value] * ROWS for name, value in two.items()} | {"chance/term": [0.7] * ROWS}
    assert [each.mark for each in marks_of_curve(ordered)] == []  # 0.5 of 0.7: the other has no chance level
    ordered["chance/other"] = [0.05] * ROWS
    assert [each.mark for each in marks_of_curve(ordered)] == [NOT_LEARNT]  # 0.8 of 0.75


def test_a_term_that_begins_late_is_judged_wherever_its_column_is():
    late = curve()
    late["term"] = late.pop("term")  # a column that a later row brings is the last one
    assert list(late)[-1] == "term"
    assert [each.mark for each in marks_of_curve(late | {"term": last(0.8, math.nan)})] == [NOT_LEARNT]


def test_an_older_curve_is_judged_by_its_negatives():
    old = {name: value for name, value in curve(negatives=100).items() if name != "chance/term"}
    chance = 0.1 * math.log(101)
    assert marks_of_curve(old | {"term": [chance + 1e-6] * ROWS}, 0.1) == [
        Mark(NOT_LEARNT, pytest.approx(chance + 1e-6), pytest.approx(chance))
    ]
    assert marks_of_curve(old | {"term": [chance - 1e-6] * ROWS}, 0.1) == []
    assert marks_of_curve(old | {"term": [9.0] * ROWS}) == []  # without the weight nothing is known


def test_an_older_curve_is_collapsed_where_positives_and_negatives_are_alike():
    old = {name: value for name, value in curve().items() if not name.startswith("similarity")}
    alike = {"positive_similarity": [0.94] * ROWS, "negative_similarity": [0.96] * ROWS}
    assert [each.mark for each in marks_of_curve(old | alike)] == [COLLAPSED]
    assert marks_of_curve(old | alike | {"negative_similarity": [0.5] * ROWS}) == []


def test_sampled_pairs_that_are_alike_show_a_collapse_that_random_pixels_just_miss():
    alike = {"positive_similarity": 0.946, "negative_similarity": 0.971}
    assert marks(similarity_between=0.896, **alike) == [COLLAPSED]
    assert marks(similarity_between=0.896, **alike | {"positive_similarity": 0.899}) == []
    assert marks(similarity_between=0.896, **alike | {"negative_similarity": math.nan}) == []


def test_the_committed_curves_of_methods_that_fail_have_their_marks(repository):
    found = {
        path.stem.removesuffix("-seed0").removeprefix("diagnosis-"): [
            each.mark for each in marks_of_curve(read_curve(path), 0.1)
        ]
        for path in (repository / "results/reference").glob("*/curves/*.csv")
    }
    assert found == {
        "smoke-pne": [NOT_LEARNT, COLLAPSED],
        "memory_all_keys": [],
        "pixel_contrast_memory": [NOT_LEARNT],
        "pixel_contrast_synthetic": [NOT_LEARNT, COLLAPSED],
        "synthetic_all_keys": [],
    }


@pytest.mark.parametrize("without", [{}, {"iteration": [1.0]}, {"loss": [], "gradient_norm": []}])
def test_what_a_curve_lacks_gives_no_mark(without):
    assert marks_of_curve(without) == []
    assert marks(similarity_between=math.nan, gradient_ratio=math.nan, **{"chance/term": math.nan}) == []


def test_the_marks_of_an_arm_say_how_many_runs_have_them():
    one, none = [Mark(COLLAPSED, 0.95, 0.9)], []
    assert marks_of([one, none, one]) == [f"{COLLAPSED} (2 of 3 runs)"]
    assert marks_of([one, one]) == [COLLAPSED]
    assert marks_of([none]) == marks_of([]) == []


def test_without_a_curve_a_record_is_believed_and_a_damaged_curve_says_nothing(tmp_path):
    mark = Mark(DROWNS, 2.0, 1.0)
    assert health_of(tmp_path) == []
    assert health_of(tmp_path, Record(**KNOWN, health=[mark])) == [mark]
    (tmp_path / "curve.csv").write_text("iteration,loss\n1,many\n")
    assert health_of(tmp_path) == []
    (tmp_path / "curve.csv").write_text("iteration,loss\n1,\n2,0.5\n")
    assert read_curve(tmp_path / "curve.csv")["loss"][1] == 0.5


def test_the_committed_runs_that_learnt_nothing_are_marked_and_no_other(repository):
    """Pixel contrast mining the hardest tenth of a memory ends above log(1 + N), mostly with all embeddings alike."""
    found = {}
    for path in sorted((repository / "results" / "reference").glob("*/runs/*/*/*/*/seed*/record.json")):
        if marks := health_of(path.parent):
            found[Path(*path.parts[-4:-1]).as_posix()] = [each.mark for each in marks]
    ill = {
        f"lite0_fpn/pixel_contrast_{kind}/seed{seed}": [NOT_LEARNT]
        for kind in ("memory", "synthetic")
        for seed in range(3)
    }
    for name in ("memory/seed1", "synthetic/seed0", "synthetic/seed1", "synthetic/seed2"):
        ill[f"lite0_fpn/pixel_contrast_{name}"].append(COLLAPSED)
    # From scratch (config/diagnosis-cpu.yaml) all collapse, and Contextrast's terms drown cross entropy.
    for seed in range(3):
        for arm in ("pixel_contrast_memory", "memory_late"):
            ill[f"hrnet_tiny/{arm}/seed{seed}"] = [NOT_LEARNT, COLLAPSED]
        for arm in ("contextrast", "contextrast_late"):
            ill[f"hrnet_tiny/{arm}/seed{seed}"] = [DROWNS]
    for seed in (0, 2):
        ill[f"hrnet_tiny/contextrast_coarse/seed{seed}"] = [DROWNS]
    # At the paper's setting Contextrast's gradient is over four times cross entropy's; in the short one, below two.
    for seed in range(2):
        ill[f"lite0_fpn/contextrast/seed{seed}"] = [DROWNS]
    assert found == ill
