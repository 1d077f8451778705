import shutil

import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.compute.machine import Machine
from harness.errors import UserError
from harness.evaluation.evaluate import evaluate
from harness.experiment.schema import Experiment
from harness.runs.borrowing import borrow_records
from harness.runs.record import Record
from harness.training.train import train

pytestmark = pytest.mark.slow
MACHINE = Machine("cpu", threads=1)


@pytest.fixture
def lender(experiment_file, tiny_data, tmp_path, once):
    """An evaluated run of the experiment `main`, whose weights are gone."""
    experiment = Experiment.load(experiment_file("main", datasets=["tiny"], protocols=["whole", "ms_flip"]))
    run = experiment.run("tiny", "hrnet_tiny", "cross_entropy", 0)

    def make(folder):
        train(experiment, run, folder, MACHINE, root=tiny_data)
        evaluate(run.folder(folder), MACHINE)
        shutil.rmtree(run.folder(folder) / "checkpoints")
        (run.folder(folder) / "training.json").unlink()

    shutil.copytree(once("lender", make), tmp_path, dirs_exist_ok=True)
    return run


def test_a_record_is_taken_over_once_and_says_from_where(lender, experiment_file, tmp_path):
    arms = {"plain": {"method": "cross_entropy"}, "contextrast": {}}
    path = experiment_file("other", datasets=["tiny"], arms=arms, baseline="plain", protocols=["whole"])
    experiment = Experiment.load(path)
    run = experiment.run("tiny", "hrnet_tiny", "plain", 0)
    arguments = ["borrow", str(path), "--results", str(tmp_path)]
    said = CliRunner().invoke(app, arguments)
    assert said.output == f"{run}: main/tiny/hrnet_tiny/cross_entropy/seed0\n"
    theirs, ours = (Record.load(each.folder(tmp_path) / "record.json") for each in (lender, run))
    assert (ours.key, ours.borrowed_from) == (run, "main/tiny/hrnet_tiny/cross_entropy/seed0")
    assert ours == theirs.but(key=run, borrowed_from=ours.borrowed_from)
    for name in ("counts.npz", "confusion.npz", "curve.csv"):
        assert (run.folder(tmp_path) / name).read_bytes() == (lender.folder(tmp_path) / name).read_bytes()
    assert "no other experiment" in CliRunner().invoke(app, arguments).output


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": {"iterations": 10, "batch": 2, "crop": [32, 32], "learning_rate": 0.05}},
        {"seeds": [1]},
        {"arms": {"cross_entropy": {"longer": 2}}},
        {"protocols": ["slide"]},
        {"absent": "zero"},
    ],
)
def test_what_is_another_run_is_not(lender, experiment_file, tmp_path, changes):
    given = {"datasets": ["tiny"], "arms": {"cross_entropy": {}}} | changes
    assert borrow_records(Experiment.load(experiment_file("other", **given)), tmp_path) == {}


def test_what_keeps_the_same_training_from_counting_is_said(lender, experiment_file, tmp_path):
    given = {"datasets": ["tiny"], "arms": {"cross_entropy": {}}, "protocols": ["slide"], "absent": "zero"}
    path = lender.folder(tmp_path) / "record.json"
    record = Record.load(path)
    record.but(settings=record.settings | {"method_source": "0" * 64}).save(path)
    arguments = ["borrow", str(experiment_file("other", **given)), "--results", str(tmp_path)]
    _, *lines = CliRunner().invoke(app, arguments).output.splitlines()
    name = "not copied: main/tiny/hrnet_tiny/cross_entropy/seed0, since "
    assert lines == [
        f"{name}methods/cross_entropy.py has changed",
        f"{name}absent is skip there",
        f"{name}slide was left out",
    ]


def test_an_arm_that_stands_twice_in_one_experiment_does_not_lend_to_itself(lender, experiment_file, tmp_path):
    arms = {"cross_entropy": {}, "again": {"method": "cross_entropy"}}
    experiment = Experiment.load(experiment_file("main", datasets=["tiny"], arms=arms))
    assert borrow_records(experiment, tmp_path) == {}


def test_files_that_are_not_the_records_are_refused(lender, experiment_file, tmp_path):
    (lender.folder(tmp_path) / "counts.npz").write_bytes(b"other")
    experiment = Experiment.load(experiment_file("other", datasets=["tiny"], arms={"cross_entropy": {}}))
    with pytest.raises(UserError, match=r"counts\.npz is not the file that its record was made with"):
        borrow_records(experiment, tmp_path)


def test_another_experiments_damaged_record_is_passed_over(lender, experiment_file, tmp_path):
    damaged = lender.folder(tmp_path).parents[1] / "contextrast" / "seed0" / "record.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    experiment = Experiment.load(experiment_file("other", datasets=["tiny"], arms={"cross_entropy": {}}))
    assert list(borrow_records(experiment, tmp_path).values()) == ["main/tiny/hrnet_tiny/cross_entropy/seed0"]
