"""Training steps replayed as CUDA graphs, beside the same steps one operation at a time."""

import copy
import warnings

import pandas as pd
import pytest
import torch

from harness import datasets
from harness.compute.graph import Graphs
from harness.compute.machine import Machine
from harness.cost.arms import fill_memories, generated_batch
from harness.experiment.schema import Experiment, Schedule, discovery
from harness.training import device_samples
from harness.training.train import train
from harness.training.trainer import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]
CLASSES, SIZE, STEPS = 11, (96, 128), 20
CUDA = torch.device("cuda")


def trainer(method, graphs, starts_at=0.0, **schedule):
    given = {"iterations": 1000, "learning_rate": 0.01, "policy": "constant", "batch": 4, "crop": SIZE, "log_every": 5}
    settings = {
        "model": "lite0_fpn_scratch",
        "method": method,
        "options": discovery.options(method),
        "seed": 0,
        "starts_at": starts_at,
        "schedule": Schedule.model_validate(given | {"channels_last": True} | schedule).model_dump(mode="json"),
    }
    made = Trainer(settings, CLASSES, CUDA, weights="none", graphs=graphs)
    fill_memories(made.method)
    return made


@pytest.fixture(autouse=True)
def exact():
    """No search for algorithms and no rounded factors, so that both ways do the same sums."""
    cudnn, before = torch.backends.cudnn, torch.get_float32_matmul_precision()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_float32_matmul_precision("highest")
    cudnn.allow_tf32 = False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    torch.use_deterministic_algorithms(False)
    torch.set_float32_matmul_precision(before)
    cudnn.allow_tf32 = True


def steps(made, start=0, stop=STEPS):
    """The losses and the norms of some steps; the learning rate falls, as a schedule's does."""
    images, labels = generated_batch(CLASSES, 4, SIZE)
    found = []
    for iteration in range(start, stop):
        values = made.step(
            images.roll(iteration, -1), labels.roll(iteration, -1).byte(), iteration, 0.01 / (1 + iteration)
        )
        found.append((float(values["loss"]), float(values["gradient_norm"])))
    return found


@pytest.mark.parametrize(
    ("method", "starts_at"),
    [("cross_entropy", 0.0), ("contextrast", 0.0), ("contextrast", 0.008), ("pixel_contrast", 0.0)],
)
def test_a_replayed_step_is_the_eager_one(method, starts_at):
    eager, replayed = (trainer(method, graphs, starts_at) for graphs in (False, True))
    expected, found = steps(eager), steps(replayed)
    assert replayed.replays
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    for ours, theirs in zip(replayed.network.parameters(), eager.network.parameters(), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_resumed_training_is_the_uninterrupted_one(optimizer):
    whole = trainer("contextrast", graphs=True, optimizer=optimizer)
    expected = steps(whole, 0, 8)
    state = copy.deepcopy(whole.state_dict())
    expected = steps(whole, 8)
    resumed = trainer("contextrast", graphs=True, optimizer=optimizer)
    resumed.load_state_dict(state)
    found = steps(resumed, 8)
    assert resumed.replays
    assert [loss for loss, _ in found] == pytest.approx([loss for loss, _ in expected], rel=1e-3)


def test_a_step_that_diverges_is_noted_where_it_did():
    made = trainer("cross_entropy", graphs=True)
    steps(made, 0, 8)
    with torch.no_grad():
        next(made.network.parameters()).fill_(float("nan"))
    steps(made, 8, 12)
    assert made.diverged_at() == 8


def test_what_waits_for_the_gpu_or_cannot_be_captured_runs_as_usual(capsys):
    number = torch.ones((), device=CUDA)

    def waits(x):
        return x * float(number)

    def refuses(x):
        if torch.cuda.is_current_stream_capturing():
            raise ValueError("not this")
        return x + torch.rand((), device=CUDA)

    for function, expected in ((waits, "the host waits for the GPU"), (refuses, "not this")):
        calls, x = Graphs(function, "it"), torch.arange(3.0)
        found = []
        for call in range(5):
            torch.manual_seed(call)
            found.append(calls(None, x + call).cpu())
        assert not calls.replays
        told = capsys.readouterr().err
        assert told.count("runs without a CUDA graph") == 1
        assert expected in told
        for call, values in enumerate(found):
            torch.manual_seed(call)
            assert torch.equal(values, function((x + call).cuda()).cpu())


def test_random_numbers_of_a_replay_are_those_of_its_seed():
    calls = Graphs(lambda x: torch.rand_like(x), "it")
    x = torch.zeros(1000, device=CUDA)
    for seed in range(6):
        torch.manual_seed(seed)
        found = calls(None, x).clone()
        torch.manual_seed(seed)
        assert torch.equal(found, torch.rand_like(x))
    assert calls.replays


def test_a_state_that_is_replaced_is_not_captured(capsys):
    held = {"sum": torch.zeros(3, device=CUDA)}

    def add(x):
        held["sum"] = held["sum"] + x
        return held["sum"]

    calls = Graphs(add, "it", held.values)
    found = [calls(None, torch.ones(3)).tolist() for _ in range(5)]
    assert found == [[float(count)] * 3 for count in range(1, 6)]
    assert "replaced, not written into" in capsys.readouterr().err


@pytest.mark.parametrize(("method", "part"), [("cross_entropy", 0.0), ("contextrast", 0.25)])
def test_a_whole_training_is_replayed_from_samples_made_on_the_gpu(
    method, part, experiment_file, tiny_data, tmp_path, monkeypatch
):
    """With decoded images that lie there, and with images that are sent there."""
    monkeypatch.setattr(device_samples, "PART", part)
    schedule = {"iterations": 24, "batch": 2, "crop": [64, 64], "learning_rate": 0.01, "photometric": {}}
    schedule |= {"log_every": 8, "checkpoint_every": 16}
    experiment = Experiment.load(experiment_file(datasets=["tiny"], schedule=schedule))
    run, losses = experiment.run("tiny", "hrnet_tiny", method, 0), {}
    for name, plain in (("gpu", False), ("cpu", True)):
        machine = Machine("cuda", gpu_samples=not plain, graphs=not plain, workers=0 if plain else None)
        record = train(experiment, run, tmp_path / name, machine, root=datasets.resolve_root("tiny"))
        assert record.status == "done", record
        how = record.provenance
        assert (how.samples, how.cuda_graph) == (name, not plain)
        losses[name] = pd.read_csv(run.folder(tmp_path / name) / "curve.csv").loss
    assert losses["gpu"].to_numpy() == pytest.approx(losses["cpu"].to_numpy(), rel=0.02)
