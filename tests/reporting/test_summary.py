"""The last screen: what came out, where it is, what to type next; and whether a report is of today's records."""

import pytest
from run_files import make_record

from harness.experiment.schema import Experiment
from harness.reporting import made_from
from harness.reporting.summary import summary
from harness.runs.record import Mark


@pytest.fixture
def experiment(experiment_file):
    return Experiment.load(experiment_file(seeds=[0, 1], baseline_seeds=2, protocols=["whole"]))


def leave(experiment, results, arm, seed, miou=None, **more):
    run = experiment.run("scenes", "hrnet_tiny", arm, seed)
    scores = {} if miou is None else {"whole": {"miou": miou}}
    make_record(experiment, run, scores=scores, **more).save(run.folder(results) / "record.json")
    (run.folder(results) / "counts.npz").touch()


def lines(experiment, results):
    return summary(experiment, results / "tiny.yaml", results).splitlines()


def test_it_shows_means_gains_and_what_is_missing(experiment, tmp_path):
    for seed, miou in enumerate((40.0, 42.0)):
        leave(experiment, tmp_path, "cross_entropy", seed, miou)
    leave(experiment, tmp_path, "contextrast", 0, 43.5)
    leave(experiment, tmp_path, "contextrast", 1, status="failed", reason="out of luck")
    said = lines(experiment, tmp_path)
    assert said[2].split() == ["Cross", "entropy", "41.00", "2", "of", "2"]
    assert said[3].split() == ["Contextrast", "43.50", "+2.50", "1", "of", "2", "failed:", "out", "of", "luck"]
    assert "harness status " in said[-1]
    assert "none yet" in said[-2]


def test_a_run_without_its_counts_has_no_score_here_as_in_the_tables(experiment, tmp_path):
    for seed in (0, 1):
        leave(experiment, tmp_path, "contextrast", seed, 43.5)
    next(tmp_path.rglob("contextrast/seed1/counts.npz")).unlink()
    assert lines(experiment, tmp_path)[3].endswith("1 of 2  unreadable: counts.npz is missing")


def test_an_arm_that_is_ill_is_called_so(experiment, tmp_path):
    collapsed = Mark("collapsed", 0.95, 0.9)
    leave(experiment, tmp_path, "contextrast", 0, 43.5, health=[collapsed])
    leave(experiment, tmp_path, "contextrast", 1, 43.5, health=[])
    assert lines(experiment, tmp_path)[3].endswith("2 of 2  collapsed (1 of 2 runs)")


def test_a_demonstration_says_so_and_a_finished_experiment_names_its_page(experiment_file, tmp_path):
    shown = Experiment.load(experiment_file(demonstration=True, seeds=[0], protocols=["whole"]))
    for arm in shown.arms:
        leave(shown, tmp_path, arm, 0, 40.0)
    page = tmp_path / "reports" / "tiny" / "report.html"
    page.parent.mkdir(parents=True)
    page.touch()
    said = "\n".join(lines(shown, tmp_path))
    assert "demonstration: 1 seed, rendered scenes, 10 iterations" in said
    assert page.as_uri() in said
    assert "new-method" in said


def test_a_report_is_current_until_the_experiment_or_a_record_changes(experiment, experiment_file, tmp_path):
    leave(experiment, tmp_path, "cross_entropy", 0, 40.0)
    assert not made_from.is_current(experiment, tmp_path)
    made_from.note(experiment, tmp_path)
    assert made_from.is_current(experiment, tmp_path)
    assert not made_from.is_current(Experiment.load(experiment_file(seeds=[0], protocols=["whole"])), tmp_path)
    leave(experiment, tmp_path, "cross_entropy", 0, 41.0)
    assert not made_from.is_current(experiment, tmp_path)
    made_from.note(experiment, tmp_path)
    leave(experiment, tmp_path, "contextrast", 0, 41.0)
    assert not made_from.is_current(experiment, tmp_path)
