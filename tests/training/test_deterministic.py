import os
import warnings

import pytest
import torch

from harness import datasets
from harness.compute.machine import Machine
from harness.experiment.schema import Experiment
from harness.training.train import train


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """Leaves torch and the environment as they were."""
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    fill = torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = fill
    os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


def test_torch_is_told_before_cuda_starts_and_what_it_cannot_is_collected(monkeypatch):
    shown = []
    monkeypatch.setattr(warnings, "showwarning", lambda message, *_: shown.append(str(message)))
    machine = Machine("cpu", deterministic=True)
    machine.use()
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert not torch.backends.cudnn.benchmark
    assert not torch.cuda.is_initialized()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        for _ in range(2):
            torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))  # torch has no deterministic algorithm for this one
        warnings.warn("something else", UserWarning, stacklevel=1)
    assert machine.undetermined == {"put_"}
    assert shown == ["something else"]


@pytest.mark.slow
def test_on_a_cpu_it_changes_no_bit_and_stands_in_the_record(experiment_file, tiny_data, tmp_path):
    experiment = Experiment.load(experiment_file(datasets=["tiny"]))
    run = experiment.run("tiny", "hrnet_tiny", "contextrast", 0)
    records = []
    for deterministic in (False, True):
        machine = Machine("cpu", threads=1, deterministic=deterministic)
        root = datasets.resolve_root("tiny")
        records.append(train(experiment, run, tmp_path / str(deterministic), machine, root=root))
    assert records[0].weights_hash == records[1].weights_hash
    assert [record.provenance.deterministic for record in records] == [False, True]
    assert records[1].provenance.undetermined == []
