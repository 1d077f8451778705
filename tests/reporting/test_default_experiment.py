"""The report of an experiment with every contrastive method, from trainings that are cut short."""

import pandas as pd
import pytest
from browser import CHROMIUM, browsing

from harness.compute.machine import Machine
from harness.evaluation.evaluate import evaluate
from harness.experiment.schema import Experiment
from harness.reporting.examples import write_examples
from harness.reporting.measured import measure
from harness.reporting.page import write_page
from harness.reporting.tables import write_tables
from harness.training.train import train

SMALL = ["datasets=[tiny]", "protocols=[whole]", "schedule.class_weights=null", "schedule.crop=[32,32]"]
SHORT = ["schedule.iterations=4", "schedule.warmup=1", "schedule.log_every=2", "schedule.batch=2"]


@pytest.mark.slow
def test_the_report_shows_every_method(repository, tiny_data, tmp_path):
    experiment = Experiment.load(repository / "config/smoke.yaml", [*SMALL, *SHORT])
    machine, miou = Machine("cpu", threads=1), {}
    for run in experiment.runs():
        train(experiment, run, tmp_path, machine, root=tiny_data)
        record = evaluate(run.folder(tmp_path), machine)
        assert record.status == "done", record.reason
        miou[run.arm] = record.scores["whole"]["miou"]
    measured = measure(experiment, tmp_path)
    write_tables(experiment, tmp_path)
    write_examples(experiment, tmp_path)
    page = write_page(experiment, tmp_path, measured)

    table = pd.read_csv(page.parent / "tables/miou.csv").set_index("arm")
    assert table["mean"].to_dict() == pytest.approx(miou, rel=1e-9)
    if CHROMIUM is None:
        pytest.skip("the tables are right; to look at the page: apt-get install chromium")
    with browsing(tmp_path / "profile") as browser:
        browser.open(page)
        rows = browser.run("document.querySelectorAll('#board-0 tbody tr').length")
        examples = browser.run("new Set([...document.querySelectorAll('[data-arm]')].map((e) => e.dataset.arm)).size")
        widths = browser.image_widths()
        assert browser.complaints == []
    assert rows == examples + 1 == len(experiment.arms)  # the baseline stands on the left
    assert len(widths) == 3 * 2 * len(experiment.arms)  # in three images what each arm predicts and gets wrong
    assert min(widths) > 0
