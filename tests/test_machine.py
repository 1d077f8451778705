import platform
import subprocess
import sys
from pathlib import Path

import pytest

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
