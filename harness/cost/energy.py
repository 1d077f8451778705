"""Energy of a piece of work, where the machine counts it; absent, never zero, where it does not."""

from contextlib import suppress
from pathlib import Path

import torch

from harness.cost import nvml

POWERCAP = Path("/sys/class/powercap")  # Linux: the counters of Intel's and AMD's processors (RAPL)


class EnergyMeter:
    """Counts from `with EnergyMeter(device) as meter:` on; `meter.joules()` says what was used until then.

    {"gpu": J of the device, "processor": J of all processor packages}, each only where it is counted. Both are of the
    whole device, whoever else uses it. A processor's counter starts over after minutes to hours: `joules` must be
    called, or the block ended, before it has done so twice.
    """

    def __init__(self, device: torch.device, powercap: Path = POWERCAP) -> None:
        self.gpu = nvml.gpu(device)
        zones = sorted(powercap.glob("intel-rapl:[0-9]*"))
        self.packages = [zone for zone in zones if zone.name.count(":") == 1]  # not their parts, which they count
        self._ended: dict[str, float] | None = None

    def __enter__(self) -> "EnergyMeter":
        self._gpu = self.gpu.joules() if self.gpu else None
        counters = {package: _read(package, "energy_uj") for package in self.packages}
        self._counters = {package: before for package, before in counters.items() if before is not None}
        self._processor = 0.0
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = self.joules()

    def joules(self) -> dict[str, float]:
        """What was used since the start."""
        if self._ended is not None:
            return self._ended
        used = {}
        now = self.gpu.joules() if self.gpu else None
        if now is not None and self._gpu is not None:
            used["gpu"] = now - self._gpu
        for package, before in self._counters.items():
            after = _read(package, "energy_uj")
            if after is None:
                continue
            overflow = _read(package, "max_energy_range_uj") or 0
            self._processor += (after - before + (overflow if after < before else 0)) / 1e6
            self._counters[package] = after
        if self._counters:
            used["processor"] = self._processor
        return used


def _read(package: Path, name: str) -> int | None:
    """A counter in microjoules; None where only the administrator may read it."""
    with suppress(OSError, ValueError):
        return int((package / name).read_text())
    return None
