"""Whatever state a run's folder is in, the workflow ends with what the experiment asks for, and makes no more."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from layout_writer import write_scenes
from plain_network import write_plain
from tiny_data_set import write_tiny

from harness import datasets
from harness.experiment.run import Run
from harness.experiment.schema import Experiment, discovery
from harness.runs.state import work_left

pytestmark = pytest.mark.slow

ARMS = ("cross_entropy", "contextrast", "colder")
EXPERIMENT = {
    "arms": {"cross_entropy": {}, "contextrast": {}, "colder": {"method": "contextrast", "temperature": 0.05}},
    "baseline": "cross_entropy",
    "datasets": ["tiny"],
    "models": ["plain"],
    "protocols": ["whole"],
    "schedule": {"iterations": 4, "batch": 2, "crop": [32, 32], "learning_rate": 0.1}
    | {"log_every": 2, "checkpoint_every": 2},
}


class Project:
    """A copy of the project, small data, and an experiment in it: what a user has in front of him."""

    config = Path("config/small.yaml")

    def __init__(self, folder, data):
        self.folder, self.data = folder, data
        self.env = os.environ | {"OMP_NUM_THREADS": "1", "TINY_ROOT": str(data), "PYTHONPATH": str(folder)}
        self.env["CONTEXTRAST_BENCH_MODELS"] = str(data.parent / "models")

    def call(self, *command):
        python = Path(sys.executable)
        command = [str(python.parent / "snakemake"), *command[1:]] if command[0] == "snakemake" else [python, *command]
        done = subprocess.run(command, cwd=self.folder, env=self.env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def harness(self, verb, *arguments):
        return self.call("-m", "harness", verb, *map(str, arguments))

    def make(self, *arguments, overrides=""):
        """Run the workflow; returns what it says."""
        given = [f"set={overrides}"] if overrides else []
        return self.call("snakemake", *arguments, "--config", f"experiment={self.config}", *given)

    def train(self, arm, *arguments):
        chosen = ("--dataset", "tiny", "--model", "plain", "--arm", arm, self.config)
        return self.harness("train", *chosen, "--device", "cpu", "--threads", 1, *arguments)

    def run(self, arm, dataset="tiny"):
        return Run("small", dataset, "plain", arm, 0).folder(self.folder / "results")

    def weights(self):
        return {arm: json.loads((self.run(arm) / "record.json").read_text())["weights_hash"] for arm in ARMS}

    def edit(self, path, old, new):
        text = (self.folder / path).read_text()
        assert text.count(old) == 1
        (self.folder / path).write_text(text.replace(old, new))

    def begun(self):
        """When each arm's training began: another time is another training."""
        return {arm: json.loads((self.run(arm) / "training.json").read_text())["started"] for arm in ARMS}


# Drawing takes most of a report's time, and no test here looks at a figure.
UNDRAWN = """

def save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix in FORMATS:
        path.with_suffix(suffix).write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
"""


