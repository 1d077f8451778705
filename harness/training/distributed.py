"""Distributed training under torchrun: ranks, reductions, and decisions that all ranks must share.

With one process, every function here does nothing and returns its argument.

Only rank 0 (the main process) writes, prints and holds locks. A failing rank publishes its failure in the rendezvous
store; ranks blocked in a collective would otherwise never learn of it.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, redirect_stderr, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from harness.compute import torchrun
from harness.compute.torchrun import is_main
from harness.errors import UserError
from harness.runs.ending import Ending, ending
from harness.runs.record import Record

T = TypeVar("T")
R = TypeVar("R", Record, Record | None)

FOREVER = timedelta(days=365)  # rank 0 may be waiting for another run to end
PATIENCE = 10.0  # seconds in which a rank should notice by itself that another one failed
FAILURE, PARTED = "failure", "parted"  # keys of the store: the first failure; rank 0 has left
# Parts of gloo's and NCCL's messages when the peer process is gone.
LOST = ("onnection closed by peer", "onnection reset by peer", "roken pipe", "ncclRemoteError", "NCCL communicator")


class LostProcess(Exception):
    """Another process of the run ended without a message."""


def world_size() -> int:
    """Number of processes that train or evaluate this run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The rank of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


@dataclass
class _Meeting:
    """The rendezvous store, and a counter that numbers the messages in it."""

    store: Any
    numbers: Iterator[int]


_meeting: _Meeting | None = None


@contextmanager
def joined() -> Iterator[None]:
    """Connect to the other ranks for the duration of the block, if torchrun started several processes.

    Only rank 0 prints to stderr, and it leaves first. If several ranks raise a UserError, only the first is shown; the
    others exit with status 2.
    """
    global _meeting
    if torchrun.world_size() == 1:
        yield
        return
    store, _, _ = next(iter(dist.rendezvous("env://", timeout=timedelta(minutes=10))))
    _meeting = _Meeting(store, count())
    try:
        with ExitStack() as stack:
            if not is_main():
                stack.enter_context(redirect_stderr(stack.enter_context(Path(os.devnull).open("w"))))
            yield
    except UserError:
        if not _is_first_mistake(store):
            raise SystemExit(2) from None
        raise
    finally:
        _meeting = None
        if dist.is_initialized():
            dist.destroy_process_group()  # ranks that wait for this one in a collective get an error
        _part(store)


def start(device: torch.device) -> None:
    """Initialise the process group: NCCL on GPUs, gloo on CPUs."""
    if _meeting is None:
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=_meeting.store, rank=torchrun.rank(), world_size=torchrun.world_size())


def from_main(call: Callable[[], T]) -> T:
    """The result of `call`, which only rank 0 executes; the other ranks receive it as JSON.

    If it raises, the other ranks exit with status 2.
    """
    if _meeting is None:
        return call()
    key = f"message {next(_meeting.numbers)}"
    if is_main():
        message: dict[str, Any] = {}
        try:
            message["value"] = call()
        finally:
            _meeting.store.set(key, json.dumps(message))
        value: T = message["value"]
        return value
    _meeting.store.wait([key], FOREVER)
    message = json.loads(_meeting.store.get(key))
    if "value" not in message:
        raise SystemExit(2)
    return message["value"]  # type: ignore[no-any-return]


def record_from_main(call: Callable[[], R]) -> R:
    """Like `from_main`, for a call that returns a record or None."""

    def as_json() -> str | None:
        record = call()
        return record.model_dump_json() if record else None

    text = from_main(as_json)
    return Record.model_validate_json(text) if text else None  # type: ignore[return-value]


@contextmanager
def on_main(context: AbstractContextManager[T]) -> Iterator[T | None]:
    """Enter the context on rank 0 only; the other ranks continue once rank 0 is inside."""
    with ExitStack() as stack:
        held: list[T] = []
        from_main(lambda: held.append(stack.enter_context(context)))
        yield held[0] if held else None


def main_first(call: Callable[[], T]) -> T:
    """The result of `call` on each rank; the others wait until rank 0 is done (with a download, say)."""
    made: list[T] = []
    from_main(lambda: made.append(call()))
    return made[0] if made else call()


