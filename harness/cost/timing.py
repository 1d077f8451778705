"""Timing of several pieces of work in turns, so that whatever the machine does meanwhile hits all of them alike."""

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from harness.compute.progress import Progress

STABLE = 0.05  # the last iterations' median is this close, relatively, to that of those before them
STABLE_WINDOW = 5  # iterations, at most
LONGEST_WARM_UP = 30  # times `Plan.warmup_seconds`, for work that never becomes stable

Work = Callable[[], object]


@dataclass(frozen=True)
class Plan:
    """How often and how long; metrics.md, section Cost.

    An arm is warmed up for `warmup_iterations` and `warmup_seconds` at least, and until stable. Then come `rounds`
    rounds, and more until each arm has been timed for `seconds`. In a round every arm has its turn, in random order:
    `settle` iterations that are not timed, since another arm's data are in the caches, then `block` that are.
    """

    warmup_iterations: int = 10
    warmup_seconds: float = 1.0
    rounds: int = 30
    settle: int = 1
    block: int = 1
    seconds: float = 0.0


@dataclass(frozen=True)
class Timings:
    """What was measured.

    nanoseconds      int64 [rounds, block] of every arm
    order            of every round the arms' positions, in the order of their turns
    warmup           of every arm: iterations, seconds, and whether it ended stable
    processor_share  this process's processor time over (wall-clock time x torch's threads) while it was timed. Below
                     1, other programs took the cores, or threads waited for each other. None for a GPU.
    """

    nanoseconds: dict[str, np.ndarray]
    order: list[list[int]]
    warmup: dict[str, dict[str, float | bool]]
    processor_share: float | None


def take_turns(arms: Mapping[str, Work], device: torch.device, plan: Plan, title: str) -> Timings:
    """Time every arm's work on `device` by `plan`.

    On a GPU events on the device's own clock are recorded between the iterations of a turn, without any wait of the
    host but one at the turn's end. On a CPU it is the wall clock, read around every iteration.
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
    """Repeat `work` until its time no longer changes; returns what a record says of it."""
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
    """Seconds that the arm timed for the shortest time has been timed for."""
    return min(sum(map(sum, rounds)) for rounds in taken.values()) / 1e9
