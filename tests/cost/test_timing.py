from types import SimpleNamespace

import numpy as np
import pytest
import torch

from harness.cost import timing
from harness.cost.timing import Plan, take_turns, time_block, warm_up

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
MILLISECOND = 10**6  # nanoseconds


class Clock:
    """Time that passes only when work says so; `processor` is this process's share of it."""

    def __init__(self):
        self.now, self.processor = 0, 1.0

    def work(self, milliseconds):
        """Work that takes what `milliseconds`, a number or a function of its calls so far, says."""
        calls = 0

        def run():
            nonlocal calls
            self.now += round(MILLISECOND * (milliseconds(calls) if callable(milliseconds) else milliseconds))
            calls += 1
            run.calls = calls

        run.calls = 0
        return run


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    fake = SimpleNamespace(
        perf_counter_ns=lambda: made.now,
        process_time_ns=lambda: round(made.now * made.processor),
        monotonic=lambda: made.now / 1e9,
    )
    monkeypatch.setattr(timing, "time", fake)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    return made


def test_every_arm_is_timed_in_every_round_in_changing_order(clock):
    arms = {"a": clock.work(2), "b": clock.work(5), "c": clock.work(lambda calls: 1 + calls)}
    plan = Plan(warmup_iterations=2, warmup_seconds=0, rounds=12, settle=1, block=3)
    found = take_turns(arms, CPU, plan, "test")
    assert {name: taken.shape for name, taken in found.nanoseconds.items()} == dict.fromkeys(arms, (12, 3))
    assert (found.nanoseconds["a"] == 2 * MILLISECOND).all()
    assert (found.nanoseconds["b"] == 5 * MILLISECOND).all()
    # Four calls a round, of which the first is not timed, after those of the warm-up.
    warm = found.warmup["c"]["iterations"]
    calls = warm + np.arange(12)[:, None] * 4 + np.array([1, 2, 3])
    assert np.array_equal(found.nanoseconds["c"], (1 + calls) * MILLISECOND)
    assert all(sorted(order) == [0, 1, 2] for order in found.order)
    assert len({tuple(order) for order in found.order}) > 3


def test_rounds_go_on_until_the_fastest_arm_has_its_seconds(clock):
    arms = {"fast": clock.work(lambda calls: 10 if calls < 4 else 5), "slow": clock.work(40)}
    plan = Plan(warmup_iterations=2, warmup_seconds=0, rounds=3, settle=0, block=2, seconds=1)
    found = take_turns(arms, CPU, plan, "test")
    assert found.nanoseconds["fast"].sum() >= 10**9
    assert found.nanoseconds["fast"][:-1].sum() < 10**9
    assert found.nanoseconds["slow"].shape == found.nanoseconds["fast"].shape


def test_the_processor_share_is_of_all_threads(clock):
    clock.processor = 1.5  # of two threads
    plan = Plan(warmup_iterations=2, warmup_seconds=0, rounds=2)
    assert take_turns({"a": clock.work(3)}, CPU, plan, "test").processor_share == pytest.approx(0.75)


def test_the_warm_up_ends_when_times_no_longer_change(clock):
    work = clock.work(lambda calls: max(100, 300 - 10 * calls))  # 20 iterations until it is fast
    state = warm_up(work, CPU, Plan(warmup_iterations=10, warmup_seconds=1))
    assert state["stable"]
    # The last five must be within 5 % of the five before: 110, 100, 100, 100, 100 after 160 .. 120 are not.
    assert 25 <= state["iterations"] == work.calls <= 30
    assert state["median_seconds"] == 0.1
    assert state["seconds"] == pytest.approx(clock.now / 1e9, abs=1e-3)


def test_the_warm_up_lasts_as_long_as_asked_although_times_are_stable(clock):
    assert warm_up(clock.work(100), CPU, Plan(warmup_iterations=10, warmup_seconds=2))["iterations"] == 20
    assert warm_up(clock.work(1000), CPU, Plan(warmup_iterations=10, warmup_seconds=2))["iterations"] == 10


def test_work_that_never_becomes_stable_is_reported_so(clock):
    state = warm_up(clock.work(lambda calls: 1.2**calls), CPU, Plan(warmup_iterations=10, warmup_seconds=1))
    assert state["stable"] is False
    assert state["seconds"] >= 30


def test_on_a_gpu_events_are_recorded_between_iterations_and_waited_for_once(clock, monkeypatch):
    log = []

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            log.append("record")
            self.at = clock.now

        def elapsed_time(self, other):
            assert log[-1] == "synchronize"
            return (other.at - self.at) / MILLISECOND

    def work():
        log.append("work")
        clock.now += (1 + log.count("work")) * MILLISECOND

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: log.append("synchronize"))
    assert time_block(work, 3, CUDA) == [2 * MILLISECOND, 3 * MILLISECOND, 4 * MILLISECOND]
    assert log == ["record", *["work", "record"] * 3, "synchronize"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_gpus_events_agree_with_the_wall_clock():
    import time

    matrix = torch.randn(4096, 4096, device=CUDA)

    def work():
        return matrix @ matrix

    warm_up(work, CUDA, Plan())
    start = time.perf_counter()
    taken = time_block(work, 50, CUDA)
    assert sum(taken) / 1e9 == pytest.approx(time.perf_counter() - start, rel=0.1)
