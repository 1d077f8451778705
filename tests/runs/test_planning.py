import csv
import json
import subprocess
import sys
from dataclasses import replace
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_files import edit, leave_files, make_record

from harness.errors import UserError
from harness.experiment.schema import Experiment
from harness.runs.planning import (
    CHECKPOINTS,
    CORE_FLOPS,
    COST_TABLE,
    PlannedRun,
    describe,
    measured_times,
    plan,
    summary,
    time_limit,
    trained_records,
)
from harness.runs.record import Record

GPU, CPU = {"type": "cuda", "name": "GPU"}, {"type": "cpu", "name": "CPU"}
COSTS = """model,method,dataset,size,inference_parameters,training_parameters,gmacs
hrnet_tiny,cross_entropy,cityscapes,64x64,1000,1000,2.0
hrnet_tiny,contextrast,cityscapes,64x64,1000,1500,2.0
hrnet_tiny,cross_entropy,scenes,16x32,900,900,7.0
hrnet_tiny,contextrast,scenes,16x32,900,1400,7.0
"""


@pytest.fixture
def experiment(experiment_file):
    return Experiment.load(experiment_file(seeds=[0, 1], baseline_seeds=2))


@pytest.fixture
def costs(tmp_path):
    path = tmp_path / "cost.csv"
    path.write_text(COSTS)
    return path


def record(experiment, run, name, results, *, seconds=100.0, device=GPU, status="done", energy=None, **settings):
    """Write training.json or record.json of a run as training and evaluation do."""
    known = {"seconds": seconds, "energy": energy or {}, "provenance": {"device": device}}
    make_record(experiment, run, status, settings, **known).save(run.folder(results) / f"{name}.json")
    leave_files(run.folder(results))


def statuses(experiment, results):
    return {(row.arm, row.seed): row.status for row in plan(experiment, results)}


