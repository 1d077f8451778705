"""The committed tables follow from the committed records."""

import shutil

import pandas as pd

from harness.experiment import Experiment
from harness.reporting.tables import write_tables
from harness.run import read_json
from harness.statistics.scores import score

# The same network from its ImageNet weights and from scratch.
INITIAL_WEIGHTS = [
    "models=[lite0_fpn, lite0_fpn_scratch]",
    "arms={cross_entropy: {}}",
    "seeds=[0]",
    "protocols=[whole]",
]


def test_the_reference_tables_are_made_again_from_their_records(repository, tmp_path):
    reference = repository / "results" / "reference" / "camvid-small"
    experiment = Experiment.load(repository / "config" / "camvid-small.yaml")
    shutil.copytree(reference / "runs", tmp_path / "runs")
    write_tables(experiment, tmp_path)
    for name in ("miou", "boundary", "per_class"):
        made, committed = (folder / "reports/camvid-small/tables" / name for folder in (tmp_path, reference))
        assert made.with_suffix(".md").read_text() == committed.with_suffix(".md").read_text()
        tables = [pd.read_csv(path.with_suffix(".csv")) for path in (made, committed)]
        pd.testing.assert_frame_equal(*tables, check_exact=False, rtol=1e-9)


def test_the_table_of_initial_weights_is_made_again_from_the_records(repository, tmp_path):
    reference = repository / "results" / "reference" / "camvid-small"
    experiment = Experiment.load(repository / "config" / "camvid-small.yaml", INITIAL_WEIGHTS)
    shutil.copytree(reference / "runs", tmp_path / "runs")
    write_tables(experiment, tmp_path)
    made = (tmp_path / "reports/camvid-small/tables/miou.md").read_text()
    assert made == (reference / "reports" / "initial_weights.md").read_text()


def test_the_reference_records_scores_follow_from_their_counts(repository):
    from harness.evaluation.counts import Counts

    folders = [path.parent for path in (repository / "results" / "reference").rglob("record.json")]
    assert folders
    for folder in folders:
        record, counts = read_json(folder / "record.json"), Counts.load(folder / "counts.npz")
        for protocol, tables in counts.tables.items():
            scores, per_class = score(tables, counts.classes, record["absent"])
            stored = record["scores"][protocol]
            assert {name: stored[name] for name in scores} == scores
            assert record["per_class"][protocol] == per_class
        assert record["provenance"]["dirty"] is False
