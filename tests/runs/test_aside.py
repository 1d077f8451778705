"""Runs that a changed method makes stale: kept on the user's word, which their records repeat."""

import pytest
from run_files import leave_files, make_record
from typer.testing import CliRunner

from harness.cli import app
from harness.experiment.schema import Experiment, discovery
from harness.runs.aside import keep
from harness.runs.record import RECORD, TRAINING, Record
from harness.runs.state import Missing, read_record, work_left

EARLIER, LATER = "1" * 64, "2" * 64


@pytest.fixture
def config(experiment_file):
    return experiment_file(protocols=["whole"])


@pytest.fixture
def stale(config, tmp_path):
    """A finished run of each arm, made by earlier code; that of cross entropy also with another batch size."""
    experiment = Experiment.load(config)
    runs = experiment.runs()
    for run in runs:
        settings = {"method_source": EARLIER}
        if run.arm == "cross_entropy":
            settings["schedule"] = experiment.settings(run)["schedule"] | {"batch": 99}
        for name in (TRAINING, RECORD):
            provenance = {"commit": "c" * 40, "dirty": False}
            make_record(experiment, run, settings=settings, provenance=provenance).save(run.folder(tmp_path) / name)
        leave_files(run.folder(tmp_path))
    return experiment, {run.arm: run for run in runs}


def test_only_a_change_of_code_is_kept_and_only_until_the_next(stale, config, tmp_path, monkeypatch):
    experiment, runs = stale
    run = runs["contextrast"]
    assert {work_left(experiment, each, tmp_path) for each in runs.values()} == {"train"}
    said = CliRunner().invoke(app, ["stale", "--keep", str(config), "--results", str(tmp_path)]).output
    assert "1 of 2 stale runs" in said and "not kept: schedule.batch" in said
    assert work_left(experiment, run, tmp_path) == "" and isinstance(read_record(experiment, run, tmp_path), Record)
    assert read_record(experiment, runs["cross_entropy"], tmp_path).status == "stale"
    for name in (TRAINING, RECORD):
        record = Record.load(run.folder(tmp_path) / name)
        assert record.settings["method_source"] == EARLIER  # what made it
        assert record.kept_for_source == discovery.source_fingerprint("contextrast")
    for source, counts in ((LATER, False), (EARLIER, True)):  # the code that made it needs no word
        monkeypatch.setattr(discovery, "source_fingerprint", lambda method, source=source: source)
        assert isinstance(read_record(experiment, run, tmp_path), Missing) != counts


def test_a_kept_run_is_not_set_aside_by_a_training(stale, tmp_path):
    from harness.training.train import _why_not_continued

    experiment, runs = stale
    run = runs["contextrast"]
    asked, folder = experiment.settings(run), run.folder(tmp_path)
    assert "methods/contextrast.py has changed" in _why_not_continued(folder, asked, restart=False)
    keep(experiment, tmp_path)
    assert _why_not_continued(folder, asked, restart=False) == ""


@pytest.mark.parametrize("name", [TRAINING, RECORD])
def test_a_run_without_a_result_is_not_kept(stale, tmp_path, name):
    experiment, runs = stale
    run = runs["contextrast"]
    for each in (TRAINING, RECORD):
        (run.folder(tmp_path) / each).unlink()
    settings = {"method_source": EARLIER}
    make_record(experiment, run, "failed", settings, reason="a defect").save(run.folder(tmp_path) / name)
    assert keep(experiment, tmp_path)[run] == ["it is not done"]
