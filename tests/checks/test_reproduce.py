import dataclasses

import pytest
from run_files import edit

from harness import datasets
from harness.checks import reproduce
from harness.checks.reproduce import Beginning, Comparison, begin, describe, shortest, trained
from harness.compute.machine import Machine
from harness.errors import UserError
from harness.evaluation.evaluate import evaluate
from harness.experiment.run import Run
from harness.experiment.schema import Experiment
from harness.runs.record import Provenance, Record
from harness.training.train import train

MACHINE = Machine("cpu", threads=1)
COMPARISON = Comparison(
    record="a", scores={"whole": (60.0, 62.0)}, differs=["device.name (b there, c asked)"], same_bits=False
)


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        ({}, True),
        ({"scores": {"whole": (60.0, 62.0), "ms_flip": (60.0, 57.4)}}, False),
        ({"differs": []}, False),  # the same machine: other bits are a failure however near the score
        ({"differs": [], "same_bits": True}, True),
    ],
)
def test_bits_on_the_same_machine_and_a_tolerance_elsewhere(changes, passed):
    found = dataclasses.replace(COMPARISON, **changes)
    assert found.passed is passed
    assert describe(found).endswith("pass" if passed else "fail")


BEGINNING = Beginning(
    record="a", iterations=50, names=["loss"], other="loss at iteration 50: 1.0, in the record 1.1", distance=0.049,
    differs=["device.name (b there, c asked)"],
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        ({}, True),
        ({"distance": 0.051}, False),
        ({"distance": float("nan")}, False),
        ({"differs": []}, False),
        ({"differs": [], "other": None, "distance": 0.0}, True),
    ],
)
def test_a_beginning_is_held_to_the_same_rule(changes, passed):
    found = dataclasses.replace(BEGINNING, **changes)
    assert found.passed is passed
    assert describe(found).endswith("pass" if passed else "fail")


@pytest.mark.slow
def test_a_run_is_made_again_from_its_record_alone(experiment_file, tiny_data, tmp_path):
    arms = {"cross_entropy": {}, "late": {"method": "contextrast", "weight": 0.2, "starts_at": 0.5}}
    experiment = Experiment.load(experiment_file(datasets=["tiny"], arms=arms))
    root, folders = datasets.resolve_root("tiny"), {}
    for arm in arms:
        run = experiment.run("tiny", "hrnet_tiny", arm, 0)
        train(experiment, run, tmp_path, MACHINE, root=root)
        evaluate(run.folder(tmp_path), MACHINE, protocols=["whole"])
        folders[arm] = run.folder(tmp_path)

    for arm, seconds in (("cross_entropy", 9.0), ("late", 4.0)):
        edit(folders[arm] / "record.json", seconds=seconds)
    record = Record.load(folders["late"] / "record.json")
    made = record.provenance.model_dump()
    device = made["device"]
    here, gpu = {"type": "cpu", "name": device["name"]}, {"type": "cuda"}
    assert shortest(tmp_path, here) == shortest(tmp_path, gpu) == folders["late"]
    for other in (gpu, {"name": "another processor"}):
        edit(folders["late"] / "record.json", provenance=made | {"device": device | other})
        assert shortest(tmp_path, here) == folders["cross_entropy"]  # of those that were trained on such a device
        assert shortest(tmp_path, device | other) == folders["late"]
    assert list(trained(tmp_path, here | {"name": "a third one"})) == list(folders.values())
    assert list(trained(tmp_path, here | {"model": "of no record"})) == [folders["cross_entropy"]]
    record.save(folders["late"] / "record.json")
    found = reproduce.reproduce(folders["late"], tmp_path / "again", root, MACHINE, [])
    assert (found.differs, found.same_bits, found.passed) == ([], True, True)

    edit(folders["late"] / "record.json", weights_hash="0" * 64, provenance=made | {"python": "3.9.1"})
    found = reproduce.reproduce(folders["late"], tmp_path / "again", root, MACHINE, ["whole"])  # not trained again
    assert (found.same_bits, found.passed) == (False, True)
    assert len(found.differs) == 1 and "3.9.1" in found.differs[0]

    # Its first iterations alone, beside its curve.
    found = begin(folders["late"], tmp_path / "begun", root, MACHINE, 2)
    assert (found.other, found.distance, found.passed) == (None, 0.0, True)
    assert {"loss", "cross_entropy", "gradient_norm", "learning_rate"} <= set(found.names)
    assert sorted(path.name for path in (tmp_path / "begun").rglob("*.*")) == ["verify.json"]  # it keeps nothing
    curve = (folders["late"] / "curve.csv").read_text().splitlines()
    first = curve[1].split(",")
    place = curve[0].split(",").index("gradient_norm")
    first[place] = repr(float(first[place]) * (1 + 1e-12))
    (folders["late"] / "curve.csv").write_text("\n".join([curve[0], ",".join(first), *curve[2:]]))
    found = begin(folders["late"], tmp_path / "begun", root, MACHINE, 2)
    assert found.other.startswith("gradient_norm at iteration 2: ")
    assert found.distance == 0.0
    assert found.passed  # the record's Python was said to be another
    assert not dataclasses.replace(found, differs=[]).passed
    with pytest.raises(UserError, match=r"--iterations 7: .* logged every 2 of 10 iterations"):
        begin(folders["late"], tmp_path / "begun", root, MACHINE, 7)