def new_project(repository, outside, **keys):
    """A project in the folder `outside` in which nothing has run; `keys` change its experiment."""
    data, described = write_tiny(outside)
    write_plain(outside / "models")
    folder = outside / "project"
    for name in ("harness", "methods", "workflow", "profiles", "results/published"):
        shutil.copytree(repository / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Snakefile", "environment.yml"):
        shutil.copy(repository / name, folder / name)
    shutil.copy(described / "tiny.yaml", folder / "harness" / "datasets" / "tiny.yaml")
    with (folder / "harness/reporting/figures/style.py").open("a") as file:
        file.write(UNDRAWN)
    project = Project(folder, data)
    (folder / "config").mkdir()
    (folder / project.config).write_text(yaml.safe_dump(EXPERIMENT | keys, sort_keys=False))
    return project


@pytest.fixture(scope="session")
def finished(repository, once):
    """A project with an arm trained by hand, scored predictions and a report, which the workflow then completed."""

    def make(folder):
        project = new_project(repository, folder)
        project.train("contextrast", "--evaluate")
        chosen = ("--predictions", project.data / "testannot", "--dataset", "tiny", "--format", "raw_ids")
        project.harness("score", *chosen, "--arm", "theirs", "--experiment", "small", "--model", "plain")
        project.harness("report", project.config)
        (folder / "by_hand.json").write_text((project.run("contextrast") / "training.json").read_text())
        (folder / "said").write_text(project.make())

    folder = once("finished", make)
    return Project(folder / "project", folder / "tiny")


@pytest.fixture
def project(finished, tmp_path):
    return Project(shutil.copytree(finished.folder, tmp_path / "project"), finished.data)


def is_settled(project):
    return "Nothing to be done" in project.make("-n")


def test_what_was_made_by_hand_counts_and_the_rest_is_made(finished):
    by_hand = json.loads((finished.folder.parent / "by_hand.json").read_text())
    assert finished.begun()["contextrast"] == by_hand["started"]
    assert len(finished.weights()) == 3  # nor do scored predictions count for an arm of the experiment
    said = (finished.folder.parent / "said").read_text()
    assert all(arm in said.lower() for arm in ("cross entropy", "contextrast", "colder"))


def test_an_edited_method_and_an_edited_setting_train_what_they_touch_and_nothing_else(project):
    weights, begun = project.weights(), project.begun()
    # The default of `contextrast`, which `colder` overrides; both have its source.
    default, other = (f"temperature: Annotated[float, Gt(0)] = {value}" for value in (0.1, 0.2))
    project.edit("methods/contextrast.py", default, other)
    assert "methods/contextrast.py has changed" in project.harness("status", project.config)
    assert "stale" in project.harness("plan", project.config)
    project.make()
    assert project.begun()["cross_entropy"] == begun["cross_entropy"]
    assert project.weights()["cross_entropy"] == weights["cross_entropy"]
    assert project.weights()["contextrast"] != weights["contextrast"]
    assert project.weights()["colder"] == weights["colder"]  # trained again, with what it had before
    assert project.begun()["colder"] != begun["colder"]
    assert is_settled(project)
    assert project.harness("stale").count("seed0.stale-") == 2

    # With the edit undone the first run comes back; an edited setting trains its arm alone.
    project.edit("methods/contextrast.py", other, default)
    project.edit(project.config, "temperature: 0.05", "temperature: 0.5")
    project.make()
    same = ("cross_entropy", "contextrast")
    assert [(project.weights()[arm], project.begun()[arm]) for arm in same] == [
        (weights[arm], begun[arm]) for arm in same
    ]
    assert project.weights()["colder"] != weights["colder"]
    assert "3 runs removed" in project.harness("stale", "--remove")
    assert not list(project.folder.rglob("*.stale-*"))


def test_a_trial_leaves_the_real_runs_alone(project):
    weights = project.weights()
    trial, name = ("schedule.iterations=2", "arms={cross_entropy: {}}"), "small+iterations=2+arms=cross_entropy"
    assert name in project.make(overrides=" ".join(trial).replace(": ", r":\ "))
    assert (project.folder / f"results/reports/{name}/report.html").is_file()
    assert project.weights() == weights
    assert is_settled(project)
    assert "1 done" in project.harness("status", project.config, *(f"--set={each}" for each in trial))
    assert "stale" not in (project.folder / "results/reports/small/tables/miou.md").read_text()


def test_a_missing_data_set_is_a_hole_until_it_arrives_and_no_hole_when_it_leaves_again(
    repository, tmp_path, monkeypatch
):
    monkeypatch.delenv("CAMVID_ROOT", raising=False)
    root = tmp_path / "camvid"
    keys = {"arms": {"cross_entropy": {}}, "datasets": ["tiny", "camvid"], "roots": {"camvid": str(root)}}
    project = new_project(repository, tmp_path, **keys)
    results = project.folder / "results"

    def record(dataset):
        return json.loads((project.run("cross_entropy", dataset) / "record.json").read_text())

    project.make()
    assert record("tiny")["status"] == "done"
    assert record("camvid")["status"] == "skipped"
    assert f"the root {root} of the data set camvid is no folder" in record("camvid")["reason"]
    assert json.loads((results / "data/camvid/verify.json").read_text())["status"] == "missing"
    assert "camvid" in (results / "reports/small/tables/miou.md").read_text()
    for shown in ("tables/miou.md", "report.html"):
        assert "skipped" in (results / "reports/small" / shown).read_text()
    assert is_settled(project)  # asking again is of no use, and costs nothing

    write_scenes(root, datasets.load("camvid").specs[0])
    project.make("--until", "run")
    made = record("camvid")
    assert made["status"] == "done"

    root.rename(tmp_path / "elsewhere")
    project.make("--until", "run")
    assert record("camvid") == made  # its time included


def contents(folder):
    """What must be the same however often something was made again: scores, weights, counts and label maps."""
    found = {}
    for arm in ARMS:
        run = folder / "runs" / "small" / "tiny" / "plain" / arm / "seed0"
        record = json.loads((run / "record.json").read_text())
        found[arm] = [record["status"], record["weights_hash"], record["scores"], record["files"]]
        found[arm] += [path.read_bytes() for path in sorted((run / "predictions").rglob("*.png"))]
        for name in ("diagnostics.npz", "embeddings.npz"):
            with np.load(run / name) as arrays:
                found[arm] += [(each, arrays[each].tobytes()) for each in arrays.files if each != "seconds"]
    return found


def files(results):
    """The files of an experiment that a removal is tried with: not checkpoints, what only logs, and what was scored."""
    spared = ("checkpoints", "logs", "cache", "published", ".stale-", "theirs")
    paths = [path.relative_to(results) for path in sorted(results.rglob("*")) if path.is_file()]
    return [path for path in paths if not any(part in str(path) for part in spared)]


@pytest.mark.parametrize("drawn", [True, pytest.param(False, marks=pytest.mark.exhaustive)])
def test_whatever_subset_of_the_files_is_removed_the_workflow_makes_it_again(project, drawn):
    """Half of all files, or a run, two records and a run's checkpoints; each file of a run alone is tested below."""
    results = project.folder / "results"
    whole, names = contents(results), files(results)
    assert len(names) > 50
    run, draw = results / "runs" / "small" / "tiny" / "plain", np.random.default_rng(0)
    removed = [results / name for name in names if draw.random() < 0.5]
    if not drawn:
        removed = [run / "contextrast" / "seed0", run / "colder" / "seed0" / "checkpoints"]
        removed += [run / arm / "seed0" / "record.json" for arm in ("cross_entropy", "colder")]
    for path in removed:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    project.make()
    assert files(results) == names
    assert contents(results) == whole
    assert is_settled(project)


def test_every_file_of_a_run_that_is_missing_is_work_left(project, monkeypatch):
    monkeypatch.setenv("CONTEXTRAST_BENCH_MODELS", project.env["CONTEXTRAST_BENCH_MODELS"])
    monkeypatch.setattr(datasets, "FOLDER", project.folder / "harness" / "datasets")
    monkeypatch.setattr(discovery, "FOLDER", project.folder / "methods")
    experiment, results = Experiment.load(project.folder / project.config), project.folder / "results"
    run = experiment.run("tiny", "plain", "contextrast", 0)
    folder = run.folder(results)
    assert work_left(experiment, run, results) == ""
    found = {}
    for path in [*folder.glob("*.*"), folder / "predictions"]:
        path.rename(folder.parent / "away")
        found[path.name] = work_left(experiment, run, results)
        (folder.parent / "away").rename(path)
    trained = dict.fromkeys(("training.json", "curve.csv", "diagnostics.npz", "embeddings.npz"), "train")
    evaluated = dict.fromkeys(("record.json", "counts.npz", "confusion.npz", "predictions"), "evaluate")
    assert found == trained | evaluated
    # Weights and checkpoints make room when they are no longer needed.
    shutil.rmtree(folder / "checkpoints")
    assert work_left(experiment, run, results) == ""
