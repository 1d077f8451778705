import json
import re

import pytest

from benchmarks.cpu_table import write_benchmark_tables
from harness.errors import UserError
from harness.reporting.blocks import filled

CONTENT = {
    "machine_info": {"node": "secret-host", "python_version": "3.11.7"},
    "datetime": "2026-02-03T04:05:06.7",
    "benchmarks": [
        {
            "fullname": "bench/test_a_speed.py::test_second[2|3]",
            "name": "test_second[2|3]",
            "stats": {"min": 1.5, "median": 2.25, "rounds": 3},
            "extra_info": {"times_faster_than_loops": 3.14159, "interval": "1 to 2"},
        },
        {
            "fullname": "bench/test_b_speed.py::test_other",
            "name": "test_other",
            "stats": {"min": 0.00125, "median": 0.0025, "rounds": 400},
            "extra_info": {},
        },
        {
            "fullname": "bench/test_a_speed.py::test_first",
            "name": "test_first",
            "stats": {"min": 0.9999, "median": 1, "rounds": 1},
            "extra_info": {"megabytes": 12},
        },
    ],
}


@pytest.fixture
def measured(tmp_path):
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench" / "test_a_speed.py").write_text('"""Seconds of A.\n\nOver B,\nin turns.\n"""\n')
    (tmp_path / "bench" / "test_b_speed.py").write_text('"""Seconds of B."""\n')
    path = tmp_path / "measured.json"
    path.write_text(json.dumps(CONTENT))
    return path


def test_a_table_a_file_with_the_files_own_words(measured, tmp_path):
    text = write_benchmark_tables(measured, tmp_path / "results", tmp_path).read_text()
    first, second = text.split("### ")[1:]
    assert first.startswith("a speed\n") and second.startswith("b speed\n")
    assert "| second\\[2\\|3\\] | 1.50 s | 2.25 s | 3 | times faster than loops 3.14; interval 1 to 2 |" in first
    assert "| first | 999.90 ms | 1.00 s | 1 | megabytes 12 |" in first
    assert "- Seconds of A.\n- Over B, in turns.\n" in first
    assert "| other | 1.25 ms | 2.50 ms | 400 |  |" in second


def test_the_machine_is_named_without_its_host(measured, tmp_path):
    text = write_benchmark_tables(measured, tmp_path / "results", tmp_path).read_text()
    assert "secret-host" not in text
    assert "cores of a" in text and "Python 3.11.7" in text and "2026-02-03" in text


def test_what_is_no_benchmarks_file_is_refused(tmp_path):
    for content in (None, "{", "{}", '{"benchmarks": []}'):
        if content is not None:
            (tmp_path / "x.json").write_text(content)
        with pytest.raises(UserError, match="make bench"):
            write_benchmark_tables(tmp_path / "x.json", tmp_path)


def test_the_page_holds_the_committed_tables(repository):
    page = repository / "docs" / "performance.md"
    assert filled(page) == page.read_text(), "run python -m harness refresh docs/performance.md"
    for name in re.findall(r"\]\((\S+?)\)", page.read_text()):
        assert (page.parent / name).is_file(), name
    committed = (repository / "results" / "reports" / "cost" / "benchmarks.md").read_text()
    if committed.startswith("Not measured yet"):
        pytest.skip("no benchmark is committed: run make bench on an idle machine")
    assert "times the floor" in committed
