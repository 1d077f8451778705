"""Folders that lie beside harness/ in a checkout, and inside it where the package is installed (setup.py)."""

from pathlib import Path

HARNESS = Path(__file__).parents[1]


def shipped(in_checkout: str, installed: str) -> Path:
    """The folder of a checkout, relative to its top, or where `pip install .` puts its files."""
    inside = HARNESS / installed
    return inside if inside.is_dir() else HARNESS.parent / in_checkout


PUBLISHED = shipped("results/published", "published")  # figures of the papers, CSV
EXPERIMENTS = shipped("config", "config_files")  # the experiments of this project, YAML
