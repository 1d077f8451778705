"""A machine whose processor takes one joule a step."""

import pytest

from harness import datasets
from harness.compute import energy
from harness.compute.machine import Machine
from harness.evaluation.evaluate import evaluate
from harness.experiment.schema import Experiment
from harness.training.train import train
from harness.training.trainer import Trainer

pytestmark = pytest.mark.slow
RANGE = 20_000_000  # microjoules after which the counter starts over


@pytest.fixture
def fit(experiment_file, tiny_data, tmp_path):
    experiment = Experiment.load(experiment_file(datasets=["tiny"]))
    run = experiment.run("tiny", "hrnet_tiny", "contextrast", 0)
    root = datasets.resolve_root("tiny")

    def fit(**options):
        return train(experiment, run, tmp_path, Machine("cpu", threads=1), root=root, **options)

    fit.folder = run.folder(tmp_path)
    return fit


@pytest.fixture
def counted(monkeypatch, tmp_path):
    zone, step = tmp_path / "powercap" / "intel-rapl:0", Trainer.step
    zone.mkdir(parents=True)
    (zone / "max_energy_range_uj").write_text(str(RANGE))
    (zone / "energy_uj").write_text(str(RANGE - 3_000_000))

    def stepping(*arguments):
        before = int((zone / "energy_uj").read_text())
        (zone / "energy_uj").write_text(str((before + 1_000_000) % RANGE))
        return step(*arguments)

    monkeypatch.setattr(Trainer, "step", stepping)
    monkeypatch.setattr(energy, "POWERCAP", zone.parent)


def test_a_continued_run_holds_the_energy_of_all_its_parts(fit, counted):
    begun = fit(timeout=0)
    assert (begun.status, begun.iterations) == ("timeout", 1)
    assert begun.energy["processor"].joules == 1.0
    record = fit()
    used = record.energy["processor"]
    assert used.joules == record.iterations == 10
    assert used.seconds == pytest.approx(record.seconds, abs=0.5)
    assert record.energy.keys() == {"processor"} and record.gpu_hours is None
    assert evaluate(fit.folder, Machine("cpu", threads=1)).energy == record.energy


def test_where_nothing_is_counted_there_is_no_energy(fit, monkeypatch, tmp_path):
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "none")
    assert fit(timeout=0).energy == {}