def all_sum(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The sum of each tensor over all ranks, without gradients; all tensors share one dtype and device."""
    if world_size() == 1 or not tensors:
        return list(tensors)
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def max_over_ranks(value: int) -> int:
    """The largest value over all ranks. Reduced on the CPU, so it never waits for a GPU."""
    if world_size() == 1:
        return value
    largest = torch.tensor(value)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their means over all ranks; a gradient that only some ranks have counts as 0 on the rest."""
    if world_size() == 1:
        return
    parameters = list(parameters)
    exists = torch.tensor([parameter.grad is not None for parameter in parameters], dtype=torch.uint8)
    dist.all_reduce(exists, dist.ReduceOp.MAX)
    there = [parameter for parameter, anywhere in zip(parameters, exists.tolist(), strict=True) if anywhere]
    for parameter in there:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    for dtype in {parameter.dtype: None for parameter in there}:
        gradients = [each.grad for each in there if each.dtype == dtype and each.grad is not None]
        for gradient, total in zip(gradients, all_sum(gradients), strict=True):
            gradient.copy_(total / world_size())


@torch.no_grad()
def copy_from_main(module: nn.Module) -> None:
    """Copy parameters and buffers from rank 0."""
    if world_size() == 1:
        return
    for tensor in (*module.parameters(), *module.buffers()):
        values = tensor.contiguous()
        dist.broadcast(values, 0)
        tensor.copy_(values)


@contextmanager
def ending_together(give_up: Callable[[Ending], None], missing_data: bool = False, status: int = 1) -> Iterator[Ending]:
    """Like `ending`, for work that all ranks share: the first failure becomes every rank's status.

    Exceptions that `ending` lets through are raised here too, and the other ranks exit with status 2. A rank that is
    blocked in a collective with a failed one is ended with `status` after `PATIENCE` seconds; rank 0 first calls
    `give_up`, which should write the record.
    """
    if _meeting is None:
        with ending(missing_data) as end:
            yield end
        return
    store, over = _meeting.store, threading.Event()
    watch = threading.Thread(target=_watch, args=(store.clone(), over, give_up, status), daemon=True)
    watch.start()
    try:
        with ending(missing_data) as end:
            try:
                yield end
            except RuntimeError as error:
                if not any(words in str(error) for words in LOST):
                    raise
                if not _published_failure(store, seconds=2):
                    raise LostProcess("another process of this run ended; it may have been killed") from None
        if end.status != "done":
            store.compare_set(FAILURE, "", json.dumps(asdict(end)))
    except (UserError, OSError):
        store.compare_set(FAILURE, "", json.dumps(None))
        raise
    finally:
        over.set()
    try:
        failure = _published_failure(store)
    except RuntimeError:  # rank 0, which hosts the store, is done and gone
        return
    if failure:
        end.status, end.reason, end.log_tail = failure.status, failure.reason, failure.log_tail


def _published_failure(store: Any, seconds: float = 0) -> Ending | None:
    """The first failure in the store, or None if there is none within so many seconds.

    Raises SystemExit if that failure is no result of the run, such as a user's mistake.
    """
    until = time.monotonic() + seconds
    while not store.check([FAILURE]):
        if time.monotonic() >= until:
            return None
        time.sleep(0.1)
    failure = json.loads(store.get(FAILURE))
    if failure is None:
        raise SystemExit(2)
    return Ending(**failure)


def _watch(store: Any, over: threading.Event, give_up: Callable[[Ending], None], status: int) -> None:
    """End this process if another rank failed and this one does not end by itself."""
    with suppress(RuntimeError):  # the store is gone once the process that hosts it exits
        while not over.wait(0.3):
            if not store.check([FAILURE]) or over.wait(PATIENCE):
                continue
            try:
                failure = _published_failure(store)
                if failure and is_main():
                    give_up(failure)
                    print(f"ended as {failure.status}: {failure.reason}", file=sys.stderr, flush=True)
            except SystemExit:
                status = 2
            finally:
                if is_main():
                    _part(store)
                os._exit(status)


def _is_first_mistake(store: Any) -> bool:
    try:
        return bool(store.add("mistakes", 1) == 1)
    except RuntimeError:  # the store is gone: the process that hosted it failed first
        return False


def _part(store: Any) -> None:
    """Leave after rank 0 has left: torchrun kills the remaining ranks as soon as one exits with an error."""
    with suppress(RuntimeError):
        if is_main():
            store.set(PARTED, "")
        else:
            store.wait([PARTED], timedelta(seconds=60))
