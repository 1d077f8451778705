import numpy as np
import pytest
from run_files import edit

from harness.comparison import cells
from harness.evaluation.counts import Counts
from harness.evaluation.groups import Missing, arm_order, groups, read_record
from harness.statistics.scores import miou_of

RUN = ("scenes", "lite0_fpn")


def brute_force_miou(table: np.ndarray) -> float:
    """Classes without TP, FP and FN are left out."""
    values = []
    for c in range(table.shape[1]):
        hits, false, missed = (sum(int(table[i, c, column]) for i in range(len(table))) for column in range(3))
        if hits + false + missed:
            values.append(100 * hits / (hits + false + missed))
    return sum(values) / len(values)


def all_cells(experiment, results, tables=("region",), protocols=None):
    metrics = list(map(miou_of, tables))
    found = [
        cell for group in groups(experiment, results, tables, protocols) for cell in cells(experiment, group, metrics)
    ]
    return {(cell.dataset, cell.model, cell.protocol, cell.metric, cell.arm): cell for cell in found}


def edit_record(experiment, results, arm, seed, **changes):
    path = experiment.run(*RUN, arm, seed).folder(results) / "record.json"
    edit(path, **changes)


def test_the_baseline_comes_first_and_the_others_keep_their_order(make_experiment):
    assert arm_order(make_experiment()) == ["plain", "rival_one", "cross_entropy"]


def test_means_deviations_and_gains_are_those_of_the_counts(make_experiment, write_all, tmp_path):
    experiment = make_experiment()
    counts = write_all(experiment, tmp_path)
    found = all_cells(experiment, tmp_path, ["region", "boundary@5px"])
    assert len(found) == 2 * 2 * 3
    for (dataset, model, protocol, metric, arm), cell in found.items():
        table = {"miou": "region", "boundary_miou@5px": "boundary@5px"}[metric]

        def scores(of_arm, key=(dataset, model), where=(protocol, table)):
            seeds = (0, 1, 2, 3) if of_arm == "plain" else (0, 1)
            return [brute_force_miou(counts[*key, of_arm, seed].tables[where[0]][where[1]]) for seed in seeds]

        own, baseline = scores(arm), scores("plain")
        assert cell.values == pytest.approx(dict(enumerate(own)), rel=1e-12)
        assert cell.spread.mean == pytest.approx(sum(own) / len(own), rel=1e-12)
        assert cell.spread.sd == pytest.approx(np.std(own, ddof=1), rel=1e-9)
        assert (cell.status, cell.images, cell.baseline_runs) == ("done", 30, 4)
        if arm == "plain":
            assert cell.is_baseline
            assert cell.gain is None
        else:
            difference = sum(own) / 2 - sum(baseline) / 4
            assert cell.gain.difference == pytest.approx(difference, abs=1e-10)
            assert cell.gain.low < difference < cell.gain.high
            assert cell.gain.dof == 1 + 1 + 3


def test_the_rule_for_absent_classes_is_the_experiments(make_experiment, write_all, tmp_path):
    # Three of four classes are there, so that counting the fourth as 0 takes a quarter away.
    skip = make_experiment(seeds=[0])
    write_all(skip, tmp_path)
    zero = make_experiment(seeds=[0], absent="zero")
    key = (*RUN, "whole", "miou", "rival_one")
    with_skip, with_zero = all_cells(skip, tmp_path)[key], all_cells(zero, tmp_path)[key]
    assert with_zero.spread.mean == pytest.approx(0.75 * with_skip.spread.mean, rel=1e-12)
    assert with_zero.gain.difference == pytest.approx(0.75 * with_skip.gain.difference, rel=1e-9)


@pytest.mark.parametrize(
    ("spoil", "status", "reason"),
    [
        (lambda folder: (folder / "record.json").write_text("{"), "unreadable", "record.json is damaged"),
        (lambda folder: (folder / "record.json").write_text('{"schema": 0}'), "unreadable", "another schema"),
        (lambda folder: (folder / "counts.npz").write_bytes(b"PK no"), "unreadable", "counts.npz is not a whole file"),
        (lambda folder: (folder / "counts.npz").unlink(), "unreadable", "counts.npz does not exist"),
        (lambda folder: (folder / "record.json").unlink(), "not run", ""),
        (lambda folder: (folder / "record.json").rename(folder / "training.json"), "not evaluated", ""),
        (
            lambda folder: ((folder / "record.json").unlink(), (folder / "checkpoints").mkdir()),
            "unfinished",
            "",
        ),
    ],
)
def test_a_run_that_cannot_be_read_is_a_hole_with_its_reason(
    make_experiment, write_all, tmp_path, spoil, status, reason
):
    experiment = make_experiment(seeds=[0], protocols=["whole"])
    write_all(experiment, tmp_path)
    spoil(experiment.run(*RUN, "rival_one", 0).folder(tmp_path))
    found = all_cells(experiment, tmp_path)
    hole = found[*RUN, "whole", "miou", "rival_one"]
    assert hole.spread is None
    assert hole.gain is None
    assert hole.status == status
    assert reason in hole.note
    assert found[*RUN, "whole", "miou", "cross_entropy"].gain is not None


