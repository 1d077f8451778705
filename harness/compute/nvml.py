"""Clocks, temperature and energy of an NVIDIA GPU, from the driver's library (NVML)."""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

LIBRARY = "libnvidia-ml.so.1"
SUCCESS = 0
SM_CLOCK, MEMORY_CLOCK = 1, 2  # nvmlClockType_t
CORE_TEMPERATURE = 0  # nvmlTemperatureSensors_t
# Reasons for a lowered clock that disturb a measurement, by their bits: power cap, hardware slowdown, software and
# hardware thermal slowdown, power brake. The other reasons are idling and clocks set by the user.
THROTTLED = {0x4: "power cap", 0x8: "hardware slowdown", 0x20: "temperature", 0x40: "temperature", 0x80: "power brake"}


class Gpu:
    """One device. A reading is None if the driver does not support it."""

    def __init__(self, library: Any, handle: ctypes.c_void_p) -> None:
        self.library, self.handle = library, handle

    def joules(self) -> float | None:
        """Energy since the driver was loaded."""
        millijoules = self._read("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong)
        return None if millijoules is None else millijoules / 1000

    def watts(self) -> float | None:
        """Current power."""
        milliwatts = self._read("nvmlDeviceGetPowerUsage", ctypes.c_uint)
        return None if milliwatts is None else milliwatts / 1000

    def conditions(self) -> dict[str, Any]:
        """Clocks in MHz, temperature in degrees Celsius, power in watts, and why the clock is lowered, if it is."""
        reasons = self._read("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong)
        found = {
            "clock_mhz": self._read("nvmlDeviceGetClockInfo", ctypes.c_uint, SM_CLOCK),
            "memory_clock_mhz": self._read("nvmlDeviceGetClockInfo", ctypes.c_uint, MEMORY_CLOCK),
            "celsius": self._read("nvmlDeviceGetTemperature", ctypes.c_uint, CORE_TEMPERATURE),
            "watts": self.watts(),
            "throttled": None if reasons is None else throttle_reasons(reasons),
        }
        return {name: value for name, value in found.items() if value is not None}

    def _read(self, name: str, kind: Callable[[], Any], *selectors: int) -> int | None:
        value = kind()
        function = getattr(self.library, name, None)  # an older driver lacks some
        arguments = map(ctypes.c_int, selectors)
        if function is None or function(self.handle, *arguments, ctypes.byref(value)) != SUCCESS:
            return None
        return int(value.value)


def throttle_reasons(bits: int) -> list[str]:
    """The names of those reasons in NVML's bit field that are in `THROTTLED`."""
    return sorted({name for bit, name in THROTTLED.items() if bits & bit})


def gpu(device: torch.device) -> Gpu | None:
    """The GPU of a CUDA device; None for other devices or without NVML."""
    if device.type != "cuda" or (library := _library()) is None:
        return None
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    handle = ctypes.c_void_p()
    if library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)) != SUCCESS:
        return None
    return Gpu(library, handle)


@cache
def _library() -> Any:
    """The initialised NVML library, or None."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    return library if library.nvmlInit_v2() == SUCCESS else None
