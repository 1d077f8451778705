import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml

from harness.compute.machine import Machine
from harness.cost import equal_compute, timing
from harness.cost.timing import Plan, Timings
from harness.errors import UserError
from harness.experiment.schema import Experiment
from harness.training.trainer import Trainer

PLAN = Plan(warmup_iterations=2, warmup_seconds=0, rounds=3, settle=0, block=1)
ARMS = {
    "cross_entropy": {},
    "equal": {"method": "cross_entropy", "compute_of": "late"},
    "late": {"method": "contextrast", "starts_at": 0.5},
}


def timings(**nanoseconds):
    return Timings({arm: np.array(rounds, np.int64) for arm, rounds in nanoseconds.items()}, [], {}, None)


def test_the_ratio_is_the_median_of_the_rounds_means():
    rounds = timings(slow=[[30, 50], [60, 60], [9_000, 1_000]], fast=[[10, 30], [40, 40], [1_000, 1_000]])
    assert equal_compute.ratio(rounds, "slow", "fast") == 2  # of 2, 1.5 and 5


def test_the_ratio_multiplies_the_iterations_of_its_pair(experiment_file):
    arms = ARMS | {"late": {"method": "contextrast", "longer": 2}}
    arms["equal"] = arms["equal"] | {"compute_ratio": {"scenes/hrnet_tiny": 1.31}}
    experiment = Experiment.load(experiment_file(arms=arms), ["schedule.iterations=100"])
    found = {run.arm: experiment.settings(run) for run in experiment.runs()}
    assert found["equal"]["schedule"]["iterations"] == 262
    assert found["equal"] == found["cross_entropy"] | {"schedule": found["equal"]["schedule"]}
    elsewhere = experiment_file(arms=arms, models=["lite0_fpn"])
    with pytest.raises(UserError, match=r"arms.equal.compute_ratio has no scenes/lite0_fpn: .*equal-compute"):
        Experiment.load(elsewhere).schedule_of("scenes", "lite0_fpn", "equal")


@pytest.mark.parametrize(
    ("equal", "said"),
    [
        ({"compute_of": "contextras"}, "did you mean contextrast"),
        ({"compute_of": "contextrast", "longer": 2}, "cannot be combined with longer"),
        ({"compute_of": "equal"}, "needs an arm without compute_of"),
        ({"compute_of": "contextrast", "compute_ratio": {"scenes/hrnet_tiny": 0}}, "must be above 0"),
    ],
)
def test_what_compute_of_may_not_be(experiment_file, equal, said):
    arms = {"cross_entropy": {}, "contextrast": {}, "equal": {"method": "cross_entropy"} | equal}
    with pytest.raises(UserError, match=said):
        Experiment.load(experiment_file(arms=arms))


TEXT = """# ä: a comment with letters of two bytes
arms:
  a: {}
  flow: {method: a, compute_of: b} # why
  old: {method: a, compute_of: b, compute_ratio: {x/y: 3.0,  x/z: 1}, starts_at: 0.5}
  block:
    method: a # first
    compute_of: b # second
    starts_at: 0.25
"""


def test_the_ratios_are_written_where_they_belong_and_nothing_else_changes(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT, encoding="utf-8")
    ratios = {"flow": {"x/y": 1.2345678}, "old": {"x/y": 1.5, "x/z": 2.0}, "block": {"x/y": 0.98}}
    equal_compute.fill_in(path, ratios)
    written = path.read_text(encoding="utf-8")
    assert written == TEXT.replace("compute_of: b} # why", "compute_of: b, compute_ratio: {x/y: 1.235}} # why").replace(
        "{x/y: 3.0,  x/z: 1}", "{x/y: 1.5, x/z: 2}"
    ).replace("compute_of: b # second", "compute_of: b\n    compute_ratio: {x/y: 0.98} # second")
    assert yaml.safe_load(written)["arms"]["block"]["compute_ratio"] == {"x/y": 0.98}
    equal_compute.fill_in(path, ratios)
    assert path.read_text(encoding="utf-8") == written
    with pytest.raises(UserError, match=r"arms.a must have the key compute_of"):
        equal_compute.fill_in(path, {"a": {"x/y": 1.0}})


@pytest.fixture
def experiment(experiment_file):
    schedule = {"iterations": 40, "batch": 2, "crop": [32, 48], "learning_rate": 0.01, "log_every": 1}
    schedule |= {"checkpoint_every": 40}
    return Experiment.load(experiment_file(arms=ARMS, datasets=["tiny"], models=["hrnet_tiny"], schedule=schedule))


@pytest.mark.slow
def test_steps_of_both_arms_are_timed_from_the_methods_start_on_training_data(
    tiny_data, tmp_path, monkeypatch, experiment
):
    steps, step, now = [], Trainer.step, 0

    def spy(self, images, labels, iteration, rate):
        nonlocal now
        now += {"Contextrast": 7_500, "CrossEntropy": 5_000}[type(self.method).__name__]
        steps.append((type(self.method).__name__, iteration, images))
        return step(self, images, labels, iteration, rate)

    clock = SimpleNamespace(perf_counter_ns=lambda: now, process_time_ns=lambda: now, monotonic=lambda: now / 1e9)
    monkeypatch.setattr(Trainer, "step", spy)
    monkeypatch.setattr(timing, "time", clock)
    ratios = equal_compute.measure(experiment, Machine("cpu"), tmp_path, plan=PLAN, weights="none")
    assert ratios == {"equal": {"tiny/hrnet_tiny": 1.5}}
    assert {(name, iteration) for name, iteration, _ in steps} == {("Contextrast", 20), ("CrossEntropy", 0)}
    assert {images.shape for *_, images in steps} == {(2, 3, 32, 48)}
    assert len({images.double().sum().item() for *_, images in steps}) == equal_compute.BATCHES
    (path,) = (tmp_path / "cost" / "equal_compute").glob("*/*.json")
    record = json.loads(path.read_text())
    assert record["ratios"] == {"equal": 1.5}
    assert record["arms"]["late"]["settings"]["starts_at"] == 0.5


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_steps_are_replayed_as_in_a_run(tiny_data, tmp_path, experiment, capsys):
    longer = experiment.model_copy(
        update={"schedule": experiment.schedule.model_copy(update={"log_every": 40, "iterations": 400})}
    )
    plan = Plan(warmup_iterations=6, warmup_seconds=0, rounds=6, settle=1, block=5)
    (measured,) = equal_compute.measure(longer, Machine("cuda"), tmp_path, plan=plan, weights="none").values()
    assert 0.5 < measured["tiny/hrnet_tiny"] < 10
    assert "without a CUDA graph" not in capsys.readouterr().err


def test_without_such_an_arm_there_is_nothing_to_measure(experiment_file, tmp_path):
    with pytest.raises(UserError, match=r"no arm of .* has compute_of"):
        equal_compute.measure(Experiment.load(experiment_file()), Machine("cpu"), tmp_path)
