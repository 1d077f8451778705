"""CUDA graphs: capture an iteration's kernels once and replay them with a single call."""

import gc
import sys
import warnings
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import torch
from torch import Tensor

from harness.compute import devices

WAITS = "called a synchronizing CUDA operation"  # in torch's warning
EAGER = 2  # uncaptured calls of each kind first, to fill caches and let cuDNN benchmark


class Graphs:
    """Captures each kind of call of a function of tensors as a CUDA graph, and replays it from then on.

    function(*tensors) works on the current CUDA device, returns tensors, and launches the same kernels in every call of
    one kind. `name` is its name in messages.

    state() returns the tensors that calls read and modify. They must be modified in place, since a graph refers to them
    by address.

    The first calls of a kind run eagerly. All further calls run eagerly too, with one message, if such a call makes the
    host wait, replaces a tensor of the state, cannot be captured, or needs half of the memory or more.
    """

    def __init__(self, function: Callable[..., Any], name: str, state: Callable[[], Iterable[Tensor]] = tuple) -> None:
        self._function, self._name, self._state = function, name, state
        # Warm-up and capture share a stream: autograd runs a parameter's backward on the stream of its first use.
        self._stream = torch.cuda.Stream()
        self._pool = torch.cuda.graph_pool_handle()
        self._calls: dict[Hashable, int] = {}
        self._captured: dict[Hashable, tuple[torch.cuda.CUDAGraph, Any]] = {}
        self._inputs: list[Tensor] = []
        self._refused = False
        self.capturing = False

    def __call__(self, kind: Hashable, *tensors: Tensor) -> Any:
        """The function's results, which the next call overwrites. The tensors may be in pinned memory."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            results = self._call(kind, self._kept(tensors))
        torch.cuda.current_stream().wait_stream(self._stream)
        return results

    @property
    def replays(self) -> bool:
        """Whether any kind of call is replayed."""
        return bool(self._captured)

    def _kept(self, tensors: tuple[Tensor, ...]) -> list[Tensor]:
        """The tensors, copied to the memory that the graphs read."""
        if [each.shape for each in tensors] != [each.shape for each in self._inputs]:
            self._captured.clear()
            self._inputs = [torch.empty_like(each, device="cuda") for each in tensors]
        for kept, each in zip(self._inputs, tensors, strict=True):
            kept.copy_(each, non_blocking=True)
        return self._inputs

    def _call(self, kind: Hashable, tensors: list[Tensor]) -> Any:
        if kind not in self._captured:
            calls = self._calls[kind] = self._calls.get(kind, 0) + 1
            if self._refused or calls < EAGER:
                return self._function(*tensors)
            if calls == EAGER:
                return self._watched(tensors)
            if not self._capture(kind, tensors):
                return self._function(*tensors)
        graph, results = self._captured[kind]
        graph.replay()
        return results

    def _watched(self, tensors: list[Tensor]) -> Any:
        """Call eagerly, and refuse capture if the host waited for the GPU or a graph would need too much memory."""
        torch.cuda.reset_peak_memory_stats()
        before = list(self._state())
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                results = self._function(*tensors)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        waits = [each for each in caught if WAITS in str(each.message)]
        for each in caught:
            if WAITS not in str(each.message) and "debug mode" not in str(each.message):
                warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)
        if waits:
            self._refuse(f"the host waits for the GPU at {waits[0].filename}:{waits[0].lineno}")
        elif any(one is not other for one, other in zip(before, self._state(), strict=True)):
            self._refuse("a tensor of its state is replaced, not written into")
        elif 2 * torch.cuda.max_memory_allocated() > torch.cuda.mem_get_info()[1] / devices.sharers():
            self._refuse("it would take more memory than there is")
        return results

    def _capture(self, kind: Hashable, tensors: list[Tensor]) -> bool:
        gc.collect()  # free tensors in reference cycles of earlier calls
        graph = torch.cuda.CUDAGraph()
        self.capturing = True
        try:
            # thread_local: other threads, which read and pin the next images, may allocate during capture.
            with torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"):
                results = self._function(*tensors)
        except Exception as error:  # the call then runs eagerly, and raises again if the error is its own
            self._refuse(str(error).partition("\n")[0])
            gc.collect()
            with torch.cuda.graph(torch.cuda.CUDAGraph(), stream=self._stream):  # resets the random generator's state
                torch.zeros(1, device="cuda")
            return False
        finally:
            self.capturing = False
        self._captured[kind] = graph, results
        return True

    def _refuse(self, why: str) -> None:
        if not self._refused:
            print(f"{self._name} runs without a CUDA graph: {why}", file=sys.stderr, flush=True)
        self._refused = True
