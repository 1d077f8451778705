"""A training step in a process that keeps the memory it frees, beside one that does as glibc does by default.

Run with `--benchmark-enable -s`. lite0_fpn, batch 8 of 180x240, 11 classes, cross entropy: the step of
config/camvid-small.yaml, one thread. Each process takes STEPS steps after two that do not count; the processes take
turns, so the ratio does not hang on the machine's mood.
"""

import platform
import subprocess
import sys

import numpy as np
import pytest

STEPS, TURNS = 6, 4
PROGRAM = """
import sys, time, torch
from harness.cost.arms import LEARNING_RATE, generated_batch, schedule, trainer
from harness.compute.machine import keep_freed_memory
torch.set_num_threads(1)
if sys.argv[1] == "kept":
    keep_freed_memory()
made = trainer("lite0_fpn", "cross_entropy", 11, torch.device("cpu"), schedule(8, (180, 240), channels_last=True))
batch = generated_batch(11, 8, (180, 240))
for number in range(int(sys.argv[2]) + 2):
    if number == 2:
        start = time.perf_counter()
    made.step(*batch, number, LEARNING_RATE)
print(time.perf_counter() - start)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this system's C library is not glibc")
def test_kept_memory(benchmark, repository):
    if benchmark.disabled:
        pytest.skip("a measurement: run with --benchmark-enable")

    def seconds(mode: str) -> float:
        command = [sys.executable, "-c", PROGRAM, mode, str(STEPS)]
        return float(subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout)

    def turns() -> list[tuple[float, float]]:
        return [(seconds("default"), seconds("kept")) for _ in range(TURNS)]

    ratios = [default / kept for default, kept in benchmark.pedantic(turns, rounds=1)]
    benchmark.extra_info["times faster than glibc's default"] = round(float(np.median(ratios)), 3)
    benchmark.extra_info["in turns"] = f"{min(ratios):.3f} to {max(ratios):.3f}"
    print(f"\nkept over default: {np.median(ratios):.3f} times as fast ({min(ratios):.3f} to {max(ratios):.3f})")
