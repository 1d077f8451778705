import csv
import json

import numpy as np
import pytest
import torch

from harness.cost import records
from harness.cost.timing import Timings
from harness.errors import UserError
from harness.reporting.costs.measured import published_overheads, write_latency_table, write_training_table

CPU = torch.device("cpu")
PUBLISHED = {"contextrast": (10.017 / 8.967, 27788 / 26692)}


def timings(stable=True, share=1.0, **milliseconds):
    taken = {name: np.array(rounds) * 10**6 for name, rounds in milliseconds.items()}
    taken = {name.replace("again", "plain (again)"): rounds.astype(np.int64) for name, rounds in taken.items()}
    warm = {"iterations": 10, "seconds": 1.0, "stable": stable, "median_seconds": 0.1}
    rounds = len(next(iter(taken.values())))
    order = [list(range(len(taken)))] * rounds
    return Timings(taken, order, dict.fromkeys(taken, warm), share)


def content(**changes):
    setting = {"model": "lite0_fpn", "dataset": "camvid", "size": [128, 256], "mode": "offline", "batch": 8}
    return {
        "setting": setting | {"precision": "float32", "channels_last": False, "compiled": True},
        "baseline": "plain",
        "control": "plain (again)",
        "plan": {"settle": 1, "block": 2},
        "torch": {"threads": 2},
        "conditions": {"before": {"processor": {"load": 0.5}}, "after": {"processor": {"load": 1.5}}},
        "energy_joules": {},
        "started": "2026-01-01T00:00:00+00:00",
    } | changes


@pytest.fixture
def write(tmp_path):
    """Writes a record of latency with the given samples in milliseconds."""

    def run(name="one", changes=None, parts=None, **milliseconds):
        measured = timings(**milliseconds)
        arms = {arm: {"parameters": 5_000_000, "gflops": 2.5, "peak_bytes": 2**20} for arm in measured.nanoseconds}
        for arm, part in (parts or {}).items():
            arms[arm] = arms[arm] | part
        kind = (changes or {}).pop("kind", "latency")
        return records.write(tmp_path, kind, name, CPU, content(**(changes or {})), arms, measured)

    return run


def rows(folder, name):
    with (folder / f"{name}.csv").open(newline="") as file:
        return {row["arm"]: row for row in csv.DictReader(file)}


BASE = [[10, 20], [30, 10], [20, 20], [20, 20], [10, 30], [20, 20]]


def test_percentiles_are_of_all_samples_and_the_ratio_of_rounds(write, tmp_path):
    again = [[1.01 * value for value in pair] for pair in BASE]
    slow = [[1.5 * value for value in pair] for pair in BASE]
    write(plain=BASE, again=again, slow=slow)
    found = rows(write_latency_table(tmp_path), "latency")
    values = sorted(value for pair in BASE for value in pair)  # 10 10 10 20 20 20 20 20 20 20 30 30
    base = found["plain"]
    assert float(base["p50_ms"]) == 20
    assert float(base["p90_ms"]) == pytest.approx(29)  # 9.9 places from the first: 0.9 of the way from 20 to 30
    assert float(base["mean_ms"]) == pytest.approx(sum(values) / 12)
    assert float(base["iqr_ms"]) == pytest.approx(20 - 17.5)
    assert (base["n"], base["ratio"], base["verdict"]) == ("12", "", "baseline")
    assert float(base["images_per_second"]) == pytest.approx(8 / 0.020)
    assert [float(found["slow"][key]) for key in ("ratio", "low", "high")] == pytest.approx([1.5] * 3)
    assert found["slow"]["verdict"] == "slower by more than 2 %"
    assert found["plain (again)"]["verdict"] == "equivalent within 2 %"
    assert found["slow"]["peak_mib"] == "1.0"
    assert found["slow"]["joules_per_image"] == ""


def test_the_summary_counts_equal_networks_and_equivalent_arms(write, tmp_path):
    write(plain=BASE, again=BASE, same=BASE, slow=[[2 * v for v in p] for p in BASE], parts={"slow": {"gflops": 2.6}})
    text = (write_latency_table(tmp_path) / "latency.md").read_text()
    (line,) = [line for line in text.split("### Latency")[0].splitlines() if line.startswith("| lite0")]
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[3:] == ["1.000 (1.000 to 1.000)", "1 of 2", "1 of 2", "2 of 2", "yes"]  # BASE drifts
    assert cells[1] == "camvid classes, 128x256, offline, batch 8, float32, compiled"
    assert "processor load 0.5 to 1.5" in text


