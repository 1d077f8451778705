import csv
from dataclasses import replace

import pytest
from run_files import edit

from harness.experiment.run import Run
from harness.reporting.costs.runs import write_runs_table
from harness.runs.record import write_json


@pytest.fixture
def trained(tmp_path):
    """Writes a run's training.json."""

    def write(arm, seed, seconds, kind="cpu", **energy):
        run = Run("trial", "camvid", "lite0_fpn", arm, seed)
        device = {"type": kind, "name": {"cpu": "A processor", "cuda": "A GPU"}[kind], "threads": 2}
        content = {"key": run.key(), "method": "cross_entropy", "settings": {}, "status": "done", "iterations": 10}
        content |= {"seconds": seconds, "energy": energy, "provenance": {"device": device}}
        write_json(run.folder(tmp_path) / "training.json", content)

    return write


def counted(joules, seconds):
    return {"joules": joules, "seconds": seconds, "source": "a counter"}


def read(folder):
    with (folder / "runs.csv").open(newline="") as file:
        rows = {(row["arm"], row["seed"]): row for row in csv.DictReader(file)}
    lines = [line for line in (folder / "runs.md").read_text().splitlines() if line.startswith("| lite0")]
    return rows, [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_hours_are_a_gpus_or_threads_and_energy_is_absent_where_it_was_not_counted(trained, tmp_path):
    trained("plain", 0, 1800)
    trained("plain", 1, 5400)
    trained("contextrast", 0, 7200, "cuda", gpu=counted(7.2e6, 7200))
    rows, lines = read(write_runs_table("trial", tmp_path))
    assert (rows["plain", "0"]["thread_hours"], rows["plain", "0"]["gpu_hours"]) == ("1.0", "")
    assert rows["plain", "0"]["gpu_joules"] == rows["plain", "0"]["processor_joules"] == ""
    assert rows["contextrast", "0"]["gpu_counted_by"] == "a counter"
    assert (rows["contextrast", "0"]["gpu_hours"], rows["contextrast", "0"]["thread_hours"]) == ("2.0", "")
    assert lines == [
        ["lite0\\_fpn, camvid, contextrast", "A GPU", "1", "2", "", "2", ""],
        ["lite0\\_fpn, camvid, plain", "A processor", "2", "", "4", "", ""],
    ]


def test_energy_of_a_part_of_a_run_is_no_sum(trained, tmp_path):
    trained("plain", 0, 1000, processor=counted(3.6e6, 1000))
    trained("plain", 1, 1000, processor=counted(3.6e6, 400))
    rows, lines = read(write_runs_table("trial", tmp_path))
    assert rows["plain", "1"]["processor_counted_seconds"] == "400.0"
    assert lines[0][-1] == ""
    trained("plain", 1, 1000, processor=counted(1.8e6, 1000))
    assert read(write_runs_table("trial", tmp_path))[1][0][-1] == "1.5"


def test_a_run_says_its_gpu_hours_itself_and_a_skipped_one_is_left_out(trained, tmp_path):
    trained("plain", 0, 3600, "cuda")
    run = Run("trial", "camvid", "lite0_fpn", "plain", 0)
    record = edit(run.folder(tmp_path) / "training.json", gpu_hours=4.0)  # of four GPUs
    other = replace(run, seed=1)
    skipped = record.but(key=other, status="skipped", provenance=None, seconds=0.0)
    skipped.save(other.folder(tmp_path) / "training.json")
    rows, lines = read(write_runs_table("trial", tmp_path))
    assert list(rows) == [("plain", "0")] and rows["plain", "0"]["gpu_hours"] == "4.0"
    assert lines == [["lite0\\_fpn, camvid, plain", "A GPU", "1", "4", "", "", ""]]


def test_without_runs_there_is_no_table_and_damaged_ones_are_left_out(trained, tmp_path):
    folder = Run("trial", "camvid", "lite0_fpn", "plain", 0).folder(tmp_path)
    folder.mkdir(parents=True)
    (folder / "training.json").write_text("{")
    assert write_runs_table("trial", tmp_path) is None
    assert not (tmp_path / "reports").exists()
    trained("plain", 1, 1800)
    assert list(read(write_runs_table("trial", tmp_path))[0]) == [("plain", "1")]
