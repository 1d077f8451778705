import pytest
from typer.testing import CliRunner

from harness.cli import app
from harness.errors import UserError
from harness.reporting.repeats import write_repeats
from harness.runs.record import write_json

SCHEDULE = {"iterations": 10, "batch": 8, "crop": [32, 32], "learning_rate": 0.1}


@pytest.fixture
def record(tmp_path):
    """Writes a record with the few keys that are read."""

    def write(
        results,
        arm,
        seed,
        miou,
        *,
        method="cross_entropy",
        settings=None,
        options=None,
        protocol="whole",
        experiment="e",
        device="CPU",
    ):
        key = {"experiment": experiment, "dataset": "d", "model": "m", "arm": arm, "seed": seed}
        folder = tmp_path / results / "runs" / experiment / "d" / "m" / arm / f"seed{seed}"
        content = {
            "key": key,
            "method": method,
            "scores": {protocol: {"miou": miou}},
            "settings": {"dataset": "d", "model": "m", "method": method, "seed": seed, "method_source": "abc"}
            | {"options": options or {}, "schedule": SCHEDULE}
            | (settings or {}),
            "status": "done",
            "provenance": {"device": {"type": "cpu", "name": device}, "packages": {"torch": "2.13.0"}},
        }
        folder.mkdir(parents=True)
        write_json(folder / "record.json", content)

    return write


def test_runs_of_both_folders_stand_side_by_side_with_their_differences(record, tmp_path):
    for seed, (here, there) in enumerate([(50.0, 51.0), (52.0, 51.5), (51.0, 51.0)]):
        record("cpu", "cross_entropy", seed, here)
        record("gpu", "cross_entropy", seed, there, device="GPU", settings={"method_source": "def"})
    record("cpu", "contextrast", 0, 40.0, method="contextrast")
    record("gpu", "contextrast", 1, 41.0, method="contextrast")  # another seed
    text = write_repeats(tmp_path / "cpu", tmp_path / "gpu", "whole", tmp_path / "out.md").read_text()
    assert "| Cross entropy | 3 | 51.00 | 51.17 | +1.00, -0.50, +0.00 |" in text
    assert "contextrast" not in text
    assert "cpu: CPU with torch 2.13.0. gpu: GPU with torch 2.13.0." in text
    # Differences 1, -0.5, 0: mean 1/6, sd 0.7638; t(2) 4.3027.
    assert "+0.17 points on average over 3 runs, 95 % interval \\[-1.73, +2.06\\]" in text
    assert "with its seed fixed: 0.54 points" in text
    assert "Of 3 runs 3 had another version" in text


def test_runs_of_another_length_have_a_row_of_their_own(record, tmp_path):
    longer = {"schedule": SCHEDULE | {"iterations": 4000}}
    for seed, (here, there) in enumerate([(50.0, 51.0), (52.0, 51.0)]):
        record("cpu", "cross_entropy", seed, here)
        record("gpu", "cross_entropy", seed, there)
    record("cpu", "cross_entropy", 0, 70.0, experiment="longer", settings=longer)
    record("gpu", "cross_entropy", 0, 69.0, experiment="longer", settings=longer)
    text = write_repeats(tmp_path / "cpu", tmp_path / "gpu", "whole", tmp_path / "out.md").read_text()
    assert "| Cross entropy, 10 iterations | 2 | 51.00 | 51.00 | +1.00, -1.00 |" in text
    assert "| Cross entropy, 4,000 iterations | 1 | 70.00 | 69.00 | -1.00 |" in text
    # Over seeds: deviations of 1 and -1 on one machine, none on the other: sqrt(2 / 2).
    assert "Over seeds, within an arm and a machine: 1.00 points." in text


def test_only_what_is_one_run_counts_as_one(record, tmp_path):
    record("cpu", "cross_entropy", 0, 50.0)
    record(
        "gpu", "their_name", 0, 51.0, experiment="their_experiment", settings={"schedule": SCHEDULE | {"power": 0.9}}
    )
    record("cpu", "old", 0, 50.0, method="contextrast")  # from before there was the option, whose default it has
    record("gpu", "another", 0, 50.0, method="contextrast", options={"by_distance": False})
    record("gpu", "new", 0, 52.0, method="contextrast", options={"by_distance": True})
    record("cpu", "other_batch", 1, 50.0)
    record("gpu", "other_batch", 1, 50.0, settings={"schedule": SCHEDULE | {"batch": 16}})
    record("cpu", "other_data", 2, 50.0, settings={"data": "a"})
    record("gpu", "other_data", 2, 50.0, settings={"data": "b"})
    for place in ("cpu", "gpu"):
        record(place, "theirs", 4, 50.0, method="external")  # training unknown
    record("cpu", "other_protocol", 3, 50.0)
    record("gpu", "other_protocol", 3, 50.0, protocol="ms_flip")
    text = write_repeats(tmp_path / "cpu", tmp_path / "gpu", "whole", tmp_path / "out.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")][2:]
    assert rows == ["| Cross entropy | 1 | 50.00 | 51.00 | +1.00 |", "| old | 1 | 50.00 | 52.00 | +2.00 |"]


def test_folders_without_a_shared_run_are_refused(record, tmp_path):
    record("cpu", "cross_entropy", 0, 50.0)
    record("gpu", "cross_entropy", 1, 50.0)
    with pytest.raises(UserError, match="share no run that was evaluated by whole"):
        write_repeats(tmp_path / "cpu", tmp_path / "gpu", "whole", tmp_path / "out.md")
    outcome = CliRunner().invoke(app, ["repeats", str(tmp_path), str(tmp_path / "gpu")])
    assert isinstance(outcome.exception, UserError)
    assert "there are no runs in" in str(outcome.exception)


def test_by_default_the_table_stands_among_the_second_folders_reports(record, tmp_path):
    record("cpu", "cross_entropy", 0, 50.0)
    record("gpu", "cross_entropy", 0, 50.5)
    outcome = CliRunner().invoke(app, ["repeats", str(tmp_path / "cpu"), str(tmp_path / "gpu")])
    assert outcome.exit_code == 0, outcome.output
    assert "+0.50" in (tmp_path / "gpu" / "reports" / "repeats.md").read_text()
