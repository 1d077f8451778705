import ctypes

import pytest
import torch

from harness.compute import energy, nvml
from harness.compute.energy import EnergyMeter, gpu_hours

CPU = torch.device("cpu")


def zone(folder, name, microjoules, overflow=10**9):
    path = folder / name
    path.mkdir(exist_ok=True)
    (path / "energy_uj").write_text(f"{microjoules}\n")
    (path / "max_energy_range_uj").write_text(f"{overflow}\n")


def test_packages_are_summed_and_their_parts_left_out(tmp_path):
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        zone(tmp_path, name, 0)
    with EnergyMeter(CPU, tmp_path) as meter:
        zone(tmp_path, "intel-rapl:0", 5_000_000)
        zone(tmp_path, "intel-rapl:1", 1_500_000)
        zone(tmp_path, "intel-rapl:0:0", 4_000_000)
        assert meter.joules() == {"processor": 6.5}
        zone(tmp_path, "intel-rapl:0", 6_000_000)
    zone(tmp_path, "intel-rapl:0", 900_000_000)  # after the block
    assert meter.joules() == {"processor": 7.5}


def test_a_counter_that_starts_over_is_followed(tmp_path):
    zone(tmp_path, "intel-rapl:0", 9_000_000, overflow=10_000_000)
    with EnergyMeter(CPU, tmp_path) as meter:
        zone(tmp_path, "intel-rapl:0", 2_000_000, overflow=10_000_000)
        assert meter.joules() == {"processor": 3.0}
        zone(tmp_path, "intel-rapl:0", 1_000_000, overflow=10_000_000)
    assert meter.joules() == {"processor": 12.0}


def test_what_cannot_be_read_is_absent_and_never_zero(tmp_path):
    with EnergyMeter(CPU, tmp_path / "none") as meter:
        pass
    assert meter.joules() == {}
    (tmp_path / "intel-rapl:0" / "energy_uj").mkdir(parents=True)  # not readable as a file
    with EnergyMeter(CPU, tmp_path) as meter:
        pass
    assert meter.joules() == {}


class Library:
    """NVML with some readings; anything else it lacks."""

    def __init__(self, **readings):
        self.readings = readings

    def __getattr__(self, name):
        if name not in self.readings:
            raise AttributeError(name)

        def read(handle, *arguments):
            *selectors, reference = arguments
            found = self.readings[name]
            value = found[selectors[0].value] if selectors else found
            if value is None:
                return 3  # not supported
            reference._obj.value = value
            return 0

        return read


def gpu(**readings):
    return nvml.Gpu(Library(**readings), ctypes.c_void_p())


def test_a_gpus_energy_is_the_difference_of_its_counter(monkeypatch, tmp_path):
    device = gpu(nvmlDeviceGetTotalEnergyConsumption=5_000)
    monkeypatch.setattr(nvml, "gpu", lambda _: device)
    with EnergyMeter(CPU, tmp_path) as meter:
        device.library.readings["nvmlDeviceGetTotalEnergyConsumption"] = 12_500  # mJ
    assert meter.joules() == {"gpu": 7.5}


def test_a_gpu_without_a_counter_has_no_energy(monkeypatch, tmp_path):
    for device in (gpu(), gpu(nvmlDeviceGetTotalEnergyConsumption=None)):
        monkeypatch.setattr(nvml, "gpu", lambda _, device=device: device)
        with EnergyMeter(CPU, tmp_path) as meter:
            pass
        assert meter.joules() == {}


class Clock:
    def __init__(self, monkeypatch):
        self.now = 100.0
        monkeypatch.setattr(energy.time, "monotonic", lambda: self.now)


def test_power_is_added_up_where_the_driver_counts_no_energy(monkeypatch, tmp_path):
    clock, device = Clock(monkeypatch), gpu(nvmlDeviceGetPowerUsage=100_000)  # mW
    monkeypatch.setattr(nvml, "gpu", lambda _: device)
    with EnergyMeter(CPU, tmp_path) as meter:
        for seconds, watts in ((2.0, 200), (4.0, 400), (0.5, 900), (0.6, 400)):
            clock.now += seconds
            device.library.readings["nvmlDeviceGetPowerUsage"] = 1000 * watts
            meter.follow()  # the third comes too early: what was then is not read
    expected = 2 * 150 + 4 * 300 + 1.1 * 400  # trapezoids
    assert meter.joules() == {"gpu": pytest.approx(expected)}
    assert meter.energy({})["gpu"]["source"] == "NVML's power, added up"


def test_power_with_a_hole_or_at_both_ends_alone_is_no_energy(monkeypatch, tmp_path):
    clock, device = Clock(monkeypatch), gpu(nvmlDeviceGetPowerUsage=100_000)
    monkeypatch.setattr(nvml, "gpu", lambda _: device)
    for steps in ([5.0], [2.0, 11.0, 2.0, 2.0]):
        with EnergyMeter(CPU, tmp_path) as meter:
            for seconds in steps[:-1]:
                clock.now += seconds
                meter.follow()
            clock.now += steps[-1]
        assert meter.joules() == {}


def test_parts_of_a_training_are_summed_with_the_seconds_that_each_was_counted(monkeypatch, tmp_path):
    clock = Clock(monkeypatch)
    zone(tmp_path, "intel-rapl:0", 0)
    before = {part: {"joules": 10.0, "seconds": 60.0, "source": "an earlier one"} for part in ("gpu", "processor")}
    with EnergyMeter(CPU, tmp_path) as meter:
        clock.now += 20.0
        zone(tmp_path, "intel-rapl:0", 4_000_000)
    clock.now += 1000.0
    found = meter.energy(before)
    assert found["gpu"] == before["gpu"]
    assert found["processor"] == {"joules": 14.0, "seconds": 80.0, "source": "RAPL's counters"}
    assert meter.energy({}).keys() == {"processor"}


def test_following_reads_a_counter_often_enough_to_see_it_start_over_twice(monkeypatch, tmp_path):
    clock = Clock(monkeypatch)
    zone(tmp_path, "intel-rapl:0", 0, overflow=10_000_000)
    with EnergyMeter(CPU, tmp_path) as meter:
        for microjoules in (8_000_000, 6_000_000, 4_000_000):  # 8 J each
            zone(tmp_path, "intel-rapl:0", microjoules, overflow=10_000_000)
            clock.now += 1.5
            meter.follow()
    assert meter.joules() == {"processor": 24.0}


def test_gpu_hours_are_none_on_a_processor():
    assert gpu_hours(7200, torch.device("cuda")) == 2
    assert gpu_hours(7200, CPU) is None


def test_a_gpus_conditions_hold_what_the_driver_gives():
    found = gpu(
        nvmlDeviceGetClockInfo={1: 1980, 2: 2619},
        nvmlDeviceGetTemperature={0: 61},
        nvmlDeviceGetPowerUsage=699_500,
        nvmlDeviceGetCurrentClocksThrottleReasons=0x4 | 0x20 | 0x1,
    ).conditions()
    assert found == {
        "clock_mhz": 1980,
        "memory_clock_mhz": 2619,
        "celsius": 61,
        "watts": 699.5,
        "throttled": ["power cap", "temperature"],
    }
    assert gpu(nvmlDeviceGetPowerUsage=None).conditions() == {}


@pytest.mark.parametrize("bits", [0, 0x1, 0x2, 0x10, 0x100])  # none, idle, set by hand, of a group, of a display
def test_a_clock_that_nothing_forced_down_is_not_throttled(bits):
    assert nvml.throttle_reasons(bits) == []


def test_a_device_without_nvml_has_no_gpu():
    assert nvml.gpu(CPU) is None
