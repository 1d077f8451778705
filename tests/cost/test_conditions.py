import platform
import re

import torch

from harness.cost import conditions as module
from harness.cost.conditions import conditions, device_folder, machine_name

CPU = torch.device("cpu")


def test_the_machine_is_named_in_general_terms():
    name = machine_name(CPU)
    assert re.fullmatch(rf"\d+ cores of a (virtual )?{platform.machine()} machine( with ((\w+) and )?\d+ GB)?", name)
    assert platform.node() not in name
    assert re.fullmatch(r"cpu-[a-z0-9_]+-\d+-cores", device_folder(CPU))


def test_instruction_set_and_memory_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "PROCESSORS", tmp_path / "none")
    monkeypatch.setattr(module, "cores", lambda: 4)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr("os.sysconf", {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 4 * 2**20}.__getitem__)
    assert machine_name(CPU) == f"4 cores of a {platform.machine()} machine with AVX2 and 16 GB"


def test_a_gpus_folder_is_its_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA GeForce RTX 4090 (D)")
    assert device_folder(torch.device("cuda")) == "nvidia-geforce-rtx-4090-d"


def test_clocks_and_the_hottest_zone_are_read_from_the_system(monkeypatch, tmp_path):
    for index, (kilohertz, millidegrees) in enumerate([(3_000_000, 41_000), (3_500_000, 57_500)]):
        frequency = tmp_path / f"devices/system/cpu/cpu{index}/cpufreq"
        frequency.mkdir(parents=True)
        (frequency / "scaling_cur_freq").write_text(f"{kilohertz}\n")
        zone = tmp_path / f"class/thermal/thermal_zone{index}"
        zone.mkdir(parents=True)
        (zone / "temp").write_text(f"{millidegrees}\n")
    monkeypatch.setattr(module, "SYSTEM", tmp_path)
    monkeypatch.setattr("os.getloadavg", lambda: (1.256, 0.0, 0.0))
    assert conditions(CPU) == {"processor": {"clock_mhz": 3250, "celsius": 57.5, "load": 1.26}}


def test_what_the_system_does_not_say_is_absent(monkeypatch, tmp_path):
    monkeypatch.setattr(module, "SYSTEM", tmp_path)
    monkeypatch.setattr(module, "PROCESSORS", tmp_path / "none")
    assert conditions(CPU)["processor"].keys() <= {"load"}
    (tmp_path / "cpuinfo").write_text("model name : X\ncpu MHz\t\t: 2000.0\ncpu MHz\t\t: 2500.4\n")
    monkeypatch.setattr(module, "PROCESSORS", tmp_path / "cpuinfo")
    assert conditions(CPU)["processor"]["clock_mhz"] == 2250
