"""Leases of devices, with device names instead of GPUs and with real processes that compete for them."""

import multiprocessing
import os
import select
import signal
import subprocess
import sys
import time

import pytest

from harness.compute import devices
from harness.errors import UserError

LISTING = """\
GPU 0: NVIDIA H100 (UUID: GPU-aaaa-1111)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-bbbb-2222)
  MIG 3g.20gb     Device  0: (UUID: MIG-cccc-3333)
  MIG 3g.20gb     Device  1: (UUID: MIG-dddd-4444)
GPU 2: NVIDIA A30 (UUID: GPU-eeee-5555)
"""
H100, MIG0, MIG1, A30 = "GPU-aaaa-1111", "MIG-cccc-3333", "MIG-dddd-4444", "GPU-eeee-5555"

# Takes a device, says which, and keeps it until it is told to end.
HOLD = "from harness.compute import devices; print(devices.lease(), flush=True); input()"


@pytest.fixture
def machine(repository, tmp_path, monkeypatch):
    """A machine whose nvidia-smi lists LISTING, with lock files of its own; returns a function that names devices."""
    for variable in (devices.NAMED, devices.SHARE, devices.VISIBLE, "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(variable, raising=False)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat <<'END'\n{LISTING}END\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(repository))
    monkeypatch.setattr(devices.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(devices, "_held", None)
    yield lambda *names: monkeypatch.setenv(devices.NAMED, ",".join(names))
    devices._forget()


@pytest.fixture
def holders():
    """Starts processes that run HOLD; those that are left are ended."""
    started = []

    def start(**environment):
        command = [sys.executable, "-c", HOLD]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, **pipes, text=True, env=os.environ | environment)
        process.device = None
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def leased(processes, number, seconds=60.0):
    """{process: device} of those that have one, as soon as `number` of them do, or when the seconds are over."""
    end = time.monotonic() + seconds
    while sum(process.device is not None for process in processes) < number and time.monotonic() < end:
        outputs = {process.stdout: process for process in processes if process.device is None}
        for output in select.select(outputs, [], [], 1.0)[0]:
            outputs[output].device = output.readline().strip()
    return {process: process.device for process in processes if process.device is not None}


def test_devices_are_those_that_nvidia_smi_lists_and_of_a_divided_gpu_its_instances(machine):
    assert devices.visible() == [H100, MIG0, MIG1, A30]


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        ("2,0", [A30, H100]),
        ("1", [MIG0, MIG1]),
        (MIG1, [MIG1]),
        ("GPU-ee", [A30]),  # the beginning of a UUID, as CUDA takes it
        ("0,-1,2", [H100]),  # CUDA stops at the first name that fits nothing
        ("0,7,2", [H100]),
        ("0,0", [H100]),
        ("", []),
        ("-1", []),
    ],
)
def test_cuda_visible_devices_narrows_them(machine, monkeypatch, asked, wanted):
    monkeypatch.setenv(devices.VISIBLE, asked)
    assert devices.visible() == wanted


def test_named_devices_replace_those_of_nvidia_smi(machine, monkeypatch):
    machine("fake0", "fake1")
    assert devices.visible() == ["fake0", "fake1"]
    monkeypatch.setenv(devices.VISIBLE, "1")
    assert devices.visible() == ["fake1"]
    machine()
    assert devices.visible() == []


def test_a_machine_without_a_gpu_has_no_lease_and_no_lock_file(machine, tmp_path, monkeypatch):
    (tmp_path / "bin" / "nvidia-smi").write_text("#!/bin/sh\necho 'no driver' >&2\nexit 9\n")
    assert devices.visible() == []
    assert devices.lease() is None
    assert devices.VISIBLE not in os.environ
    assert not list(tmp_path.glob("*.lock"))
    (tmp_path / "bin" / "nvidia-smi").unlink()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert devices.visible() == []


def test_a_process_keeps_its_device_and_shows_cuda_no_other(machine, monkeypatch):
    monkeypatch.setenv(devices.VISIBLE, "2,0")
    assert [devices.lease(), devices.lease(), os.environ[devices.VISIBLE]] == [A30] * 3


def test_a_numbered_device_is_taken_or_refused(machine, monkeypatch):
    monkeypatch.setenv(devices.VISIBLE, "2,0")
    with pytest.raises(UserError, match=r"no CUDA device 2: 2 can be used here"):
        devices.lease(2)
    assert devices.lease(1) == H100


