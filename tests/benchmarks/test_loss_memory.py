"""Peak extra memory of every method, against the figure its docstring states; run with `--benchmark-enable -s`.

HRNet-W48's four maps at 512x1024, batch 8, 19 classes, float32 on a CPU, memories full: the most bytes that torch's
allocator holds at a time during the method's forward and backward, over what was there before (the maps, the logits).
"""

import gc
import inspect
import re

import pytest
import torch

from harness import discovery
from methods.class_queues import Queues

CHANNELS, CLASSES, BATCH, HEIGHT, WIDTH = (48, 96, 192, 384), 19, 8, 128, 256
STATED = re.compile(r"Peak extra memory[^:]*: ([\d.]+) GiB(?:; with memory ([\d.]+) GiB)?")
CASES = [(name, {}) for name in discovery.names() if name != "cross_entropy"] + [("pixel_contrast", {"memory": True})]


def inputs():
    """Blocks of classes, of which the logits get four of five pixels right."""
    torch.manual_seed(0)
    coarse = torch.randint(0, CLASSES, (BATCH, HEIGHT // 16, WIDTH // 16))
    labels = coarse.repeat_interleave(64, 1).repeat_interleave(64, 2)
    logits = torch.randn(BATCH, CLASSES, HEIGHT, WIDTH)
    logits.scatter_add_(1, labels[:, None, ::4, ::4], 3.0 * torch.ones(BATCH, 1, HEIGHT, WIDTH))
    sizes = [(BATCH, c, HEIGHT >> i, WIDTH >> i) for i, c in enumerate(CHANNELS)]
    return [torch.randn(size, requires_grad=True) for size in sizes], logits, labels


def fill(method):
    for queues in (part for part in method.modules() if isinstance(part, Queues)):
        queues.vectors.copy_(torch.nn.functional.normalize(torch.randn_like(queues.vectors), dim=-1))
        queues.filled.fill_(queues.length)


def peak_bytes(step):
    """The most bytes held at a time during `step` over those held before it."""
    gc.collect()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def test_the_meter_counts_what_is_held_at_a_time():
    def step():
        for _ in range(3):
            a = torch.zeros(2**20)  # 4 MiB
            b = torch.zeros(2**20)
            del a, b

    assert peak_bytes(step) == pytest.approx(8 * 2**20, rel=0.01)


@pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{name}{'-memory' if o else ''}" for name, o in CASES])
def test_peak_extra_memory(benchmark, name, options):
    if benchmark.disabled:
        pytest.skip("run with --benchmark-enable -s")
    features, logits, labels = inputs()
    kind = discovery.load(name)
    method = kind(CHANNELS, CLASSES, **options)
    fill(method)

    def step():
        torch.stack(list(method(features, logits, labels, 0).values())).sum().backward()

    gibibytes = benchmark.pedantic(peak_bytes, (step,), rounds=1) / 2**30
    benchmark.extra_info["gibibytes"] = gibibytes
    print(f"\n{name} {options or ''}: {gibibytes:.2f} GiB")
    stated = STATED.search(" ".join(inspect.getdoc(kind).split()))
    assert stated, f"methods/{name}.py states no peak extra memory; measured: {gibibytes:.1f} GiB"
    assert gibibytes == pytest.approx(float(stated[2 if options else 1]), rel=0.05, abs=0.06)