def test_energy_is_shown_where_it_was_counted(write, tmp_path):
    write(plain=BASE, again=BASE, changes={"energy_joules": {"gpu": 840.0}})
    folder = write_latency_table(tmp_path)
    # Two arms: a warm-up of 10 and 6 rounds of 3 iterations, 8 images each.
    assert float(rows(folder, "latency")["plain"]["joules_per_image"]) == pytest.approx(840 / (2 * 28 * 8))
    assert "1.88 J an image (gpu)" in (folder / "latency.md").read_text()


@pytest.mark.parametrize(
    ("options", "changes", "words"),
    [
        ({}, {}, ""),
        ({"plain": [[10]] * 4 + [[11]] * 2}, {}, "drift: the last third of the rounds took 1.10 times"),
        ({"stable": False}, {}, "not stable after the warm-up: plain"),
        ({"share": 0.72}, {}, "disturbed: the process had 72 % of its threads' processor time"),
        ({"share": None}, {}, ""),
        ({}, {"after": {"gpu": {"throttled": ["power cap"]}}}, "the GPU's clock was lowered: power cap"),
        ({}, {"after": {"gpu": {"throttled": []}}}, ""),
    ],
)
def test_what_makes_a_measurement_doubtful_is_said(tmp_path, options, changes, words):
    measured = timings(**({"plain": [[10]] * 6} | options))
    path = records.write(tmp_path, "latency", "x", CPU, content(conditions=changes), {"plain": {}}, measured)
    assert ", ".join(json.loads(path.read_text())["warnings"]).startswith(words)
    assert bool(words) == bool(json.loads(path.read_text())["warnings"])


def test_training_stands_beside_the_published_figures(tmp_path, write):
    slower = [[1.2 * value for value in pair] for pair in BASE]
    setting = {key: value for key, value in content()["setting"].items() if key not in ("mode", "compiled")}
    changes = {"kind": "training", "setting": setting}
    write(plain=BASE, contextrast=slower, changes=changes, parts={"contextrast": {"peak_bytes": 1.25 * 2**20}})
    folder = write_training_table(tmp_path)
    row = rows(folder, "training")["contextrast"]
    assert [float(row[f"published_{name}_ratio"]) for name in ("time", "memory")] == pytest.approx(
        PUBLISHED["contextrast"]
    )
    assert (float(row["ratio"]), float(row["memory_ratio"])) == (pytest.approx(1.2), 1.25)
    (line,) = [line for line in (folder / "training.md").read_text().splitlines() if line.startswith("| Contextrast")]
    assert line.endswith("| +20.0 % (+20.0 % to +20.0 %) | 1 | +25.0 % | +11.7 % | +4.1 % |")
    said = "Contextrast's 10:01 h over 8:58 h and 27,788 MiB over 26,692 MiB"
    assert said in (folder / "training.md").read_text()


def test_published_overheads_are_over_the_papers_own_cross_entropy():
    found = published_overheads()
    assert found.keys() == {"multiscale_contrast", "contextrast", "contextrast_pp"}
    assert (found["contextrast"]["training_time_h"], found["contextrast"]["training_memory_MiB"]) == pytest.approx(
        PUBLISHED["contextrast"]
    )


def test_records_of_gpus_come_first(tmp_path):
    for name in ("cpu-x86_64-2-cores/b", "cpu-x86_64-2-cores/a", "nvidia-h100/c"):
        path = tmp_path / "cost" / "latency" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"schema": records.SCHEMA, "name": name, "arms": {}}))
    found = [record["name"] for record in records.read_all(tmp_path, "latency")]
    assert found == ["nvidia-h100/c", "cpu-x86_64-2-cores/a", "cpu-x86_64-2-cores/b"]


def test_missing_and_foreign_records_are_refused_in_one_sentence(tmp_path, write):
    with pytest.raises(UserError, match=r"no record in .*cost/latency: measure first"):
        write_latency_table(tmp_path)
    path = write(plain=BASE, again=BASE)
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 7'))
    with pytest.raises(UserError, match="another schema than 1"):
        write_latency_table(tmp_path)
    path.write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        write_latency_table(tmp_path)
