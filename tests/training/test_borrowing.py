import pytest

from harness import datasets
from harness.compute.machine import Machine
from harness.evaluation.evaluate import evaluate
from harness.experiment.schema import Experiment
from harness.runs.record import Record
from harness.training.train import train
from harness.training.trainer import Trainer

pytestmark = pytest.mark.slow


@pytest.fixture
def fit(experiment_file, tiny_data, tmp_path, monkeypatch):
    """Trains an arm of an experiment of that name in one results folder; returns its run, its training.json and how
    many steps were taken."""
    steps = []
    step = Trainer.step
    monkeypatch.setattr(Trainer, "step", lambda *given: (steps.append(given), step(*given))[1])

    def fit(name, *overrides, arm="cross_entropy", **options):
        path = experiment_file(datasets=["tiny"], arms={"cross_entropy": {}, "again": {"method": "cross_entropy"}})
        experiment = Experiment.load(path.rename(path.with_name(f"{name}.yaml")), list(overrides))
        run, before = experiment.run("tiny", "hrnet_tiny", arm, 0), len(steps)
        root, machine = datasets.resolve_root("tiny"), Machine("cpu", threads=1)
        record = train(experiment, run, tmp_path, machine, root=root, **options)
        return run, record, len(steps) - before

    return fit


def test_a_run_of_another_experiment_with_the_same_settings_is_not_trained_again(fit, tmp_path):
    first, trained, steps = fit("main")
    assert steps == trained.iterations > 0
    second, borrowed, steps = fit("ablation", "protocols=[ms_flip]", "absent=zero")
    assert steps == 0
    assert borrowed.borrowed_from == "main/tiny/hrnet_tiny/cross_entropy/seed0"
    assert (borrowed.key, borrowed.protocols, borrowed.absent) == (second, ["ms_flip"], "zero")
    same = ("weights_hash", "settings", "fingerprint", "provenance", "iterations", "status", "seconds")
    assert all(getattr(borrowed, name) == getattr(trained, name) for name in same)
    for name in ("curve.csv", "diagnostics.npz", "checkpoints/inference.safetensors"):
        assert (second.folder(tmp_path) / name).read_bytes() == (first.folder(tmp_path) / name).read_bytes()
    assert Record.load(second.folder(tmp_path) / "training.json") == borrowed
    record = evaluate(second.folder(tmp_path), Machine("cpu", threads=1), protocols=["whole"])
    assert record.borrowed_from == borrowed.borrowed_from


def test_what_differs_is_trained(fit, tmp_path):
    run, _, steps = fit("main")
    assert fit("other", "schedule.learning_rate=0.05")[2] == steps
    assert fit("third", restart=True)[2] == steps
    (run.folder(tmp_path) / "checkpoints" / "inference.safetensors").unlink()  # nothing to lend
    assert fit("third", arm="again", restart=True)[2] == steps
    assert fit("main", arm="again")[2] == 0
    assert fit("main", arm="again", restart=True)[2] == steps