def test_a_diverged_seed_leaves_a_partial_cell_that_says_so(make_experiment, write_all, write_run, tmp_path):
    experiment = make_experiment(seeds=[0, 1, 2])
    write_all(experiment, tmp_path)
    write_run(
        experiment, tmp_path, "rival_one", 1, status="diverged", reason="the loss is not finite\nat iteration 120"
    )
    cell = all_cells(experiment, tmp_path)[*RUN, "whole", "miou", "rival_one"]
    assert cell.status == "partial"
    assert sorted(cell.values) == [0, 2]
    assert (cell.spread.runs, cell.asked) == (2, 3)
    assert cell.note == "seed 1 diverged: the loss is not finite at iteration 120"
    assert cell.gain.low is not None


def test_without_the_baseline_there_is_a_mean_and_no_difference(make_experiment, write_run, tmp_path):
    experiment = make_experiment(seeds=[0])
    write_run(experiment, tmp_path, "rival_one", 0)
    cell = all_cells(experiment, tmp_path)[*RUN, "whole", "miou", "rival_one"]
    assert cell.spread is not None
    assert cell.gain is None
    assert cell.note == "the baseline has no run"


def test_an_empty_results_folder_gives_holes_only(make_experiment, tmp_path):
    found = all_cells(make_experiment(), tmp_path)
    assert {cell.status for cell in found.values()} == {"not run"}
    assert {cell.images for cell in found.values()} == {0}


def test_a_record_made_with_other_settings_is_not_shown_as_this_experiments(make_experiment, write_all, tmp_path):
    write_all(make_experiment(), tmp_path)
    schedule = {"iterations": 400, "batch": 2, "crop": [32, 32], "learning_rate": 0.1}
    experiment = make_experiment(schedule=schedule)
    found = read_record(experiment, experiment.run(*RUN, "plain", 0), tmp_path)
    assert found == Missing("stale", "schedule.iterations (50 there, 400 asked)")


def test_a_record_outlives_settings_that_it_does_not_know_and_changed_source(make_experiment, write_all, tmp_path):
    experiment = make_experiment()
    write_all(experiment, tmp_path)
    settings = experiment.settings(experiment.run(*RUN, "plain", 0))
    del settings["schedule"]["power"]
    edit_record(experiment, tmp_path, "plain", 0, settings=settings | {"method_source": "of another day"})
    found = read_record(experiment, experiment.run(*RUN, "plain", 0), tmp_path)
    assert not isinstance(found, Missing)


def test_a_record_with_former_names_of_options_is_read_as_if_it_had_the_current_ones(
    make_experiment, write_all, tmp_path
):
    arms = {"plain": {"method": "cross_entropy"}, "rival_one": {"method": "contextrast", "weight": 0.25}}
    experiment = make_experiment(arms=arms)
    write_all(experiment, tmp_path)
    run = experiment.run(*RUN, "rival_one", 0)
    settings = experiment.settings(run)
    for weight, found in ((settings["options"].pop("weight"), None), (0.5, "options.weight (0.5 there, 0.25 asked)")):
        old = settings | {"options": settings["options"] | {"alpha": weight}}
        edit_record(experiment, tmp_path, "rival_one", 0, settings=old)
        record = read_record(experiment, run, tmp_path)
        assert record == Missing("stale", found) if found else not isinstance(record, Missing)


def test_images_are_paired_by_name_and_not_by_place(make_experiment, write_all, tmp_path):
    experiment = make_experiment(protocols=["whole"])
    counts = write_all(experiment, tmp_path)
    key = (*RUN, "whole", "miou", "rival_one")
    before = all_cells(experiment, tmp_path)[key].gain
    assert before.low is not None
    turned = counts[*RUN, "rival_one", 0]
    turned.select(turned.image_ids[::-1]).save(experiment.run(*RUN, "rival_one", 0).folder(tmp_path) / "counts.npz")
    assert all_cells(experiment, tmp_path)[key].gain == before


