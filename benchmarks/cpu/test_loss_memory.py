"""Peak extra memory of every method, compared with the figure in its docstring.

HRNet-W48's four maps at 512x1024, batch 8, 19 classes, float32 on a CPU, full memory banks: the peak of torch's
allocator during the method's forward and backward pass, minus what was allocated before (maps and logits).
"""

import pytest
import torch

from harness.cost.arms import fill_memories
from harness.cost.memory import peak_bytes
from harness.experiment import discovery
from harness.reporting.methods_page import extra_memory

CHANNELS, CLASSES, BATCH, HEIGHT, WIDTH = (48, 96, 192, 384), 19, 8, 128, 256
CASES = [(name, {}) for name in discovery.names() if name != "cross_entropy"] + [("pixel_contrast", {"memory": True})]


def inputs():
    """Features, logits and labels: blocks of classes, with four of five pixels classified correctly."""
    torch.manual_seed(0)
    coarse = torch.randint(0, CLASSES, (BATCH, HEIGHT // 16, WIDTH // 16))
    labels = coarse.repeat_interleave(64, 1).repeat_interleave(64, 2)
    logits = torch.randn(BATCH, CLASSES, HEIGHT, WIDTH)
    logits.scatter_add_(1, labels[:, None, ::4, ::4], 3.0 * torch.ones(BATCH, 1, HEIGHT, WIDTH))
    sizes = [(BATCH, c, HEIGHT >> i, WIDTH >> i) for i, c in enumerate(CHANNELS)]
    return [torch.randn(size, requires_grad=True) for size in sizes], logits.requires_grad_(), labels


def case(name, options):
    """Each takes half a minute on two cores: `make bench` runs the paper's method, `-m exhaustive` runs the others."""
    marks = [] if name == "contextrast" else [pytest.mark.exhaustive]
    return pytest.param(name, options, marks=marks, id=f"{name}{'-memory' if options else ''}")


@pytest.mark.parametrize(("name", "options"), [case(*each) for each in CASES])
def test_peak_extra_memory(benchmark, name, options):
    features, logits, labels = inputs()
    kind = discovery.load(name)
    method = kind(CHANNELS, CLASSES, **options)
    fill_memories(method)

    def step():
        torch.stack(list(method(features, logits, labels, 0).values())).sum().backward()

    gibibytes = benchmark.pedantic(peak_bytes, (step, torch.device("cpu")), rounds=1) / 2**30
    benchmark.extra_info["gibibytes"] = gibibytes
    print(f"\n{name} {options or ''}: {gibibytes:.2f} GiB")
    stated = extra_memory(kind)
    assert stated, f"methods/{name}.py states no peak extra memory; measured: {gibibytes:.1f} GiB"
    assert gibibytes == pytest.approx(stated[-1 if options else 0], rel=0.05, abs=0.06)
