import shutil

import pytest

from harness.reporting.costs.measured import write_latency_table, write_training_table


@pytest.mark.parametrize(("kind", "write"), [("latency", write_latency_table), ("training", write_training_table)])
def test_the_committed_tables_follow_from_the_committed_records(repository, tmp_path, kind, write):
    if not (repository / "results" / "cost" / kind).is_dir():
        pytest.skip(f"no record of {kind} is committed: measure it on an idle machine (docs/performance.md)")
    shutil.copytree(repository / "results" / "cost" / kind, tmp_path / "cost" / kind)
    folder = write(tmp_path)
    for suffix in ("csv", "md"):
        committed = repository / "results" / "reports" / "cost" / f"{kind}.{suffix}"
        assert (folder / committed.name).read_text() == committed.read_text(), f"write {committed.name} again"