def test_on_a_gpu_the_same_bits_are_not_due():
    known = {"key": Run("e", "d", "m", "a", 0), "method": "cross_entropy", "status": "done", "settings": {}}
    made = Provenance(python="3.12.3", packages={"torch": "2.11.0"}, device={"type": "cuda", "name": "H100"})
    [said] = reproduce._differing_machine(Record(**known, provenance=made), made)
    assert "a GPU's order of summation" in said
    made = Provenance(python="3.12.3", device={"type": "cpu", "name": "EPYC"})
    assert reproduce._differing_machine(Record(**known, provenance=made), made) == []


FORMER = {  # {method: {option in the committed records: its name now}}, written down by hand
    "contextrast": {"alpha": "weight"},
    "contextrast_pp": {"alpha": "weight", "memory": "memory_size"},
    "pixel_contrast": {"region_queue": "region_memory_size", "pixel_queue": "pixel_memory_size"},
    "region_contrast": {"queue": "memory_size", "gather_queues": "gather_memory"},
}
FORMER["pixel_contrast"]["gather_queues"] = "gather_memory"
FORMER["pixel_contrast_synthetic"] = FORMER["pixel_contrast"]


@pytest.mark.slow
def test_every_committed_record_can_be_made_again_whatever_its_options_were_called(repository):
    found = 0
    for path in sorted((repository / "results" / "reference").rglob("record.json")):
        record = Record.load(path)
        former, options = FORMER.get(record.method, {}), record.settings["options"]
        experiment, run = reproduce.experiment_of(record, list(record.scores))
        settings = experiment.settings(run)
        for name, value in options.items():
            assert settings["options"][former.get(name, name)] == value
        known = {former.get(name, name) for name in options}
        differing = [each.split()[0] for each in reproduce._differing_settings(record, settings)]
        assert not {f"options.{name}" for name in known} & set(differing)  # one that came later may be there
        found += bool(former.keys() & options.keys())
    assert found > 30  # records from before the names agreed


def test_what_cannot_be_made_again_is_said(repository, tmp_path):
    with pytest.raises(UserError, match="no record of a trained run"):
        shortest(tmp_path, {"type": "cpu"})
    reference = shortest(repository / "results" / "reference", {"type": "cpu"})
    with pytest.raises(UserError, match="was not evaluated by slide"):
        reproduce.reproduce(reference, tmp_path, tmp_path, MACHINE, ["slide"])
