"""`schedule.compile: true`: the eager network's numbers and names, and one sentence where a compiler is missing."""

import os
import shutil
import subprocess
import sys

import pytest
import torch

from harness.compute.machine import Machine
from harness.cost.arms import LEARNING_RATE, generated_batch
from harness.errors import UserError
from harness.experiment.schema import Experiment
from harness.models import compiled
from harness.runs.record import fingerprint
from harness.training.train import train
from harness.training.trainer import Trainer

CLASSES, SIZE = 5, (64, 64)
CPU = torch.device("cpu")


def experiment_of(experiment_file, datasets=("scenes",), **schedule):
    schedule = {"iterations": 4, "batch": 2, "crop": SIZE, "learning_rate": 0.01, "log_every": 2} | schedule
    return Experiment.load(experiment_file(datasets=list(datasets), schedule=schedule | {"checkpoint_every": 2}))


def trainer(experiment_file, method="contextrast", **schedule):
    experiment = experiment_of(experiment_file, **schedule)
    settings = experiment.settings(experiment.run("scenes", "hrnet_tiny", method, 0))
    return Trainer(settings, CLASSES, CPU, weights="none")


def gradients(made):
    # Noise: in generated images one value lies so close to a ReLU's corner that rounding alone decides its gradient.
    images = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    _, labels = generated_batch(CLASSES, 2, SIZE)
    made.step(images, labels, 1, LEARNING_RATE)  # iteration 1 closes a row: diagnostics too
    return {name: each.grad for name, each in made.network.named_parameters()}


def compare(experiment_file):
    plain, fast = trainer(experiment_file), trainer(experiment_file, compile=True)
    expected, found = gradients(plain), gradients(fast)
    scale = max(float(each.norm()) for each in expected.values())
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-5 * scale, msg=name)
    # The same names both ways, so that checkpoints load both ways.
    assert list(plain.state_dict()["network"]) == list(fast.state_dict()["network"])
    fast.load_state_dict(plain.state_dict())
    plain.load_state_dict(fast.state_dict())


@pytest.mark.slow
def test_gradients_and_checkpoints_are_those_of_the_eager_network(experiment_file, monkeypatch):
    traced = []

    def tracing(graph, inputs):  # runs the traced graph as it is: all of compiling but a compiler
        traced.append(graph.code)
        return graph

    monkeypatch.setattr(compiled, "BACKEND", tracing)
    torch.compiler.reset()
    compare(experiment_file)
    code = "".join(traced)
    assert "lerp" in code and "mode = 'bilinear'" not in code  # resized without atomics


@pytest.mark.exhaustive  # a C++ compiler takes minutes the first time
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_so_they_are_with_a_compiler(experiment_file):
    torch.compiler.reset()
    compare(experiment_file)


def test_in_eval_mode_the_network_runs_as_it_was(experiment_file, monkeypatch):
    monkeypatch.setattr(compiled, "BACKEND", lambda *_: pytest.fail("compiled"))
    network = trainer(experiment_file, compile=True).network.eval()
    plain = trainer(experiment_file).network.eval()
    image = torch.randint(0, 256, (1, 3, 48, 80), dtype=torch.uint8)
    assert torch.equal(network(image), plain(image))


def test_fingerprints_without_it_stay(experiment_file):
    default, off, on = (
        experiment.settings(experiment.runs()[0])
        for experiment in (
            experiment_of(experiment_file, **keys) for keys in ({}, {"compile": False}, {"compile": True})
        )
    )
    assert "compile" not in default["schedule"] and on["schedule"]["compile"] is True
    assert fingerprint(default) == fingerprint(off) != fingerprint(on)


def test_a_missing_compiler_is_one_sentence_before_training(experiment_file, tiny_data, tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    experiment = experiment_of(experiment_file, ["tiny"], compile=True)
    run = experiment.runs()[0]
    with pytest.raises(UserError, match=r"compiler.*no-such-compiler.*schedule\.compile=false"):
        train(experiment, run, tmp_path, Machine("cpu"), root=tiny_data, weights="none")
    assert not list(run.folder(tmp_path).glob("*.json"))


ONE_KERNEL = """
import torch
from torch._dynamo.utils import counters
from harness.models import build, compiled
from harness.models.segmenter import Segmenter

network = build("hrnet_tiny", 3, "none")
type(network).compilable = Segmenter.compilable
compiled.compile_network(network)
logits = torch.zeros(1, 3, 4, 4, requires_grad=True)
network.losses(logits, [], torch.zeros(1, 16, 16, dtype=torch.long))["cross_entropy"].backward()
print(counters["aot_autograd"]["autograd_cache_hit"])
"""


@pytest.mark.exhaustive
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler")
def test_a_second_process_finds_what_the_first_compiled(tmp_path):
    environment = os.environ | {"CONTEXTRAST_BENCH_CACHE": str(tmp_path)}
    environment.pop(compiled.CACHE, None)  # another test's
    command = [sys.executable, "-c", ONE_KERNEL]
    runs = [subprocess.run(command, env=environment, capture_output=True, text=True, check=True) for _ in range(2)]
    assert [int(run.stdout.split()[-1]) for run in runs] == [0, 1]
    assert any((tmp_path / "compiled").iterdir())
