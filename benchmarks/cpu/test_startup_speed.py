"""Seconds until the command line answers, compared with starting Python and with importing torch, in fresh processes.

The goal is 0.5 s for `python -m harness --help`.
"""

import subprocess
import sys
import time

import pytest

REFERENCES = {"python alone": ["-c", "pass"], "import torch": ["-c", "import torch"]}


def seconds(*arguments):
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


@pytest.mark.parametrize("verb", [["--help"], ["list", "methods"]], ids=" ".join)
def test_startup(benchmark, verb):
    benchmark.pedantic(seconds, ["-m", "harness", *verb], rounds=7, warmup_rounds=1)
    ours = benchmark.stats.stats.median
    for name, arguments in REFERENCES.items():
        reference = sorted(seconds(*arguments) for _ in range(3))[1]
        benchmark.extra_info[f"times {name}"] = round(ours / reference, 2)
    print(f"\nharness {' '.join(verb)}: {ours:.2f} s, {benchmark.extra_info}")
