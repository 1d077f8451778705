"""Energy used by a piece of work, if the machine can measure it; otherwise the value is missing, not zero."""

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import torch

from harness.compute import devices, nvml

POWERCAP = Path("/sys/class/powercap")  # Linux: energy counters of Intel's and AMD's CPUs (RAPL)
PERIOD = 1.0  # seconds between readings of `EnergyMeter.follow`
LONGEST_GAP = 10.0  # seconds between power readings of a GPU; over longer gaps their mean is meaningless

Energy = Mapping[str, Mapping[str, Any]]  # as `EnergyMeter.energy` returns it


class EnergyMeter:
    """Measures energy during `with EnergyMeter(device) as meter:`; `meter.joules()` is the energy used so far.

    {"gpu": J of the device, "processor": J of all CPU packages}, each only if it can be measured. Both include other
    users of the device. In distributed training the GPU energy is missing, since each process sees only its own. Call
    `follow` regularly during long work: a CPU's counter wraps around after minutes to hours, and for a GPU without an
    energy counter its power readings are integrated (a GPU without readings is missing).
    """

    def __init__(self, device: torch.device, powercap: Path | None = None) -> None:
        self.gpu = nvml.gpu(device)
        zones = sorted((powercap or POWERCAP).glob("intel-rapl:[0-9]*"))
        self.packages = [zone for zone in zones if zone.name.count(":") == 1]  # these include their subzones
        self.seconds = 0.0  # from the start to the last reading
        self._counters: dict[str, _Counter] = {}
        self._used: dict[str, float] = {}
        self._ended = False

    def __enter__(self) -> "EnergyMeter":
        self._start = time.monotonic()
        if self.gpu is not None and _processes() == 1 and devices.sharers() == 1:
            counts = self.gpu.joules() is not None
            self._counters["gpu"] = _GpuCounter(self.gpu) if counts else _GpuPower(self.gpu)
        if self.packages:
            self._counters["processor"] = _Packages(self.packages)
        return self

    def __exit__(self, *_: object) -> None:
        self.joules()
        self._ended = True

    def follow(self) -> None:
        """Read the counters if the last reading was at least `PERIOD` ago. Cheap enough for every iteration."""
        if time.monotonic() - self._start - self.seconds >= PERIOD:
            self.joules()

    def joules(self) -> dict[str, float]:
        """Joules used from the start until now, or until the end of the block."""
        if not self._ended:
            before, self.seconds = self.seconds, time.monotonic() - self._start
            read = {part: counter.used(self.seconds - before) for part, counter in self._counters.items()}
            self._used = {part: used for part, used in read.items() if used is not None}
        return self._used

    def energy(self, before: Energy) -> dict[str, dict[str, Any]]:
        """{part: {"joules", "seconds", "source"}}, added to the result of an earlier meter."""
        found = {part: dict(earlier) for part, earlier in before.items()}
        for part, used in self.joules().items():
            earlier = before.get(part, {"joules": 0.0, "seconds": 0.0})
            found[part] = {
                "joules": earlier["joules"] + used,
                "seconds": earlier["seconds"] + self.seconds,
                "source": self._counters[part].source,
            }
        return found


class _Counter(Protocol):
    source: str

    def used(self, seconds: float) -> float | None:
        """Joules since the start, `seconds` after the last call; None if unknown."""


class _GpuCounter:
    source = "NVML's counter"

    def __init__(self, gpu: nvml.Gpu) -> None:
        self.gpu, self.start = gpu, gpu.joules()

    def used(self, seconds: float) -> float | None:
        now = self.gpu.joules()
        return None if now is None or self.start is None else now - self.start


class _GpuPower:
    source = "NVML's power, added up"

    def __init__(self, gpu: nvml.Gpu) -> None:
        self.gpu, self.watts, self.joules = gpu, gpu.watts(), 0.0
        self.readings = 0

    def used(self, seconds: float) -> float | None:
        before, self.watts = self.watts, self.gpu.watts()
        if self.watts is None or before is None or seconds > LONGEST_GAP:
            self.watts = None  # the total stays unknown after a gap
            return None
        self.joules += seconds * (before + self.watts) / 2
        self.readings += 1
        return self.joules if self.readings > 1 else None  # two readings are too few for a mean


class _Packages:
    source = "RAPL's counters"

    def __init__(self, packages: list[Path]) -> None:
        self.counters = {package: _read(package, "energy_uj") for package in packages}
        self.microjoules = 0

    def used(self, seconds: float) -> float | None:
        for package, before in self.counters.items():
            after = self.counters[package] = _read(package, "energy_uj")
            if before is None or after is None:
                return None
            overflow = _read(package, "max_energy_range_uj") or 0
            self.microjoules += after - before + (overflow if after < before else 0)
        return self.microjoules / 1e6


def gpu_hours(seconds: float, device: torch.device) -> float | None:
    """GPU hours of a training: one GPU per process, or its share of a shared GPU; None on a CPU."""
    return seconds / 3600 * _processes() / devices.sharers() if device.type == "cuda" else None


def _processes() -> int:
    """World size."""
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if several else 1


def _read(package: Path, name: str) -> int | None:
    """A counter in microjoules; None if only root may read it."""
    with suppress(OSError, ValueError):
        return int((package / name).read_text())
    return None