def test_runs_on_other_images_are_not_compared(make_experiment, write_all, tmp_path):
    experiment = make_experiment(seeds=[0], protocols=["whole"])
    counts = write_all(experiment, tmp_path)
    fewer = counts[*RUN, "rival_one", 0]
    fewer.select(fewer.image_ids[1:]).save(experiment.run(*RUN, "rival_one", 0).folder(tmp_path) / "counts.npz")
    assert all_cells(experiment, tmp_path)[*RUN, "whole", "miou", "rival_one"].status == "other images"


def test_runs_on_other_data_are_not_compared(make_experiment, write_all, tmp_path):
    experiment = make_experiment(seeds=[0], protocols=["whole"])
    write_all(experiment, tmp_path)
    for arm, data in (("plain", "a" * 64), ("cross_entropy", "b" * 64), ("rival_one", None)):  # None: nobody knows
        path = experiment.run("scenes", "lite0_fpn", arm, 0).folder(tmp_path) / "record.json"
        edit(path, provenance={"data_fingerprint": data})
    (group,) = groups(experiment, tmp_path, ["region"])
    found = {cell.arm: cell for cell in cells(experiment, group, [miou_of("region")])}
    assert found["cross_entropy"].missing[0].status == "other data"
    assert found["cross_entropy"].gain is None
    assert found["rival_one"].gain is not None


def test_a_protocol_that_was_not_evaluated_is_a_hole_of_that_protocol_alone(make_experiment, write_all, tmp_path):
    experiment = make_experiment(seeds=[0])
    counts = write_all(experiment, tmp_path)[*RUN, "plain", 0]
    path = experiment.run(*RUN, "plain", 0).folder(tmp_path) / "counts.npz"
    Counts(counts.image_ids, counts.classes, {"whole": counts.tables["whole"]}).save(path)
    found = all_cells(experiment, tmp_path)
    assert found[*RUN, "whole", "miou", "plain"].status == "done"
    assert found[*RUN, "ms_flip", "miou", "plain"].status == "not evaluated"
    assert found[*RUN, "ms_flip", "miou", "plain"].note == "seed 0 not evaluated: ms_flip was left out"


def test_a_note_says_each_reason_once(make_experiment, write_run, tmp_path):
    experiment = make_experiment(seeds=[0, 1, 2, 3])
    write_run(experiment, tmp_path, "rival_one", 2, status="diverged", reason="the loss is not finite")
    found = all_cells(experiment, tmp_path)[*RUN, "whole", "miou", "rival_one"]
    assert found.note == "seed 0, 1, 3 not run; seed 2 diverged: the loss is not finite"


def test_images_of_a_video_are_resampled_in_blocks(make_experiment, write_all, tmp_path):
    experiment = make_experiment(datasets=["camvid", "scenes"], seeds=[0], protocols=["whole"])
    write_all(experiment, tmp_path)
    units = {
        dataset: cell.unit for (dataset, *_, arm), cell in all_cells(experiment, tmp_path).items() if arm == "rival_one"
    }
    assert units == {"camvid": "block of 10 frames", "scenes": "image"}


def test_a_single_run_has_a_gain_and_no_interval(make_experiment, write_all, tmp_path):
    experiment = make_experiment(seeds=[0])
    write_all(experiment, tmp_path)
    cell = all_cells(experiment, tmp_path)[*RUN, "whole", "miou", "rival_one"]
    assert cell.gain.difference != 0
    assert (cell.gain.low, cell.excludes_zero) == (None, False)
    assert "no interval from a single run" in cell.note


def test_a_run_of_earlier_code_that_was_kept_says_so_in_the_table(make_experiment, write_all, tmp_path):
    experiment = make_experiment(seeds=[0, 1], baseline_seeds=2)
    write_all(experiment, tmp_path, device="CPU")
    edit_record(experiment, tmp_path, "rival_one", 1, kept_for_source="1" * 64)
    notes = {key[-1]: cell.note for key, cell in all_cells(experiment, tmp_path).items()}
    assert "seed 1 by an earlier version of the method's code, kept" in notes.pop("rival_one")
    assert not any("earlier" in note for note in notes.values())
