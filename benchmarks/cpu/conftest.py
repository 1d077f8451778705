"""Benchmarks of this project's parts on a CPU, each compared with a reference; `make bench` runs them."""

import os
from pathlib import Path

import cv2
import pytest
import torch

os.environ.setdefault("MPLBACKEND", "Agg")


@pytest.fixture
def repository() -> Path:
    return Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def measuring(benchmark):
    if benchmark.disabled:
        pytest.skip("a measurement: run with --benchmark-enable")


@pytest.fixture
def one_core():
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    yield
    cv2.setNumThreads(threads[0])
    torch.set_num_threads(threads[1])
