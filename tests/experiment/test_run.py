import json
from pathlib import Path

import pytest

from harness.errors import UserError
from harness.experiment.run import Run
from harness.runs.record import SCHEMA, differences, read_json, refuse_other_settings, write_json


def test_the_folder_of_a_run_follows_its_key():
    run = Run("smoke", "scenes", "hrnet_tiny", "contextrast", 2)
    assert run.folder(Path("out")) == Path("out/runs/smoke/scenes/hrnet_tiny/contextrast/seed2")
    assert run.key() == {
        "experiment": "smoke", "dataset": "scenes", "model": "hrnet_tiny", "arm": "contextrast", "seed": 2
    }  # fmt: skip


def test_differences_name_nested_keys_and_both_values():
    found = differences({"a": 1, "s": {"x": 1, "y": 2}}, {"a": 1, "s": {"x": 3, "y": 2}, "z": None})
    assert found == ["s.x (3 there, 1 asked)"]
    assert differences({"a": 1}, {"a": 1}) == []


def test_a_folder_of_other_settings_is_refused_by_name():
    with pytest.raises(UserError, match=r"results/x was made with other settings: seed \(1 there, 2 asked\)"):
        refuse_other_settings(Path("results/x"), {"seed": 2}, {"seed": 1})


def test_records_are_read_back_and_damaged_ones_refused(tmp_path):
    path = tmp_path / "record.json"
    write_json(path, {"status": "done"})
    assert read_json(path) == {"schema": SCHEMA, "status": "done"}
    path.write_text("{")
    with pytest.raises(UserError, match="damaged"):
        read_json(path)
    path.write_text(json.dumps({"schema": SCHEMA + 1}))
    with pytest.raises(UserError, match="schema"):
        read_json(path)
    with pytest.raises(UserError, match=r"no .*missing\.json"):
        read_json(tmp_path / "missing.json")


def test_a_record_is_never_half_written(tmp_path):
    path = tmp_path / "record.json"
    write_json(path, {"kept": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"bad": float("nan")})
    assert read_json(path)["kept"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["record.json"]
