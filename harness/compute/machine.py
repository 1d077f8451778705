"""How a run is computed: device, threads, data loading workers, determinism."""

import ctypes
import os
import platform
import re
import warnings
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from harness.compute import devices
from harness.errors import UserError

# mallopt's parameters (malloc.h) and their values: allocate nothing by mmap, return no freed memory to the system, and
# grow the heap by 256 MB at a time.
_KEEPING = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_TOP_PAD": (-2, 2**28)}


MOST_READERS = 16  # per run
# Number of algorithms that cuDNN benchmarks per convolution, the most promising first. With torch's default of 10, it
# took a minute on an H200 to build and warm up two lite0_fpn networks.
SEARCHED = 4
# Benchmark cuDNN's algorithms only in trainings of at least so many iterations: on an H200, lite0_fpn with crops of
# 180x240 took 14 s for the first iteration with benchmarking, and 7 ms for later ones.
SEARCH_PAYS = 10_000


@dataclass(frozen=True)
class Machine:
    """How to compute. None of this may change the results, except for rounding (other device or number of threads)."""

    device: str = "auto"
    workers: int | None = None  # processes that read and augment; None: see `readers`
    threads: int | None = None
    cache: Literal["auto", "ram", "disk"] | None = "auto"  # where to keep decoded training images (`open_cache`)
    deterministic: bool = False  # bit-identical repeats on a GPU too; slower
    alone: bool = False  # do not share the GPU with other processes
    gpu_samples: bool = True  # on a GPU, augment training images there
    graphs: bool = True  # on a GPU, replay training steps as a CUDA graph if possible
    undetermined: set[str] = field(default_factory=set, compare=False)  # operations without a deterministic algorithm

    def use(self) -> torch.device:
        """The device, after setting the number of threads and, unless it is the CPU, leasing a GPU.

        On a CPU, also calls `keep_freed_memory`.

        Waits while other processes lease all GPUs (`devices.lease`). CUDA sees only the leased GPU, so "cuda:3" becomes
        "cuda". Raises UserError if there is no such device.
        """
        if self.threads:
            torch.set_num_threads(self.threads)
        asked = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", self.device)
        if asked is None:
            raise UserError(f"--device {self.device}: give auto, cpu, cuda or cuda:N")
        if self.deterministic:
            self._determine()
        name = self.device
        # Before torch initialises CUDA, which fixes the visible devices.
        if name != "cpu" and devices.lease(int(asked[1]) if asked[1] else None, self.alone):
            name = "cuda" if name != "auto" else name
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        if name.startswith("cuda") and not torch.cuda.is_available():
            raise UserError(f"--device {self.device}: no CUDA device was found; use --device cpu")
        if name == "cpu":
            keep_freed_memory()
        return torch.device(name)

    def hasten(self, device: torch.device, iterations: int | None = None) -> None:
        """On a GPU, let cuDNN benchmark convolution algorithms, and use TF32 for float32 products as convolutions do.

        Crops have one size, so this happens once, in the first iteration. Trainings of fewer than `SEARCH_PAYS`
        `iterations` skip the benchmarking (None: long enough).
        """
        if device.type == "cuda" and not self.deterministic:
            torch.backends.cudnn.benchmark = iterations is None or iterations >= SEARCH_PAYS
            torch.backends.cudnn.benchmark_limit = SEARCHED
            torch.set_float32_matmul_precision("high")

    def readers(self, device: torch.device) -> int:
        """The number of processes that read and augment for a training on `device`.

        None for a CPU, which is busy with the training itself. For a GPU, this run's share of the cores minus one for
        the training.
        """
        if self.workers is not None:
            return self.workers
        if device.type != "cuda":
            return 0
        return max(1, min(MOST_READERS, processors_of_a_run() - 1))

    def _determine(self) -> None:
        """Make torch use deterministic algorithms; call this before CUDA starts.

        For operations that have none, torch uses another algorithm and warns; `undetermined` collects their names.
        """
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # slow
        torch.backends.cudnn.benchmark = False
        show = warnings.showwarning

        def collect(message: Warning | str, *others: Any, **more: Any) -> None:
            if (found := re.match(r"(\S+) does not have a deterministic implementation", str(message))) is not None:
                self.undetermined.add(found[1])
            else:
                show(message, *others, **more)  # type: ignore[arg-type]

        warnings.showwarning = collect  # type: ignore[assignment]  # `show` with its arguments


def processors_of_a_run() -> int:
    """The number of CPU cores for each run that may use one of this machine's GPUs; at least one."""
    return max(1, devices.cores() // (max(1, devices.on_machine()) * devices.sharers()))


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next tensor; does nothing with other C libraries.

    By default glibc returns the memory of large tensors to the system at once, which must zero every page again in the
    next iteration: a tenth of a training step.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in _KEEPING.values():
            mallopt(option, value)
