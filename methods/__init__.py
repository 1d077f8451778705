"""Every method as a loss for any training loop: `from methods import Contextrast`.

>>> import torch
>>> from methods import Contextrast
>>> method = Contextrast(channels=[8, 16], num_classes=3, dim=16)
>>> maps = [torch.randn(2, 8, 16, 16), torch.randn(2, 16, 8, 8)]  # of the encoder, fine to coarse
>>> logits, labels = torch.randn(2, 3, 32, 32), torch.randint(0, 3, (2, 32, 32))
>>> terms = method(maps, logits, labels, iteration=0)  # to add to the cross entropy
>>> sorted(terms)
['pixel_anchor']

A method's parameters are its heads: give them to the optimiser, and drop them after training.
"""

import importlib
import re
from typing import Any


def __getattr__(name: str) -> Any:
    """The class of a method, such as `ContextrastPP`, from the file of that name, underscores aside."""
    if name[:1].isupper():
        from pathlib import Path

        for folder in __path__:
            for path in Path(folder).glob("*.py"):
                if re.sub("_", "", path.stem) == name.lower():
                    return getattr(importlib.import_module(f"methods.{path.stem}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
