"""docs/methods.md: one line a method, from what its file says of itself and from its parameters."""

import inspect
import re

from harness.experiment import discovery
from harness.models import load_spec

MODEL, CLASSES = "hrnet_w48", 19  # what the costs are given for: the papers' network, and Cityscapes' classes
EXTRA_MEMORY = re.compile(r"Peak extra memory[^:]*: ([\d.]+) GiB(?:; with memory ([\d.]+) GiB)?")
INTRODUCTION = f"""# The methods

Each is one file in `methods/`, added to the same network with the same schedule, and dropped after training: inference
costs nothing more. The cost is what training adds, with the default options: parameters, and memory over that of the
network (HRNet-W48 on Cityscapes' {CLASSES} classes, crops of 512x1024, batch 8, float32). What an iteration takes more
is in [the tables of measured costs](../results/reports/cost/training.md). Options and their defaults:
`python -m harness list methods`; equations, and what released code does otherwise: each class's docstring.

A gain over cross entropy may have other reasons than contrast, and `config/camvid-controls.yaml` compares them: more
supervision (`deep_supervision`: the same maps and layer weights with cross entropy), more time (an arm of cross entropy
with `compute_of: contextrast`, which trains as long as that takes), and a better pixel loss, of which the boundary
losses are the rivals of boundary-aware negatives. `python -m harness equal-compute --config FILE` times the steps of
the arms on your machine, in turns, and fills the ratio into the file; run it before you train.

This page is written by `python -m harness list methods --markdown > docs/methods.md`.
"""
HEADINGS = ("method", "published", "idea", "parameters", "memory", "what paper and code leave open")


def methods_page() -> str:
    """The page as Markdown. Imports every method, which takes torch and seconds."""
    rows = [HEADINGS, ("---", "---", "---", "--:", "--:", "---"), *(_row(name) for name in discovery.names())]
    return INTRODUCTION + "\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def extra_memory(kind: type) -> list[float] | None:
    """GiB that the docstring of a method's class states, alone and then with its memory; None where it states none."""
    found = EXTRA_MEMORY.search(" ".join((inspect.getdoc(kind) or "").split()))
    return [float(each) for each in found.groups() if each] if found else None


def _row(name: str) -> tuple[str, ...]:
    about, kind = discovery.about(name), discovery.load(name)
    method = kind(load_spec(MODEL).taps.channels, CLASSES)
    parameters = sum(parameter.numel() for parameter in method.parameters())
    memory = extra_memory(kind)
    published = f"[{about.published}]({about.url})" if about.url and about.paper else about.published
    return (
        f"{about.title}<br>`{name}`",
        published or "-",
        about.idea,
        f"{parameters / 1e6:.2f} M" if parameters else "-",
        f"{memory[0]:.2f} GiB" if memory and memory[0] else "-",
        about.left_open or "-",
    )
