"""docs/methods.md: a row per method, from its file and its number of parameters."""

import inspect
import re

from harness.experiment import discovery
from harness.models import load_spec

MODEL, CLASSES = "hrnet_w48", 19  # of the costs: the papers' network and Cityscapes' classes
EXTRA_MEMORY = re.compile(r"Peak extra memory[^:]*: ([\d.]+) GiB(?:; with memory ([\d.]+) GiB)?")
INTRODUCTION = f"""# The methods

Each method is one file in `methods/`. It is added to the same network with the same schedule and dropped after
training, so inference costs nothing more. The columns of parameters and memory say what training adds with the default
options, to HRNet-W48 on Cityscapes' {CLASSES} classes with crops of 512x1024, batch 8 and float32, the memory in an
iteration that is logged. The [tables of measured costs](../results/reports/cost/training.md) have the time.
`python -m harness list methods NAME` shows a method's options; the docstring of its class has the equations and what
the released code does differently.

Contrast is not the only thing that can explain a gain over cross entropy. `config/camvid-controls.yaml` has the rivals:

- more supervision: `deep_supervision`, cross entropy on the maps that Contextrast uses, with its layer weights;
- more time: cross entropy with `compute_of: contextrast` trains for as long as Contextrast takes. First run
  `python -m harness equal-compute FILE`, which times both on your machine and fills in the ratio;
- a better pixel loss: the boundary losses, against boundary-aware negatives.

This page is written by `python -m harness list methods --markdown > docs/methods.md`.
"""
HEADINGS = ("method", "published", "idea", "parameters", "memory", "what paper and code leave open")


def methods_page() -> str:
    """The page as Markdown. Imports every method, which takes torch and seconds."""
    rows = [HEADINGS, ("---", "---", "---", "--:", "--:", "---"), *(_row(name) for name in discovery.names())]
    return INTRODUCTION + "\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def extra_memory(kind: type) -> list[float] | None:
    """GiB from the docstring of a method's class, without its memory and with it; None if it has no such sentence."""
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
