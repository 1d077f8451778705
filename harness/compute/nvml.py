"""What an NVIDIA GPU's driver says of its clocks, temperature and energy, by the driver's own library (NVML)."""

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import torch

LIBRARY = "libnvidia-ml.so.1"
SUCCESS = 0
SM_CLOCK, MEMORY_CLOCK = 1, 2  # nvmlClockType_t
CORE_TEMPERATURE = 0  # nvmlTemperatureSensors_t
# Bits of the reasons for a lowered clock that are a fault of the measurement's conditions: power cap, hardware
# slowdown, temperature in software and in hardware, power brake. The others are idling and clocks set by hand.
THROTTLED = {0x4: "power cap", 0x8: "hardware slowdown", 0x20: "temperature", 0x40: "temperature", 0x80: "power brake"}


class Gpu:
    """One device. Each reading is None where the driver does not give it."""

    def __init__(self, library: Any, handle: ctypes.c_void_p) -> None:
        self.library, self.handle = library, handle

    def joules(self) -> float | None:
        """Energy since the driver was loaded."""
        millijoules = self._read("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong)
        return None if millijoules is None else millijoules / 1000

    def watts(self) -> float | None:
        """Power now."""
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
    """The names of the reasons in NVML's bit field, those of `THROTTLED` alone."""
    return sorted({name for bit, name in THROTTLED.items() if bits & bit})


def gpu(device: torch.device) -> Gpu | None:
    """The GPU behind a CUDA device; None for another device and without NVML."""
    if device.type != "cuda" or (library := _library()) is None:
        return None
    uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
    handle = ctypes.c_void_p()
    if library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle)) != SUCCESS:
        return None
    return Gpu(library, handle)


@cache
def _library() -> Any:
    """NVML, ready for use; None where there is none."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    return library if library.nvmlInit_v2() == SUCCESS else None
