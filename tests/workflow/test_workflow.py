"""The workflow from rendering to tables, in a folder of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def rendered(scenes_root, monkeypatch):
    monkeypatch.setenv("SCENES_ROOT", str(scenes_root))


def snakemake(repository, experiment, results, *arguments) -> subprocess.CompletedProcess:
    command = [str(Path(sys.executable).parent / "snakemake"), "--cores", "2", *arguments]
    # A state folder of its own: runs of this test beside each other do not wait for one another's lock.
    command += ["--snakefile", str(repository / "Snakefile"), "--directory", str(results.parent)]
    command += ["--config", f"experiment={experiment}", f"results={results}"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)}
    return subprocess.run(command, capture_output=True, text=True, env=env)


def check_report(repository, experiment, results):
    """The report of snakemake shows tables, figures, examples and page, each with what it shows and a caption."""
    path = results.parent / "report.html"
    made = snakemake(repository, experiment, results, "--report", str(path))
    assert made.returncode == 0, made.stdout + made.stderr
    text = path.read_text(encoding="utf-8")
    shown, found = (
        json.JSONDecoder().raw_decode(text, text.index(f'var {name} = {{"') + len(f"var {name} = "))[0]
        for name in ("categories", "results")
    )
    report = results / "reports/tiny"
    files = {category: {Path(path) for path in paths["Other"]} for category, paths in shown.items()}
    assert files == {
        "Figures": {path for path in (report / "figures").glob("*.png") if not path.stem.startswith("examples")},
        "Examples": {report / "figures/examples.png"},
        "Page": {report / "report.html"},
    }
    for each in found.values():
        assert each["labels"]["name"] and each["labels"]["shows"].endswith(".")
        assert len(each["caption"]) > 60
    for category in files.values():
        # With two of a kind the report offers a switch of every label by itself, most of whose settings are nothing.
        assert len({found[str(path)]["labels"]["name"] for path in category}) != 2


def test_the_workflow_ends_with_tables_and_figures_although_a_run_diverges(repository, experiment_file, tmp_path):
    arms = {"cross_entropy": {}, "contextrast": {}, "exploding": {"method": "contextrast", "weight": 1e38}}
    schedule = {"iterations": 4, "batch": 2, "crop": [64, 64], "learning_rate": 0.1}
    schedule |= {"log_every": 2, "checkpoint_every": 4}
    (tmp_path / "my own").mkdir()  # spaces and a file that a value cut at its space would name
    experiment = experiment_file(arms=arms, schedule=schedule, protocols=["whole"])
    experiment = experiment.rename(tmp_path / "my own" / experiment.name)
    (tmp_path / "keep").write_text("mine")
    results = tmp_path / "keep me"
    result = snakemake(repository, experiment, results)
    assert result.returncode == 0, result.stdout + result.stderr
    assert (tmp_path / "keep").read_text() == "mine"
    assert (result.stdout + result.stderr).count("hrnet_tiny on scenes, whole, in percent") == 1

    runs = results / "runs/tiny/scenes/hrnet_tiny"
    status = {arm: json.loads((runs / arm / "seed0/record.json").read_text())["status"] for arm in arms}
    assert status == {"cross_entropy": "done", "contextrast": "done", "exploding": "diverged"}
    report = results / "reports/tiny"
    written = {str(path.relative_to(report)) for path in report.rglob("*") if path.is_file() and path.stat().st_size}
    assert {f"tables/{name}.{suffix}" for name in ("miou", "boundary") for suffix in ("csv", "md", "tex")} <= written
    assert {"figures/miou.png", "figures/miou.pdf", "figures/examples.png"} <= written
    assert pd.read_csv(report / "cost/runs.csv")["arm"].tolist() == ["contextrast", "cross_entropy", "exploding"]
    table = pd.read_csv(report / "tables/miou.csv").set_index("arm")
    record = json.loads((runs / "contextrast/seed0/record.json").read_text())
    assert table.loc["contextrast", "mean"] == pytest.approx(record["scores"]["whole"]["miou"], rel=1e-9)
    assert "diverged" in (report / "tables/miou.md").read_text()
    for rule in ("verify", "run"):
        logs = list((results / "logs/tiny" / rule).glob("*.log"))
        assert logs
        assert all(path.with_suffix(".tsv").exists() for path in logs)

    before = {path: path.stat().st_mtime_ns for path in results.rglob("*") if path.is_file()}
    again = snakemake(repository, experiment, results)
    assert "Nothing to be done" in again.stdout + again.stderr
    assert {path: path.stat().st_mtime_ns for path in results.rglob("*") if path.is_file()} == before

    check_report(repository, experiment, results)


def test_a_workflow_whose_runs_were_all_skipped_fails_and_says_why(repository, experiment_file, tmp_path, monkeypatch):
    monkeypatch.delenv("ADE20K_ROOT", raising=False)
    experiment = experiment_file(datasets=["ade20k"], arms={"cross_entropy": {}})
    result = snakemake(repository, experiment, tmp_path / "out", "--until", "run")
    assert result.returncode == 1
    assert "set ADE20K_ROOT" in result.stderr
    assert "error: every run was skipped" in result.stderr


def test_the_workflow_takes_an_experiment_by_its_name_in_config(repository, tmp_path):
    command = [sys.executable, "-m", "snakemake", "--list-rules", "--config", "experiment=smoke", f"results={tmp_path}"]
    found = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert found.returncode == 0 and "report" in found.stdout, found.stderr


def test_a_mistake_in_the_experiment_is_one_sentence(repository, experiment_file, tmp_path):
    result = snakemake(repository, experiment_file(models=["hrnet_w47"]), tmp_path / "out")
    assert result.returncode != 0
    assert "unknown model 'hrnet_w47': did you mean hrnet_w48?" in result.stderr
    assert "Traceback" not in result.stderr
