"""The machine of a measurement: its name, and its state before and after."""

import os
import platform
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from harness.compute import nvml
from harness.compute.devices import cores

SYSTEM = Path("/sys")
PROCESSORS = Path("/proc/cpuinfo")


def machine_name(device: torch.device) -> str:
    """The GPU's name, or a description such as "2 cores of a virtual x86_64 machine with AVX512 and 16 GB"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    virtual = ""
    with suppress(OSError):
        flags = re.search(r"(?m)^flags\s*:.*\bhypervisor\b", PROCESSORS.read_text(encoding="utf-8"))
        virtual = "virtual " if flags else ""
    parts = [name] if (name := torch.backends.cpu.get_cpu_capability()) != "DEFAULT" else []
    with suppress(OSError, ValueError):  # not on every system
        parts.append(f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GB")
    described = f" with {' and '.join(parts)}" if parts else ""
    return f"{cores()} cores of a {virtual}{platform.machine()} machine{described}"


def device_folder(device: torch.device) -> str:
    """The name of a machine's folder in results/cost: "nvidia-h200", "cpu-x86_64-2-cores"."""
    name = machine_name(device) if device.type == "cuda" else f"cpu-{platform.machine()}-{cores()}-cores"
    return re.sub(r"[^a-z0-9_]+", "-", name.lower()).strip("-")


def conditions(device: torch.device) -> dict[str, Any]:
    """Current clocks, temperature and load, as far as the machine reports them.

    For the CPU: clock_mhz (mean over cores), celsius (hottest zone) and load (mean number of runnable processes in the
    last minute, including this one). For a GPU: NVML's readings.
    """
    found: dict[str, Any] = {}
    if clocks := _clocks():
        found["clock_mhz"] = round(sum(clocks) / len(clocks))
    if zones := _numbers("class/thermal/thermal_zone*/temp"):
        found["celsius"] = max(zones) / 1000
    if hasattr(os, "getloadavg"):
        found["load"] = round(os.getloadavg()[0], 2)
    gpu = nvml.gpu(device)
    return {"processor": found} | ({"gpu": gpu.conditions()} if gpu else {})


def settings(device: torch.device) -> dict[str, Any]:
    """Settings of torch that affect speed."""
    found: dict[str, Any] = {"threads": torch.get_num_threads(), "mkldnn": torch.backends.mkldnn.is_available()}
    found["float32_matmul_precision"] = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        cudnn = torch.backends.cudnn
        found |= {name: getattr(cudnn, name) for name in ("enabled", "benchmark", "deterministic", "allow_tf32")}
        found |= {"cudnn": cudnn.version(), "cuda": torch.version.cuda}
    return found


def _numbers(pattern: str) -> list[float]:
    found = []
    for path in sorted(SYSTEM.glob(pattern)):
        with suppress(OSError, ValueError):
            found.append(float(path.read_text()))
    return found


def _clocks() -> list[float]:
    """Clocks of all cores in MHz; virtual machines have them only in /proc/cpuinfo."""
    if kilohertz := _numbers("devices/system/cpu/cpu[0-9]*/cpufreq/scaling_cur_freq"):
        return [value / 1000 for value in kilohertz]
    with suppress(OSError):
        return [float(text) for text in re.findall(r"(?m)^cpu MHz\s*:\s*([\d.]+)", PROCESSORS.read_text("utf-8"))]
    return []