def test_the_papers_grid_is_planned_without_torch(repository, tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from harness.experiment.schema import Experiment;"
        "from harness.runs import planning;"
        f"rows = planning.plan(Experiment.load(Path('config/paper.yaml')), Path({str(tmp_path)!r}));"
        "print(len(rows), len(planning.describe(rows).splitlines()), 'torch' in sys.modules);"
        "print(time.process_time())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    runs, lines, torch, seconds = done.stdout.split()
    assert float(seconds) < 5  # of the processor, however busy the machine is
    assert int(runs) == len(Experiment.load(repository / "config" / "paper.yaml").runs())
    assert int(lines) > int(runs)
    assert torch == "False"


def test_every_pair_of_the_papers_grid_is_in_the_cost_table(repository):
    experiment = Experiment.load(repository / "config" / "paper.yaml")
    with COST_TABLE.open(newline="") as file:
        known = {(row["dataset"], row["model"], row["size"]) for row in csv.DictReader(file)}
    crops = {pair: experiment.schedule_of(*pair).crop for pair in experiment.pairs()}
    assert {(*pair, f"{height}x{width}") for pair, (height, width) in crops.items()} <= known


def test_the_estimate_gives_the_published_time_of_the_network_it_was_made_from(repository, tmp_path):
    rows = plan(Experiment.load(repository / "config" / "paper.yaml"), tmp_path)
    with (repository / "results" / "published" / "cost_cityscapes.csv").open(newline="") as file:
        published = {(row["model"], row["method"], row["metric"]): float(row["value"]) for row in csv.DictReader(file)}
    found = next(row for row in rows if (row.dataset, row.model, row.arm) == ("cityscapes", "hrnet_w48", "contextrast"))
    assert found.hours == pytest.approx(published["hrnet_w48", "cross_entropy", "training_time_h"], rel=0.01)
    assert found.hours_from.startswith("estimated for a GPU of 11.2 TFLOPS")


def test_a_run_is_done_unfinished_or_made_with_other_settings(experiment, tmp_path):
    assert set(statuses(experiment, tmp_path).values()) == {"not run"}
    first, second, third, fourth = experiment.runs()
    record(experiment, first, "training", tmp_path)
    record(experiment, first, "record", tmp_path)
    record(experiment, second, "training", tmp_path)
    (third.folder(tmp_path) / "checkpoints").mkdir(parents=True)
    record(experiment, fourth, "training", tmp_path, seed=9)
    wanted = ["done", "not evaluated", "unfinished", "stale"]
    assert list(statuses(experiment, tmp_path).values()) == wanted
    assert "seed (9 there, 1 asked)" in plan(experiment, tmp_path)[3].reason
    record(experiment, third, "record", tmp_path, status="diverged")
    record(experiment, fourth, "record", tmp_path, options={"weight": 0.7})
    assert list(statuses(experiment, tmp_path).values()) == ["done", "not evaluated", "diverged", "stale"]
    (second.folder(tmp_path) / "training.json").write_text("{")
    assert statuses(experiment, tmp_path)[second.arm, second.seed] == "unreadable"
    whole = summary(plan(experiment, tmp_path))
    assert (whole["runs"], whole["to_train"], sum(whole["statuses"].values())) == (4, 2, 4)


def test_a_skipped_run_is_left_to_train_when_its_data_are_there(experiment_file, tmp_path, monkeypatch):
    monkeypatch.delenv("CAMVID_ROOT", raising=False)
    absent = Experiment.load(experiment_file("absent", datasets=["camvid"], arms={"cross_entropy": {}}, seeds=[0]))
    rendered = Experiment.load(experiment_file("rendered", arms={"cross_entropy": {}}, seeds=[0]))
    for experiment in (absent, rendered):
        run = experiment.runs()[0]
        make_record(experiment, run, "skipped", reason="no root").save(run.folder(tmp_path) / "training.json")
    assert [row.status for row in plan(absent, tmp_path)] == ["skipped"]
    assert [(row.status, row.reason) for row in plan(rendered, tmp_path)] == [("not run", "")]


def test_the_baselines_further_seeds_are_counted(experiment_file, tmp_path):
    rows = plan(Experiment.load(experiment_file(seeds=[0, 1])), tmp_path)
    assert [(row.arm, row.seed) for row in rows if row.seed > 1] == [("cross_entropy", 2), ("cross_entropy", 3)]
    assert summary(rows)["to_train"] == 6


def test_hours_are_measured_on_the_same_model_crop_batch_and_precision(experiment, experiment_file, costs, tmp_path):
    def hours(asked):
        return {row.arm: (row.hours, row.hours_from) for row in plan(asked, tmp_path, costs)}

    baseline, rival = experiment.runs()[:2]
    record(experiment, baseline, "training", tmp_path, seconds=50.0, device=CPU)
    # 10 iterations in 50 s; what a method takes of its own is not known yet.
    assert hours(experiment) == {arm: (pytest.approx(50 / 3600), "measured on CPU") for arm in experiment.arms}
    record(experiment, baseline, "training", tmp_path, seconds=5.0)
    record(experiment, rival, "record", tmp_path, seconds=8.0)
    measured = {"cross_entropy": 5, "contextrast": 8}
    assert hours(experiment) == {arm: (pytest.approx(s / 3600), "measured on GPU") for arm, s in measured.items()}
    longer = Experiment.load(experiment_file(), ["schedule.iterations=1000"])
    assert hours(longer)["contextrast"][0] == pytest.approx(800 / 3600)
    for change in ("schedule.batch=4", "schedule.crop=[64, 32]", "schedule.precision=bfloat16"):
        assert "estimated" in hours(Experiment.load(experiment_file(), [change]))["contextrast"][1]


def test_a_gpus_time_counts_before_a_cpus_and_the_median_of_several(experiment, tmp_path):
    for run, seconds, device in zip(experiment.runs(), (90, 5, 90, 7), (CPU, GPU, CPU, GPU), strict=True):
        record(experiment, run, "training", tmp_path, seconds=float(seconds), device=device)
    # The baseline was measured on the CPU alone, its rival on the GPU alone.
    found = {row.arm: (row.hours, row.hours_from) for row in plan(experiment, tmp_path)}
    assert found["contextrast"] == (pytest.approx(6 / 3600), "measured on GPU")
    assert found["cross_entropy"] == (pytest.approx(90 / 3600), "measured on CPU")
    # Asked for one kind of device, a time measured on the other says nothing.
    for on_gpu, seconds, device in ((True, 6, "GPU"), (False, 90, "CPU")):
        found = plan(experiment, tmp_path, on_gpu=on_gpu)
        assert {row.hours_from for row in found} == {f"measured on {device}"}
        assert [row.hours for row in found] == [pytest.approx(seconds / 3600)] * len(found)


def test_records_without_a_time_to_learn_from_are_passed_over(experiment, tmp_path):
    """An arm whose predictions were made elsewhere has no schedule; a failed run's time says nothing."""
    external, failed = experiment.runs()[:2]
    settings = {"method": "external"}
    Record(key=external, method="external", status="done", settings=settings).save(
        external.folder(tmp_path) / "record.json"
    )
    record(experiment, failed, "training", tmp_path, status="failed")
    assert measured_times(trained_records(tmp_path)) == {}


def test_estimates_follow_from_the_multiply_adds(experiment_file, costs, tmp_path):
    experiment = Experiment.load(experiment_file())  # 10 iterations of batch 2, crop 32x32
    row = plan(experiment, tmp_path, costs)[0]
    gmacs = 7.0 * (32 * 32) / (16 * 32)  # the same data set's, in proportion to the pixels
    assert row.hours == pytest.approx(10 * 2 * 3 * 2 * gmacs * 1e9 / 11.2e12 / 3600)
    missing = plan(experiment, tmp_path, tmp_path / "none.csv")[0]
    assert (missing.hours, missing.hours_from, missing.disk_bytes) == (None, "", None)
    assert "unknown length" in describe([missing])
    assert "memory of a GPU, for the run that needs most: unknown" in describe([missing])


def test_the_disk_holds_weights_and_checkpoints_with_the_optimisers_moments(experiment_file, costs, tmp_path):
    def bytes_of(*changes):
        rows = plan(Experiment.load(experiment_file(), list(changes)), tmp_path, costs)
        return {row.arm: row.disk_bytes for row in rows}

    from harness.training.checkpoint import KEPT

    assert KEPT == CHECKPOINTS == 2
    assert bytes_of() == {"cross_entropy": 4 * (900 + 2 * 2 * 900), "contextrast": 4 * (900 + 2 * 2 * 1400)}
    assert bytes_of("schedule.optimizer=adamw")["contextrast"] == 4 * (900 + 2 * 3 * 1400)
    assert bytes_of("schedule.momentum=0")["contextrast"] == 4 * (900 + 2 * 1 * 1400)


def test_memory_is_that_of_the_published_network_it_was_estimated_from(repository, experiment_file, costs, tmp_path):
    rows = plan(Experiment.load(repository / "config" / "paper.yaml"), tmp_path)
    with (repository / "results" / "published" / "cost_cityscapes.csv").open(newline="") as file:
        published = {(row["model"], row["method"], row["metric"]): float(row["value"]) for row in csv.DictReader(file)}
    named = {row.arm: row for row in rows if (row.dataset, row.model) == ("cityscapes", "hrnet_w48")}
    mebibytes = published["hrnet_w48", "cross_entropy", "training_memory_MiB"]
    assert named["cross_entropy"].gpu_bytes == pytest.approx(mebibytes * 2**20, rel=0.005)
    # Weights, gradients, two moments; 7 G multiply-adds at 16x32, here 32x32 and two images.
    asked = Experiment.load(experiment_file(), ["schedule.optimizer=adamw"])
    found = {row.arm: row.gpu_bytes for row in plan(asked, tmp_path, costs)}
    activations = 0.0181 * 2 * 14e9
    assert found["cross_entropy"] == pytest.approx(4 * 4 * 900 + activations, abs=1)
    assert found["contextrast"] == pytest.approx(4 * 4 * 1400 + activations, abs=1)


def test_measured_memory_and_power_replace_the_estimates(experiment, costs, tmp_path):
    record(experiment, experiment.runs()[0], "training", tmp_path, seconds=7200.0)
    before = {row.arm: row for row in plan(experiment, tmp_path, costs)}
    assert before["cross_entropy"].kwh == pytest.approx(2 * 0.4)  # two hours at 400 W
    folder = tmp_path / "cost" / "training" / "gpu"
    folder.mkdir(parents=True)
    setting = {"model": "hrnet_tiny", "size": [32, 32], "batch": 2, "precision": "float32"}
    arms = {"contextrast": {"peak_bytes": 123}}
    measured = {"setting": setting, "machine": "GPU", "arms": arms, "energy_joules": {"gpu": 5000.0}}
    (folder / "a.json").write_text(json.dumps(measured | {"energy_seconds": 20.0}))
    (folder / "b.json").write_text(json.dumps(measured | {"setting": setting | {"batch": 4}, "energy_joules": {}}))
    (folder / "c.json").write_text('{"setting": 1}')
    (folder / "d.json").write_text("[")
    after = {row.arm: row for row in plan(experiment, tmp_path, costs)}
    assert after["contextrast"].gpu_bytes == 123
    assert after["cross_entropy"].gpu_bytes == before["cross_entropy"].gpu_bytes
    assert after["cross_entropy"].kwh == pytest.approx(2 * 0.25)  # 5000 J in 20 s
    whole = summary(list(after.values()))
    left = [row for row in after.values() if row.status in ("not run", "unfinished")]
    assert whole["kwh"] == pytest.approx(sum(row.kwh for row in left))
    assert whole["gpu_bytes"] == max(row.gpu_bytes for row in left)


def test_a_runs_own_memory_goes_before_what_was_measured_of_its_setting(experiment, costs, tmp_path):
    first, second = experiment.runs()[:2]
    for run, peak in ((first, 700), (second, 600)):
        record(experiment, run, "training", tmp_path)
        edit(run.folder(tmp_path) / "training.json", provenance={"device": GPU, "gpu_bytes": peak})
    folder = tmp_path / "cost" / "training" / "gpu"
    folder.mkdir(parents=True)
    setting = {"model": "hrnet_tiny", "size": [32, 32], "batch": 2, "precision": "float32"}
    measured = {"setting": setting, "machine": "GPU", "arms": {"cross_entropy": {"peak_bytes": 5}}}
    (folder / "a.json").write_text(json.dumps(measured | {"energy_joules": {}}))
    found = {row.arm: (row.gpu_bytes, row.gpu_bytes_measured) for row in plan(experiment, tmp_path, costs)}
    assert found == {"cross_entropy": (700, True), "contextrast": (600, True)}


def test_steps_measured_on_a_gpu_give_the_hours_of_a_first_run(experiment, tmp_path):
    setting = {"model": "hrnet_tiny", "size": [32, 32], "batch": 2, "precision": "float32"}
    measured = {"setting": setting, "machine": "GPU X", "provenance": {"device": {"type": "cuda"}}}
    arms = {name: {"nanoseconds": [[s * 1e9, 9e9]] * 3, "peak_bytes": 1} for name, s in (("contextrast", 3),)}
    folder = tmp_path / "cost" / "training" / "gpu"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text(json.dumps(measured | {"arms": arms, "energy_joules": {}}))
    assert plan(experiment, tmp_path)[0].hours_from != "measured on GPU X"  # on labels that no data set has
    (folder / "a.json").write_text(json.dumps(measured | {"arms": arms, "energy_joules": {}, "labels": "cells"}))
    assert {row.arm: (row.hours, row.hours_from) for row in plan(experiment, tmp_path)} == dict.fromkeys(
        ("cross_entropy", "contextrast"), (pytest.approx(10 * 6 / 3600), "measured on GPU X")
    )
    pieces = {"method/hrnet_tiny/float32/contextrast": {"measured": {"setting": setting, "ms": {"cross_entropy": 500}}}}
    pieces["floors"] = {"measured": {}}
    bench = {"machine": "GPU X", "provenance": {"device": {"type": "cuda"}}, "pieces": pieces}
    (tmp_path / "cost" / "gpu").mkdir()
    (tmp_path / "cost" / "gpu" / "x.json").write_text(json.dumps(bench))
    hours = {row.arm: row.hours for row in plan(experiment, tmp_path)}
    assert hours["cross_entropy"] == pytest.approx(10 * 0.5 / 3600)
    record(experiment, experiment.runs()[0], "training", tmp_path, seconds=20.0, device=GPU | {"sharers": 4})
    shared = {row.arm: row.hours for row in plan(experiment, tmp_path)}
    assert shared["cross_entropy"] == pytest.approx(10 * 0.5 / 3600)  # that of a GPU alone


def test_the_power_of_earlier_runs_is_that_of_their_own_device(experiment, tmp_path):
    one, two = experiment.runs()[:2]
    counted = {"gpu": {"joules": 30_000.0, "seconds": 100.0}, "processor": {"joules": 1.0, "seconds": 100.0}}
    record(experiment, one, "training", tmp_path, seconds=3600.0, energy=counted)
    assert plan(experiment, tmp_path)[0].kwh == pytest.approx(0.3)  # an hour at 300 W
    for energy, kwh in (({}, None), ({"processor": {"joules": 5000.0, "seconds": 100.0}}, pytest.approx(0.05))):
        for run in (one, two):
            record(experiment, run, "training", tmp_path, seconds=3600.0, device=CPU, energy=energy)
        assert plan(experiment, tmp_path)[0].kwh == kwh


def test_a_schedulers_limit_is_the_planned_time_with_a_margin():
    assert time_limit(replace(ROW, hours=2.0, hours_from="measured on GPU")) == 30 + 180
    assert time_limit(replace(ROW, hours=2.0, hours_from="estimated for a GPU of 11.2 TFLOPS")) == 30 + 480
    assert time_limit(replace(ROW, hours=0.001, hours_from="measured on GPU")) == 31  # whole minutes, rounded up
    assert time_limit(replace(ROW, hours=None, hours_from="")) == 24 * 60


ROW = PlannedRun("scenes", "hrnet_tiny", "a", "a", 0, 1, 1, "8x8", "not run", "", 1.0, "here", 10)
hours = st.lists(st.floats(0, 100), min_size=1, max_size=12)


@given(hours, st.integers(1, 5))
def test_wall_time_is_that_of_gpus_that_take_the_next_run_when_free(lengths, gpus):
    rows = [replace(ROW, hours=length) for length in lengths]
    ends = [0.0] * gpus  # written out: the GPU that is free first takes the next run
    for length in lengths:
        ends[ends.index(min(ends))] += length
    whole = summary(rows, gpus)
    assert whole["wall_hours"] == pytest.approx(max(ends))
    assert whole["hours"] == {"here": pytest.approx(sum(lengths))}
    assert whole["disk_bytes"] == 10 * len(rows)


def test_what_is_done_needs_no_more_time_or_room():
    whole = summary([ROW, replace(ROW, status="done"), replace(ROW, status="unfinished", hours=2.0)], 2)
    assert (whole["to_train"], whole["wall_hours"], whole["hours"], whole["disk_bytes"]) == (2, 2.0, {"here": 3.0}, 20)
    assert whole["statuses"] == {"not run": 1, "done": 1, "unfinished": 1}
    with pytest.raises(UserError, match="--gpus"):
        summary([ROW], 0)


def test_the_text_lists_every_run_with_its_settings():
    text = describe([replace(ROW, kwh=2.5), replace(ROW, arm="b", seed=7, status="done")], 3)
    whole, _, runs = text.partition("\n\n")  # what it comes to stands first
    assert whole.startswith("2 runs: 1 not run, 1 done\nto train: 1.0 h here\n")
    lines = runs.splitlines()
    assert lines[1].split() == ["scenes", "hrnet_tiny", "a", "0", "1", "1", "8x8", "1.0", "h", "not", "run"]
    assert lines[2].split()[2:4] == ["b", "7"]
    assert "1.0 h here" in text
    assert "3 at a time" in text
    assert "energy of the GPUs: 2 kWh\n" in text
    assert describe([replace(ROW, status="done")]).splitlines()[1] == "nothing is left to train"
    assert "energy" not in describe([ROW])  # nothing is known of a processor's
    assert "memory of a GPU" in text


@pytest.mark.parametrize(
    ("hours", "said"),
    [(0, "0 min"), (0.01, "under 1 min"), (0.2, "12 min"), (0.99, "59 min"), (1.54, "1.5 h"), (31.4, "31 h")],
)
def test_a_short_time_does_not_look_like_none(hours, said):
    lines = describe([replace(ROW, hours=hours)]).splitlines()
    assert lines[-1].split("8x8")[1].rpartition("not run")[0].strip() == said
    assert f"to train: {said} here" in lines
    assert f"wall time, 1 at a time: {said}" in lines


def test_without_a_gpu_the_estimate_is_for_a_core_and_says_nothing_about_gpus(experiment, costs, tmp_path):
    found, on_gpu = (plan(experiment, tmp_path, costs, on_gpu=given) for given in (False, True))
    assert found[0].hours == pytest.approx(on_gpu[0].hours * 11.2e12 / 40e9)
    text = describe(found, 2, on_gpu=False)
    assert "estimated for a processor core" in text
    assert "GPU" not in text


def test_the_speed_of_a_core_is_that_of_the_committed_runs(repository):
    """Cross entropy on one thread: 3 passes, 2 FLOPs a multiply-add."""
    times = measured_times(trained_records(repository / "results/reference/epyc"))
    seconds = median(each.seconds for each in times["lite0_fpn", "180x240", 8, "float32"]["cross_entropy"])
    with COST_TABLE.open(newline="") as file:
        row = next(row for row in csv.DictReader(file) if (row["model"], row["size"]) == ("lite0_fpn", "512x1024"))
    gmacs = float(row["gmacs"]) * (180 * 240) / (512 * 1024)
    assert pytest.approx(3 * 2 * gmacs * 1e9 * 8 / seconds, rel=0.02) == CORE_FLOPS


def test_an_estimate_says_beside_its_figure_that_it_is_a_gpus_and_nothing_was_measured(experiment, costs, tmp_path):
    def lines(beginning):
        return [line for line in describe(plan(experiment, tmp_path, costs)).splitlines() if line.startswith(beginning)]

    (line,) = lines("to train")
    for words in ("estimated for a GPU of 11.2 TFLOPS", "no such run was measured"):
        assert words in line
    assert all("estimated" in line for line in lines("wall time") + lines("energy"))
    assert lines("energy") == ["energy of the GPUs: under 1 Wh (estimated)"]
    assert not any(" 0 " in line for line in lines("disk") + lines("memory"))
    record(experiment, experiment.runs()[0], "training", tmp_path, device=CPU)
    (line,) = lines("to train")
    assert "measured on CPU" in line
    assert "estimated" not in describe(plan(experiment, tmp_path, costs))
