"""Where and with what a run is computed."""

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

# glibc's numbers of what mallopt sets (malloc.h), and to what, in bytes but for the first: no block of memory is mapped
# for itself, nothing free is returned to the system, and the heap grows by so much at a time.
_KEEPING = {"M_MMAP_MAX": (-4, 0), "M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_TOP_PAD": (-2, 2**28)}


MOST_READERS = 16  # of one run
# Algorithms that cuDNN tries of each convolution, the most promising ones first. With torch's default of 10, two
# networks lite0_fpn took a minute on an H200 to be built and warmed up.
SEARCHED = 4
# Iterations from which on the search is taken to pay. On an H200 the first iteration of lite0_fpn with crops of 180x240
# took 14 s with it, the later ones 7 ms.
SEARCH_PAYS = 10_000


@dataclass(frozen=True)
class Machine:
    """How to compute, which must not change what comes out (but for rounding, where device or threads differ)."""

    device: str = "auto"
    workers: int | None = None  # processes that read and augment; None: as many as feed the device (`readers`)
    threads: int | None = None
    cache: Literal["auto", "ram", "disk"] | None = "auto"  # where decoded training images are kept (`open_cache`)
    deterministic: bool = False  # on a GPU, the same bits from the same command, at some cost in speed
    alone: bool = False  # on a GPU that no other process uses, even where some may share it
    gpu_samples: bool = True  # on a GPU that has room for the training images, augment them there
    graphs: bool = True  # on a GPU, replay training steps as a CUDA graph where that is possible
    undetermined: set[str] = field(default_factory=set, compare=False)  # what torch has no such algorithm for

    def use(self) -> torch.device:
        """Set the number of threads, lease a GPU unless `device` is cpu, and return the device.

        On a CPU this process keeps from now on what memory it frees (`keep_freed_memory`).

        Waits while all GPUs are leased by other processes (`devices.lease`); a leased one is the only one that CUDA
        shows, so "cuda" is what "cuda:3" gives too. Raises UserError if there is no such device.
        """
        if self.threads:
            torch.set_num_threads(self.threads)
        asked = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", self.device)
        if asked is None:
            raise UserError(f"--device {self.device}: give auto, cpu, cuda or cuda:N")
        if self.deterministic:
            self._determine()
        name = self.device
        # Before torch asks CUDA anything: what is visible afterwards stays so.
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
        """On a GPU let cuDNN search for the fastest convolutions, and float32 products round their factors as those do.

        Crops have one size, so it searches once, in the first iteration; not for a training of too few `iterations`
        (None: enough).
        """
        if device.type == "cuda" and not self.deterministic:
            torch.backends.cudnn.benchmark = iterations is None or iterations >= SEARCH_PAYS
            torch.backends.cudnn.benchmark_limit = SEARCHED
            torch.set_float32_matmul_precision("high")

    def readers(self, device: torch.device) -> int:
        """How many processes read and augment for a training on `device`.

        A CPU is busy with the training itself. For a GPU, its part of the processors, less one for the training.
        """
        if self.workers is not None:
            return self.workers
        if device.type != "cuda":
            return 0
        return max(1, min(MOST_READERS, processors_of_a_run() - 1))

    def _determine(self) -> None:
        """Let torch choose algorithms that give the same bits every time, before CUDA starts.

        Where it has none, it takes another one and warns; `undetermined` collects these warnings instead.
        """
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # it takes time
        torch.backends.cudnn.benchmark = False
        show = warnings.showwarning

        def collect(message: Warning | str, *others: Any, **more: Any) -> None:
            if (found := re.match(r"(\S+) does not have a deterministic implementation", str(message))) is not None:
                self.undetermined.add(found[1])
            else:
                show(message, *others, **more)  # type: ignore[arg-type]  # as it was called

        warnings.showwarning = collect  # type: ignore[assignment]  # `show` with its arguments


def processors_of_a_run() -> int:
    """How many processors there are here for each run that may be on one of the GPUs; at least one."""
    return max(1, devices.cores() // (max(1, devices.on_machine()) * devices.sharers()))


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next tensor; does nothing with another C library.

    By default glibc returns the memory of large tensors to the system at once, which clears every page again for the
    next iteration: a tenth of a training step.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in _KEEPING.values():
            mallopt(option, value)
