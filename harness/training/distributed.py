"""One run on several processes, as torchrun starts them: ranks, sums, and decisions that all must share.

With one process every function here does nothing and returns its argument.

Only the main process, rank 0, writes, prints and holds locks. A process that fails notes it in the shared store, since
the others would wait for it forever in a collective call.
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

FOREVER = timedelta(days=365)  # for what may wait until another run ends
PATIENCE = 10.0  # seconds for a process to notice by itself that another one failed
FAILURE, PARTED = "failure", "parted"  # keys of the store: the first failure; the main process has left
# What gloo and NCCL say when the process at the other end is gone.
LOST = ("onnection closed by peer", "onnection reset by peer", "roken pipe", "ncclRemoteError", "NCCL communicator")


class LostProcess(Exception):
    """Another process of the run ended without a message."""


def number() -> int:
    """How many processes train or evaluate this run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if number() > 1 else 0


@dataclass
class _Meeting:
    """The store that the processes share, and the numbers of the messages so far."""

    store: Any
    numbers: Iterator[int]


_meeting: _Meeting | None = None


@contextmanager
def joined() -> Iterator[None]:
    """Connect to the other processes, if torchrun started several, until the block ends.

    All but the main process are silent and exit after it. If several raise a UserError, the first one's is raised; the
    others exit with status 2.
    """
    global _meeting
    if torchrun.number() == 1:
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
            dist.destroy_process_group()  # processes that wait for this one in a collective get an error
        _part(store)


def start(device: torch.device) -> None:
    """Make the process group for devices of this kind: NCCL on GPUs, gloo on CPUs."""
    if _meeting is None:
        return
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=_meeting.store, rank=torchrun.rank(), world_size=torchrun.number())


def from_main(call: Callable[[], T]) -> T:
    """The result of `call` on the main process, which all processes get, the others through JSON.

    If it raises, the others exit with status 2.
    """
    if _meeting is None:
        return call()
    key = f"word {next(_meeting.numbers)}"
    if is_main():
        said: dict[str, Any] = {}
        try:
            said["value"] = call()
        finally:
            _meeting.store.set(key, json.dumps(said))
        value: T = said["value"]
        return value
    _meeting.store.wait([key], FOREVER)
    said = json.loads(_meeting.store.get(key))
    if "value" not in said:
        raise SystemExit(2)
    return said["value"]  # type: ignore[no-any-return]


def record_from_main(call: Callable[[], R]) -> R:
    """As `from_main`, for a call that returns a record, or None."""

    def as_json() -> str | None:
        record = call()
        return record.model_dump_json() if record else None

    text = from_main(as_json)
    return Record.model_validate_json(text) if text else None  # type: ignore[return-value]


@contextmanager
def on_main(context: AbstractContextManager[T]) -> Iterator[T | None]:
    """Enter the context on the main process only; the others continue once it is entered there."""
    with ExitStack() as stack:
        held: list[T] = []
        from_main(lambda: held.append(stack.enter_context(context)))
        yield held[0] if held else None


def main_first(call: Callable[[], T]) -> T:
    """The result of `call`, such as a download, on each process; the main process calls first."""
    made: list[T] = []
    from_main(lambda: made.append(call()))
    return made[0] if made else call()


def all_sum(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The sum of each tensor over the processes, without gradients; all have one dtype and device."""
    if number() == 1 or not tensors:
        return list(tensors)
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    parts = flat.split([tensor.numel() for tensor in tensors])
    return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def most(value: int) -> int:
    """The largest of the processes' numbers. Waits for all processes, but not for a GPU."""
    if number() == 1:
        return value
    largest = torch.tensor(value)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace gradients by their means over the processes; a missing one counts as 0 if another process has it."""
    if number() == 1:
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
            gradient.copy_(total / number())


@torch.no_grad()
def copy_from_main(module: nn.Module) -> None:
    """Copy parameters and buffers from the main process."""
    if number() == 1:
        return
    for tensor in (*module.parameters(), *module.buffers()):
        values = tensor.contiguous()
        dist.broadcast(values, 0)
        tensor.copy_(values)


@contextmanager
def ending_together(give_up: Callable[[Ending], None], missing_data: bool = False, status: int = 1) -> Iterator[Ending]:
    """As `ending`, for work that all processes share: if it fails on one, it ends on all as on the first to fail.

    Exceptions that pass through `ending` pass here too, and the other processes exit with status 2. A process that
    waits for a failed one in a call that cannot be interrupted is ended with `status` after `PATIENCE` seconds; the
    main process calls `give_up`, which should write the record, before.
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
                if not _word_of_failure(store, seconds=2):
                    raise LostProcess("another process of this run ended; it may have been killed") from None
        if end.status != "done":
            store.compare_set(FAILURE, "", json.dumps(asdict(end)))
    except (UserError, OSError):
        store.compare_set(FAILURE, "", json.dumps(None))
        raise
    finally:
        over.set()
    if word := _word_of_failure(store):
        end.status, end.reason, end.log_tail = word.status, word.reason, word.log_tail


def _word_of_failure(store: Any, seconds: float = 0) -> Ending | None:
    """How the first process failed, or None if none did within so many seconds.

    Raises SystemExit if its failure is not a result of the run, such as a user's mistake.
    """
    until = time.monotonic() + seconds
    while not store.check([FAILURE]):
        if time.monotonic() >= until:
            return None
        time.sleep(0.1)
    said = json.loads(store.get(FAILURE))
    if said is None:
        raise SystemExit(2)
    return Ending(**said)


def _watch(store: Any, over: threading.Event, give_up: Callable[[Ending], None], status: int) -> None:
    """End this process if another one failed and this one does not end by itself."""
    with suppress(RuntimeError):  # the store ends with the process that holds it
        while not over.wait(0.3):
            if not store.check([FAILURE]) or over.wait(PATIENCE):
                continue
            try:
                word = _word_of_failure(store)
                if word and is_main():
                    give_up(word)
                    print(f"ended as {word.status}: {word.reason}", file=sys.stderr, flush=True)
            except SystemExit:
                status = 2
            finally:
                if is_main():
                    _part(store)
                os._exit(status)


def _is_first_mistake(store: Any) -> bool:
    try:
        return bool(store.add("mistakes", 1) == 1)
    except RuntimeError:  # the store ended with the process that held it, which was before
        return False


def _part(store: Any) -> None:
    """Leave, the main process first: torchrun ends those that are left when one of them fails."""
    with suppress(RuntimeError):
        if is_main():
            store.set(PARTED, "")
        else:
            store.wait([PARTED], timedelta(seconds=60))
