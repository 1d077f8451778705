"""Where and with what a run is computed."""

import re
from dataclasses import dataclass
from typing import Literal

import torch

from harness import devices
from harness.errors import UserError


@dataclass(frozen=True)
class Machine:
    """How to compute, which must not change what comes out (but for rounding, where device or threads differ)."""

    device: str = "auto"
    workers: int = 0
    threads: int | None = None
    cache: Literal["ram", "disk"] | None = None  # where decoded training images are kept

    def use(self) -> torch.device:
        """Set the number of threads, lease a GPU unless `device` is cpu, and return the device.

        Waits while all GPUs are leased by other processes (`devices.lease`); a leased one is the only one that CUDA
        shows, so "cuda" is what "cuda:3" gives too. Raises UserError if there is no such device.
        """
        if self.threads:
            torch.set_num_threads(self.threads)
        asked = re.fullmatch(r"auto|cpu|cuda(?::(\d+))?", self.device)
        if asked is None:
            raise UserError(f"--device {self.device}: give auto, cpu, cuda or cuda:N")
        name = self.device
        # Before torch asks CUDA anything: what is visible afterwards stays so.
        if name != "cpu" and devices.lease(int(asked[1]) if asked[1] else None):
            name = "cuda" if name != "auto" else name
        if name == "auto":
            name = "cuda" if torch.cuda.is_available() else "cpu"
        if name.startswith("cuda") and not torch.cuda.is_available():
            raise UserError(f"--device {self.device}: no CUDA device was found; use --device cpu")
        return torch.device(name)
