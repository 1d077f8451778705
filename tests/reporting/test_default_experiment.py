"""The default experiment's report with all its methods, from a training that is cut short."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from browser import CHROMIUM, browsing

from harness.experiment.schema import Experiment
from harness.runs.record import read_json

SHORT = ["schedule.iterations=4", "schedule.warmup=1", "schedule.log_every=2", "protocols=[whole]"]


@pytest.mark.slow
def test_the_report_shows_every_method(repository, tmp_path):
    command = [str(Path(sys.executable).parent / "snakemake"), "--cores", "1"]
    command += ["--snakefile", str(repository / "Snakefile"), "--directory", str(tmp_path)]
    command += ["--config", f"experiment={repository / 'config/smoke.yaml'}", f"results={tmp_path / 'out'}"]
    command += [f"set={' '.join(SHORT)}"]
    made = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert made.returncode == 0, made.stdout + made.stderr

    experiment = Experiment.load(repository / "config/smoke.yaml", SHORT)
    report = tmp_path / "out/reports" / experiment.name
    table = pd.read_csv(report / "tables/miou.csv").set_index("arm")
    assert set(table.index) == set(experiment.arms)
    for run in experiment.runs():
        record = read_json(run.folder(tmp_path / "out") / "record.json")
        assert record["status"] == "done", record["reason"]
        assert table.loc[run.arm, "mean"] == pytest.approx(record["scores"]["whole"]["miou"], rel=1e-9)

    if CHROMIUM is None:
        pytest.skip("the tables are right; to look at the page: apt-get install chromium")
    with browsing(tmp_path / "profile") as browser:
        browser.open(report / "report.html")
        rows = browser.run("document.querySelectorAll('#board-0 tbody tr').length")
        examples = browser.run("new Set([...document.querySelectorAll('[data-arm]')].map((e) => e.dataset.arm)).size")
        widths = browser.image_widths()
        assert browser.complaints == []
    assert rows == examples + 1 == len(experiment.arms)  # the baseline stands on the left
    assert len(widths) == 3 * 2 * len(experiment.arms)  # in three images what each arm predicts and gets wrong
    assert min(widths) > 0