@pytest.mark.slow
@pytest.mark.parametrize("kill", [False, True])
def test_no_device_has_two_processes_and_none_is_idle_while_one_waits(machine, holders, kill):
    """Six processes on two devices: as soon as one ends, or is killed, another has its device."""
    machine("fake0", "fake1")
    processes = [holders() for _ in range(6)]
    over = []
    for turn in range(6):
        waiting = [process for process in processes if process not in over]
        holding = leased(waiting, min(2, len(waiting)))
        assert len(holding) == min(2, len(waiting))  # both are busy while there is work
        if turn == 0:
            # Time for a third process to take one wrongly.
            assert leased(waiting, 3, seconds=5 * devices.SECONDS_BETWEEN_TRIES) == holding
        assert len(set(holding.values())) == len(holding)  # each has its own
        process = next(iter(holding))
        if kill:
            process.kill()
        else:
            process.stdin.write("\n")
            process.stdin.flush()
        assert process.wait(30) == (-signal.SIGKILL if kill else 0)
        over.append(process)


def test_a_waiting_process_says_so_once(machine, holders):
    machine("fake0")
    first = holders()
    assert leased([first], 1)
    second = holders()
    assert second.stderr.readline() == "waiting for a device: other runs use fake0\n"
    time.sleep(3 * devices.SECONDS_BETWEEN_TRIES)
    first.kill()
    assert leased([second], 1)[second] == "fake0"
    second.kill()
    assert second.stderr.read() == ""


