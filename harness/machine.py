"""Where and with what a run is computed."""

from dataclasses import dataclass
from typing import Literal

import torch

from harness.errors import UserError


@dataclass(frozen=True)
class Machine:
    """How to compute, which must not change what comes out (but for rounding, where device or threads differ)."""

    device: str = "auto"
    workers: int = 0
    threads: int | None = None
    cache: Literal["ram", "disk"] | None = None  # where decoded training images are kept

    def use(self) -> torch.device:
        """Set the number of threads and return the device. Raises UserError if there is no such device."""
        if self.threads:
            torch.set_num_threads(self.threads)
        name = self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        if name.startswith("cuda") and not torch.cuda.is_available():
            raise UserError(f"--device {name}: no CUDA device was found; use --device cpu")
        return torch.device(name)
