"""One registration gives a metric its record, interval, table, page and document."""

import numpy as np
import pandas as pd
import pytest

from harness import api
from harness.comparison import compare
from harness.evaluation.frames import load_records, write_records
from harness.reporting import blocks
from harness.reporting.page import write_page
from harness.reporting.tables import write_tables
from harness.statistics.scores import METRICS, Metric, dice, score


def precision(counts, absent):
    hits, false = counts[..., 0].astype(float), counts[..., 1]
    return np.where(hits + false > 0, 100 * hits / np.maximum(hits + false, 1), np.nan)


@pytest.fixture
def report(make_experiment, write_all, tmp_path, monkeypatch):
    """An experiment whose records were written before the metric was registered, its counts, and its results."""
    experiment = make_experiment(protocols=["whole"])
    counts = write_all(experiment, tmp_path)
    new = Metric("mean_precision", "region", precision, None, "Precision", "TP / (TP + FP)", "precision")
    monkeypatch.setitem(METRICS, new.name, new)
    return experiment, counts, tmp_path


@pytest.mark.slow
def test_old_records_get_it_from_their_counts_and_it_has_a_gain_with_an_interval(report):
    experiment, counts, results = report
    write_tables(experiment, results)
    table = pd.read_csv(results / "reports/little/tables/metrics.csv")
    of_arm = table[table["metric"] == "mean_precision"].set_index("arm")
    runs = {arm: {} for arm in experiment.arms}
    for (_, _, arm, seed), of_run in counts.items():
        runs[arm][seed] = of_run.tables["whole"]["region"]
    for arm, tables in runs.items():
        sums = [table.sum(0)[:3] for table in tables.values()]  # the fourth class is in no image
        by_hand = [np.mean([100 * hits / (hits + false) for hits, false, _ in each]) for each in sums]
        assert of_arm["mean"][arm] == pytest.approx(np.mean(by_hand), rel=1e-12)
    gain = compare(runs, "plain", METRICS["mean_precision"]).gains["rival_one"]
    assert of_arm[["low", "high"]].loc["rival_one"].tolist() == pytest.approx([gain.low, gain.high])
    for kind in ("md", "tex"):
        assert "Precision" in (results / f"reports/little/tables/metrics.{kind}").read_text()
    assert "Precision" in write_page(experiment, results, pictures=False).read_text()


def test_it_stands_in_data_frames_new_records_and_the_document(report, tmp_path):
    _, counts, results = report
    table = load_records(results / "runs").query("metric == 'mean_precision'")
    tables = counts["scenes", "lite0_fpn", "plain", 1].tables["whole"]
    found, per_class = score(tables, ("a", "b", "c", "d"))
    assert table.query("arm == 'plain' and seed == 1")["score"].tolist() == [found["mean_precision"]]
    assert per_class["precision"].keys() == set("abcd")
    assert not api.compare(tmp_path / "little.yaml", results, "mean_precision")["gain"].dropna().empty
    (tmp_path / "page.md").write_text("<!-- begin :metrics -->\n<!-- end -->\n")
    assert "| Precision | `mean_precision` | TP / (TP + FP) |" in blocks.filled(tmp_path / "page.md")


def test_records_csv_is_load_records(report):
    _, _, results = report
    write_records(results / "runs", results)
    tables = pd.read_csv(results / "records.csv"), load_records(results / "runs")
    pd.testing.assert_frame_equal(*(table.astype(object).fillna("") for table in tables))


def test_dice_is_the_f1_score_of_the_pixels():
    generator = np.random.default_rng(0)
    truth, guess = generator.integers(0, 3, 200), generator.integers(0, 3, 200)
    counts, f1 = [], []
    for c in range(3):
        hits = sum(t == g == c for t, g in zip(truth, guess, strict=True))
        precision, recall = hits / (guess == c).sum(), hits / (truth == c).sum()
        f1.append(100 * 2 * precision * recall / (precision + recall))
        counts.append([hits, (guess == c).sum() - hits, (truth == c).sum() - hits])
    assert dice(np.array(counts)) == pytest.approx(f1, rel=1e-12)
    assert METRICS["mean_dice"].score(np.array(counts)) == pytest.approx(np.mean(f1), rel=1e-12)