@pytest.mark.slow
def test_a_measurement_of_latency_has_its_device_for_itself(machine, holders, repository, tmp_path):
    """It waits for the device, and then holds it."""
    machine("fake0")
    first = holders()
    assert leased([first], 1)
    arguments = ["--model", "hrnet_tiny", "--size", "32x64", "--method", "cross_entropy", "--results", str(tmp_path)]
    command = [sys.executable, "-m", "harness", "latency", *arguments, "--mode", "single_stream", "--threads", "1"]
    measurement = subprocess.Popen(
        command, cwd=repository, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        assert measurement.stderr.readline() == "waiting for a device: other runs use fake0\n"
        assert not list((tmp_path / "cost").rglob("*.json"))
        first.kill()
        first.wait()
        while free := devices._take("fake0", None):  # the measurement has not looked yet
            os.close(free[0])
            assert measurement.poll() is None, measurement.stderr.read()
            time.sleep(devices.SECONDS_BETWEEN_TRIES)
    finally:
        measurement.kill()
        measurement.wait()


CROWD = """
import os, sys, time
from pathlib import Path
from harness.compute import devices
mark = Path(sys.argv[1]) / f"in-use-{devices.lease().replace('/', '-')}"
mark.touch(exist_ok=False)  # fails if another process is on this device
time.sleep(0.05)
mark.unlink()
"""


@pytest.mark.slow
def test_a_crowd_of_processes_never_meets_on_a_device(machine, tmp_path):
    machine("fake0", "fake1", "MIG-GPU-1/2/0")  # the older form of MIG names has slashes
    crowd = [subprocess.Popen([sys.executable, "-c", CROWD, str(tmp_path)]) for _ in range(12)]
    assert [process.wait(120) for process in crowd] == [0] * 12
    assert len(list(tmp_path.glob("*.lock"))) <= 3


@pytest.mark.slow
def test_as_many_share_a_device_as_may_and_they_spread_before_they_crowd(machine, holders, monkeypatch):
    machine("fake0", "fake1")
    monkeypatch.setenv(devices.SHARE, "2")
    first = [holders()]
    assert leased(first, 1)[first[0]] == "fake0"
    second = [holders()]
    assert leased(second, 1)[second[0]] == "fake1"
    others = [holders() for _ in range(3)]
    found = leased(others, 3, seconds=5.0)
    assert sorted(found.values()) == ["fake0", "fake1"]  # one of three waits
    first[0].kill()
    assert len(leased(others, 3)) == 3


@pytest.mark.slow
def test_who_wants_a_device_alone_shares_it_with_nobody(machine, holders, monkeypatch):
    machine("fake0")
    monkeypatch.setenv(devices.SHARE, "3")
    sharing = [holders(), holders()]
    assert len(leased(sharing, 2)) == 2
    rank = {"LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    alone = holders(**rank)  # a process of torchrun
    assert alone.stderr.read().strip().splitlines()[-1].endswith("name others in CUDA_VISIBLE_DEVICES")
    for process in sharing:
        process.kill()
        process.wait()
    assert devices.lease(alone=True) == "fake0"
    assert devices.sharers() == 1
    late = [holders()]
    assert not leased(late, 1, seconds=10 * devices.SECONDS_BETWEEN_TRIES)
    devices._forget()
    assert leased(late, 1)


def test_energy_of_a_shared_device_is_nobodys_and_its_hours_are_shared(machine, monkeypatch):
    import torch

    from harness.compute import energy

    class Gpu:
        def joules(self):
            return 1.0

    machine("fake0")
    monkeypatch.setattr(energy.nvml, "gpu", lambda device: Gpu())
    cuda = torch.device("cuda")
    for share, counted in (("1", {"gpu"}), ("4", set())):
        devices._forget()
        monkeypatch.setenv(devices.SHARE, share)
        assert devices.lease() == "fake0"
        with energy.EnergyMeter(cuda) as meter:
            assert set(meter.joules()) & {"gpu"} == counted
        assert energy.gpu_hours(3600.0, cuda) == 1 / int(share)


@pytest.mark.parametrize("wrong", ["0", "-1", "two", "1.5", ""])
def test_a_wrong_number_of_sharers_is_refused(machine, monkeypatch, wrong):
    machine("fake0")
    monkeypatch.setenv(devices.SHARE, wrong)
    with pytest.raises(UserError, match=f"{devices.SHARE} is '{wrong}': give the number"):
        devices.lease()


def _hold_with_a_child(pipe):
    """Leases a device, forks a child that outlives it, as workers that read images do, and is killed."""
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    name = devices.lease()
    child.start()
    pipe.send((name, child.pid))
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_lease_ends_with_its_process_although_a_child_lives_on(machine):
    machine("fake0")
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_hold_with_a_child, args=(theirs,))
    process.start()
    name, child = ours.recv()
    process.join()
    try:
        os.kill(child, 0)  # it is still there
        assert name == "fake0"
        assert devices.lease() == "fake0"
    finally:
        os.kill(child, signal.SIGKILL)


def test_processes_of_torchrun_take_the_device_of_their_rank_and_do_not_wait(machine, holders, monkeypatch):
    machine("fake0", "fake1")
    ranks = [holders(LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE="2") for rank in range(2)]
    found = leased(ranks, 2)
    assert [found[process] for process in ranks] == ["fake0", "fake1"]
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(UserError, match="another run uses the device fake1"):
        devices.lease()


def test_a_link_in_place_of_a_lock_file_is_not_followed(machine, tmp_path):
    machine("fake0")
    devices.lock_path("fake0").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        devices.lease()
    assert not (tmp_path / "elsewhere").exists()


def test_a_machine_leases_before_it_asks_torch_and_a_cpu_needs_no_lease(machine, monkeypatch):
    import torch

    from harness.compute.machine import Machine

    seen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: not seen.append(os.environ.get(devices.VISIBLE)))
    assert Machine("cpu").use() == torch.device("cpu")
    assert devices.VISIBLE not in os.environ
    assert Machine("cuda:3").use() == torch.device("cuda")
    assert seen == [A30]
    assert Machine().use() == torch.device("cuda")
    assert os.environ[devices.VISIBLE] == A30


def test_a_machine_without_gpus_computes_on_the_cpu_as_before(machine):
    import torch

    from harness.compute.machine import Machine

    if torch.cuda.is_available():
        pytest.skip("a machine with a GPU")
    machine()
    assert Machine().use() == torch.device("cpu")
    for name, word in (("cuda", "--device cpu"), ("cuda:1", "--device cpu"), ("cdua", "auto, cpu, cuda or cuda:N")):
        with pytest.raises(UserError, match=word):
            Machine(name).use()


def test_memory_is_the_least_of_the_gpus_as_the_driver_says(tmp_path, monkeypatch):
    (tmp_path / "nvidia-smi").write_text("#!/bin/sh\necho 'GPU-a, 143771'\necho 'GPU-b, [N/A]'\necho 'GPU-c, 81559'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert devices.memory(["GPU-a"]) == 143771 * 2**20
    assert devices.memory(["GPU-a", "GPU-c"]) == 81559 * 2**20
    assert devices.memory(["GPU-a", "GPU-b"]) == devices.memory(["GPU-d"]) == devices.memory([]) == 0
    monkeypatch.setenv("PATH", "")
    assert devices.memory(["GPU-a"]) == 0
