"""Contrastive learning for semantic segmentation, compared. The functions are documented in `harness.api`."""

from typing import Any

__version__ = "0.1.0"

__all__ = ["boundary_iou", "compare", "evaluate_label_maps", "load_records"]


def __dir__() -> list[str]:
    return [*globals(), *__all__]


def __getattr__(name: str) -> Any:
    """The functions of `harness.api`, imported on first use, since they import numpy."""
    if name in __all__:
        from harness import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
