"""`make bench-gpu` at tiny sizes on the processor: every piece, and that it goes on where it was cut off."""

import json
import time

import pytest

from benchmarks import gpu, gpu_table
from benchmarks.gpu import at_most, work
from benchmarks.gpu_record import Piece, Record
from harness.errors import UserError


@pytest.fixture
def record(tmp_path):
    return Record(tmp_path / "device.json", {"machine": "a machine"}, fresh=False)


def soon():
    return time.monotonic() + 60


def kind(name):
    return name.partition("/")[0]


@pytest.mark.slow
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.exhaustive)], ids=["a kind", "all"])
def test_a_piece_of_every_kind_runs_at_tiny_sizes(every, tmp_path, scenes_root, monkeypatch, capsys):
    from benchmarks.gpu_pieces import Bench

    pieces_of = Bench.pieces
    if not every:
        first = {}
        monkeypatch.setattr(
            Bench, "pieces", lambda self: [p for p in pieces_of(self) if first.setdefault(kind(p.name), p) is p]
        )
    monkeypatch.delenv("CAMVID_ROOT", raising=False)
    monkeypatch.setenv("SCENES_ROOT", str(scenes_root))
    page = tmp_path / "docs" / "performance.md"
    page.parent.mkdir()
    page.write_text("before\n<!-- begin ../results/reports/cost/gpu.md -->\n<!-- end -->\nafter\n")
    results = tmp_path / "results"
    gpu.main(["--device", "cpu", "--minutes", "20", "--results", str(results), "--page", str(page)])
    (path,) = (results / "cost" / "gpu").iterdir()
    pieces = json.loads(path.read_text())["pieces"]
    assert [name for name, found in pieces.items() if "failed" in found] == []
    assert set(map(kind, pieces)) == {"floors", "step", "method", "loop", "evaluate", "latency"}
    table = capsys.readouterr().out
    assert "contextrast, lite0_fpn, float32" in table.replace("\\", "")
    assert "mmengine" in table and "baseline again" in table
    assert table.strip() in page.read_text()
    before = path.read_text()
    gpu.main(["--device", "cpu", "--results", str(results), "--page", str(page)])  # nothing is left
    assert path.read_text() == before


def test_a_piece_is_on_the_disk_before_the_next_begins_and_the_next_call_goes_on(record):
    ran = []

    def first():
        ran.append("first")
        return {"value": 1}

    def second():
        assert json.loads(record.path.read_text())["pieces"]["loop/a"]["measured"] == {"value": 1}
        ran.append("second")
        raise KeyboardInterrupt

    pieces = [Piece("loop/a", 0, first), Piece("loop/b", 0, second)]
    gpu_table_line, gpu_table.one_line = gpu_table.one_line, lambda *_: ""
    try:
        with pytest.raises(KeyboardInterrupt):
            work(pieces, record, "abc", soon())
        again = Record(record.path, {"machine": "a machine"}, fresh=False)
        assert [piece.name for piece in again.missing(pieces)] == ["loop/b"]
        assert [piece.name for piece in Record(record.path, {}, fresh=True).missing(pieces)] == ["loop/a", "loop/b"]
    finally:
        gpu_table.one_line = gpu_table_line
    assert ran == ["first", "second"]


def test_a_piece_that_fails_holds_up_no_other_and_comes_last_next_time(record):
    def failing():
        raise ValueError("no such thing\nsecond line")

    floors = {"copy": 1e12, "float32": 1e12, "tf32": 1e12, "bfloat16": 1e12}
    pieces = [Piece("loop/a", 0, failing), Piece("floors", 0, lambda: floors), Piece("step/never", 1e9, failing)]
    work(pieces, record, None, soon())
    assert record.pieces["loop/a"]["failed"] == "ValueError: no such thing"
    assert record.pieces["floors"]["measured"] == floors
    assert [piece.name for piece in record.missing(pieces)] == ["step/never", "loop/a"]


def test_the_time_ends_what_runs(record, capsys):
    start = time.monotonic()
    with at_most(time.monotonic() + 0.2):
        work([Piece("loop/a", 0, lambda: time.sleep(30))], record, None, soon())
    assert time.monotonic() - start < 5
    assert record.pieces == {}
    assert "the time is over" in capsys.readouterr().err


def test_a_damaged_record_is_one_sentence(tmp_path):
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(UserError, match=r"x\.json is damaged.*--fresh"):
        Record(tmp_path / "x.json", {}, fresh=False)


def arms(name, ms, ratio, baseline="cross_entropy"):
    return {"ms": {name: ms, baseline: 10}, "ratio": [ratio, ratio - 0.01, ratio + 0.01]}


def test_goals_are_met_or_not():
    (row,) = gpu_table.rows_of("method/lite0_fpn/float32/contextrast", arms("contextrast", 12, 1.2))
    assert row[1:] == ("+20.0 % (+19.0 to +21.0)", "12.0 over 10.0 ms", "at most +25 %: met")
    (row,) = gpu_table.rows_of("method/hrnet_w48/float32/pne", arms("pne", 12, 1.2))
    assert row[3] == "at most +10 %: not met"
    (row,) = gpu_table.rows_of("step/lite0_fpn/bfloat16", arms("harness", 4, 0.4, "mmengine"))
    assert row[1:] == ("4.0 ms", "mmengine 10.0 ms: 2.50 times faster (2.44 to 2.56)", "at least 2.0: met")
    (row,) = gpu_table.rows_of("compiled/lite0_fpn/bfloat16", arms("compiled", 8, 0.8, "plain"))
    assert row[1:] == ("8.0 ms", "not compiled 10.0 ms: 1.25 times faster (1.23 to 1.27)", "")
    latency = {"ms": 7.0, "again": [1.0, 0.999, 1.001], "contextrast": [1.0, 0.99, 1.01]}
    (row,) = gpu_table.rows_of("latency/hrnet_w48/float32", {"graph": latency})
    assert row[3].endswith(": met") and "equal within 2 %" in row[2]
    (row,) = gpu_table.rows_of("latency/hrnet_w48/float32", {"graph": latency | {"contextrast": [1.0, 0.97, 1.03]}})
    assert row[3].endswith(": not met")
