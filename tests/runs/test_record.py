"""The type of records: committed ones load without loss, old keys are translated, and a wrong value is named."""

import json

import pytest
from run_files import make_record

from harness.errors import UserError
from harness.experiment.run import Run
from harness.experiment.schema import Experiment
from harness.runs.record import Record, describe_keys, fingerprint, records_below, write_json

KEY = {"experiment": "e", "dataset": "d", "model": "m", "arm": "a", "seed": 3}
LEAST = {"key": KEY, "method": "cross_entropy", "status": "done", "settings": {"seed": 3}}


def contains(whole, part):
    """Whether every value of `part`, nested ones too, is in `whole`."""
    if isinstance(part, dict) and isinstance(whole, dict):
        return all(contains(whole.get(name), value) for name, value in part.items())
    return whole == part


def test_every_committed_record_loads_and_loses_nothing(repository):
    paths = records_below(repository / "results" / "reference")
    assert len(paths) > 100
    for path in paths:
        raw = json.loads(path.read_text())
        for name in ("schema", "record_hash"):
            raw.pop(name, None)
        record = Record.load(path)
        assert contains(record.model_dump(mode="json"), raw), path
        assert record.key.folder(path.parents[6]) == path.parent
        assert record.schedule.iterations == raw["settings"]["schedule"]["iterations"]


def test_what_is_saved_is_loaded_with_keys_of_another_version(experiment_file, tmp_path):
    experiment = Experiment.load(experiment_file())
    record = make_record(experiment, experiment.runs()[0], later={"a": 1}, seconds=2.5)
    record.save(tmp_path / "record.json")
    assert Record.load(tmp_path / "record.json") == record
    assert record.but(seconds=3.0).later == {"a": 1}
    assert "root" not in json.loads((tmp_path / "record.json").read_text())  # a path of this machine


def load(tmp_path, **changes):
    write_json(tmp_path / "record.json", LEAST | changes)
    return Record.load(tmp_path / "record.json")


def test_what_earlier_versions_wrote_is_translated(tmp_path):
    old = load(tmp_path, provenance={})
    assert (old.key, old.provenance, old.fingerprint) == (Run(**KEY), None, fingerprint({"seed": 3}))
    for kind, hours in (("cuda", 0.5), ("cpu", None)):
        assert load(tmp_path, seconds=1800.0, provenance={"device": {"type": kind}}).gpu_hours == hours
    assert load(tmp_path, seconds=1800.0, gpu_hours=2.0, provenance={"device": {"type": "cuda"}}).gpu_hours == 2.0
    contextrast = load(tmp_path, method="contextrast", settings={"options": {"alpha": 0.3}})
    assert contextrast.current_options == {"weight": 0.3}
    assert load(tmp_path, method="gone", settings={"options": {"alpha": 0.3}}).current_options == {"alpha": 0.3}


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"key": KEY | {"seed": "3"}}, "key.seed"),
        ({"key": {}}, "key.experiment"),
        ({"status": "great"}, "status"),
        ({"settings": None}, "settings"),
        ({"seconds": -1.0}, "seconds"),
        ({"iterations": 1.5}, "iterations"),
        ({"scores": {"whole": {"miou": "50"}}}, "scores.whole.miou"),
        ({"provenance": {"commit": "abc"}}, "provenance.commit"),
        ({"energy": {"gpu": {"joules": 1.0}}}, "energy.gpu.seconds"),
        ({"health": [{"mark": "collapsed", "value": "1", "threshold": 1}]}, "health.0.value"),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_key(tmp_path, changes, key):
    with pytest.raises(UserError, match=rf"record\.json: {key}:? "):
        load(tmp_path, **changes)


def test_every_key_has_a_line_in_the_documents_table():
    listed = {name: kind for name, kind, _ in describe_keys()}
    assert set(Record.model_fields) - listed.keys() == {"protocols", "root", "class_pixels"}
    assert listed["weights_hash"] == "sha256 or null" and "`diverged`" in listed["status"]
