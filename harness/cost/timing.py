"""Times several pieces of work in turns, so that disturbances of the machine affect all of them alike."""

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from harness.compute.progress import Progress

STABLE = 0.05  # largest relative difference between the medians of the last two windows of iterations
STABLE_WINDOW = 5  # iterations
LONGEST_WARM_UP = 30  # times `Plan.warmup_seconds`, if the work never becomes stable

Work = Callable[[], object]


@dataclass(frozen=True)
class Plan:
    """How often and how long to time (metrics.md, section Cost).

    Each arm warms up for at least `warmup_iterations` and `warmup_seconds`, and until its time is stable. Then follow
    `rounds` rounds, and more until each arm has been timed for `seconds`. In a round, each arm (in random order) runs
    `settle` untimed iterations, since the caches hold another arm's data, and `block` timed ones.
    """

    warmup_iterations: int = 10
    warmup_seconds: float = 1.0
    rounds: int = 30
    settle: int = 1
    block: int = 1
    seconds: float = 0.0


@dataclass(frozen=True)
class Timings:
    """A measurement.

    nanoseconds      int64 [rounds, block] for every arm
    order            for every round, the arms' positions in the order of their turns
    warmup           for every arm: iterations, seconds, and whether it became stable
    processor_share  CPU time / (wall-clock time x torch's threads); if below 1, other programs used the cores or
                     threads waited for each other. None on a GPU.
    """

    nanoseconds: dict[str, np.ndarray]
    order: list[list[int]]
    warmup: dict[str, dict[str, float | bool]]
    processor_share: float | None


def take_turns(arms: Mapping[str, Work], device: torch.device, plan: Plan, title: str) -> Timings:
    """The times of every arm's work on `device`, measured by `plan`.

    On a GPU, CUDA events are recorded between the iterations of a turn, which synchronises only at its end. On a CPU,
    the wall clock is read around every iteration.
    """
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        warmup = {name: warm_up(work, device, plan) for name, work in arms.items()}
        fastest = min(float(state["median_seconds"]) for state in warmup.values())
        expected = max(plan.rounds, int(np.ceil(plan.seconds / (fastest * plan.block))))
        taken: dict[str, list[list[int]]] = {name: [] for name in arms}
        order: list[list[int]] = []
        wall = processor = 0
        names = list(arms)
        with Progress(title, expected) as progress:
            while len(order) < plan.rounds or _shortest(taken) < plan.seconds:
                turns = np.random.default_rng(len(order)).permutation(len(names))
                for index in turns:
                    work = arms[names[index]]
                    for _ in range(plan.settle):
                        work()
                    start = time.perf_counter_ns(), time.process_time_ns()
                    taken[names[index]].append(time_block(work, plan.block, device))
                    wall += time.perf_counter_ns() - start[0]
                    processor += time.process_time_ns() - start[1]
                order.append(turns.tolist())
                progress.advance()
    share = None if device.type == "cuda" else processor / (wall * torch.get_num_threads())
    nanoseconds = {name: np.array(rounds, np.int64) for name, rounds in taken.items()}
    return Timings(nanoseconds, order, warmup, share)


def warm_up(work: Work, device: torch.device, plan: Plan) -> dict[str, float | bool]:
    """Repeat `work` until its time is stable; returns the record's entry about the warm-up."""
    seconds: list[float] = []
    start = time.monotonic()
    while True:
        seconds += [nanoseconds / 1e9 for nanoseconds in time_block(work, 1, device)]
        spent = time.monotonic() - start
        window = min(STABLE_WINDOW, len(seconds) // 2)
        last, before = seconds[len(seconds) - window :], seconds[len(seconds) - 2 * window : len(seconds) - window]
        stable = window > 0 and abs(np.median(last) / np.median(before) - 1) <= STABLE
        enough = len(seconds) >= plan.warmup_iterations and spent >= plan.warmup_seconds
        if enough and (stable or spent >= LONGEST_WARM_UP * plan.warmup_seconds):
            return {
                "iterations": len(seconds),
                "seconds": round(spent, 3),
                "stable": bool(stable),
                "median_seconds": float(np.median(seconds[-STABLE_WINDOW:])),
            }


def time_block(work: Work, count: int, device: torch.device) -> list[int]:
    """Nanoseconds of each of `count` iterations."""
    if device.type == "cuda":
        events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
        events[0].record()
        for event in events[1:]:
            work()
            event.record()
        torch.cuda.synchronize(device)
        return [round(start.elapsed_time(end) * 1e6) for start, end in pairwise(events)]  # given in ms
    taken = []
    for _ in range(count):
        start = time.perf_counter_ns()
        work()
        taken.append(time.perf_counter_ns() - start)
    return taken


def _shortest(taken: Mapping[str, list[list[int]]]) -> float:
    """The shortest total time of an arm, in seconds."""
    return min(sum(map(sum, rounds)) for rounds in taken.values()) / 1e9
