import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from harness.compute import machine as machines
from harness.compute.machine import MOST_READERS, SEARCH_PAYS, Machine

HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")  # "[always]": a fault clears 2 MB, counted as one page

# Fills 40 tensors of 40 MB one after another; prints the pages that the system cleared for the last 30.
PROGRAM = """
import resource, sys, torch
from harness.compute.machine import Machine
torch.set_num_threads(1)
if sys.argv[1] == "kept":
    Machine("cpu", threads=1).use()
for number in range(40):
    if number == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(10_000_000).add_(1)
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() // 1_000_000)
"""


@pytest.mark.skipif(HUGE.exists() and "[always]" in HUGE.read_text(), reason="pages are huge, faults tell nothing")
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this system's C library is not glibc")
@pytest.mark.slow
def test_a_cpu_process_keeps_the_memory_that_it_frees(repository):
    def cleared(mode: str) -> int:
        command = [sys.executable, "-c", PROGRAM, mode]
        return int(subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout)

    assert cleared("default") > 30 * 40 / 2  # MB
    assert cleared("kept") < 40


@pytest.mark.parametrize(
    ("processors", "gpus", "sharers", "readers"),
    [(16, 1, 1, 15), (64, 1, 1, MOST_READERS), (64, 8, 1, 7), (16, 1, 4, 3), (8, 8, 1, 1), (2, 0, 1, 1)],
)
def test_a_gpu_gets_its_part_of_the_processors_to_read(monkeypatch, processors, gpus, sharers, readers):
    monkeypatch.setattr(machines.devices, "cores", lambda: processors)
    monkeypatch.setattr(machines.devices, "on_machine", lambda: gpus)
    monkeypatch.setattr(machines.devices, "sharers", lambda: sharers)
    assert Machine().readers(torch.device("cuda")) == readers
    assert Machine(workers=3).readers(torch.device("cuda")) == 3


def test_a_training_on_a_cpu_reads_by_itself_unless_it_is_told():
    assert Machine().readers(torch.device("cpu")) == 0
    assert Machine(workers=2).readers(torch.device("cpu")) == 2


@pytest.mark.parametrize(
    ("device", "deterministic", "iterations", "searches", "precision"),
    [
        ("cuda", False, None, True, "high"),
        ("cuda", False, SEARCH_PAYS, True, "high"),
        ("cuda", False, SEARCH_PAYS - 1, False, "high"),
        ("cuda", True, SEARCH_PAYS, False, "highest"),
        ("cpu", False, SEARCH_PAYS, False, "highest"),
    ],
)
def test_a_gpu_rounds_and_searches_unless_bits_are_promised_or_it_does_not_pay(
    monkeypatch, device, deterministic, iterations, searches, precision
):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark_limit", torch.backends.cudnn.benchmark_limit)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    Machine(deterministic=deterministic).hasten(torch.device(device), iterations)
    found = torch.backends.cudnn.benchmark, torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(before)
    assert found == (searches, precision)
